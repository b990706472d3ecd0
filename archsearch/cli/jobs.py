"""``archsearch submit``, ``jobs``, ``logs`` and ``stop``: a search on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.output import JsonFlag, console, print_json, table, tell, write

if TYPE_CHECKING:
    from archsearch.jobs import Job

Address = Annotated[
    str, typer.Option("--address", metavar="URL", help="URL of the Ray dashboard, as http://127.0.0.1:8265.")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, as `archsearch jobs` lists it.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("submit")(submit)
    app.command("jobs")(jobs)
    app.command("logs")(logs)
    app.command("stop")(stop)


def submit(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Spec file of the search (TOML).")],
    address: Address,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", metavar="URL", help="Database, without a password; else ARCHSEARCH_STORAGE on the cluster."
        ),
    ] = None,
    job_id: Annotated[
        str | None, typer.Option("--job-id", help="Id of the job; by default made from the name.")
    ] = None,
    cpus: Annotated[
        float, typer.Option("--cpus", metavar="N", min=0.0, help="CPUs kept for the search's own process.")
    ] = 0.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the search of that name that was stopped.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Runs a search on a Ray cluster.

    Sends the spec, waits a few seconds for the job to start, and returns.
    """
    from archsearch.jobs import Cluster, prepare, wait_for_start
    from archsearch.jobs import submit as send
    from archsearch.registry import load_registry

    submission = prepare(spec, load_registry(), storage=storage, resume=resume)
    cluster = Cluster(address)
    started = send(cluster, submission, job_id=job_id, cpus=cpus)
    job = wait_for_start(cluster, started.id, tell=tell)
    if json:
        print_json(_as_json(job))
        return
    out = console()
    out.print(f"submitted {job.search} as job {job.id}: {job.status}")
    if job.reason:
        out.print(job.reason, soft_wrap=True)
    out.print(
        f"next:\n  archsearch logs {job.id} --address {cluster.address} --follow\n"
        f"  archsearch stop {job.id} --address {cluster.address}\n  archsearch jobs --address {cluster.address}",
        soft_wrap=True,
    )


def jobs(address: Address, json: JsonFlag = False) -> None:
    """Lists the searches that were submitted to a cluster."""
    from archsearch.jobs import Cluster

    cluster = Cluster(address)
    found = cluster.jobs()
    if json:
        print_json({"address": cluster.address, "jobs": [_as_json(job) for job in found]})
        return
    out = console()
    if not found:
        out.print(f"no search was submitted to {cluster.address} yet: `archsearch submit SPEC --address URL` does it")
        return
    rows = [[job.id, job.search, job.status, _moment(job.started_at), _took(job)] for job in found]
    out.print(table(["job", "search", "status", "submitted (UTC)", ">took"], rows))
    for job in found:
        if job.reason:
            out.print(f"{job.id}: {job.reason}", soft_wrap=True)


def logs(
    job: JobId,
    address: Address,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has finished.")] = False,
    json: JsonFlag = False,
) -> None:
    """Prints what a job has printed.

    With --follow, until it has finished; the exit code is 1 when it did not succeed.
    """
    from archsearch.jobs import Cluster
    from archsearch.jobs import follow as follow_job

    cluster = Cluster(address)
    show = _ignore if json else write
    if follow:
        ended = follow_job(cluster, job, show, tell=tell)
    else:
        ended = cluster.job(job)
        show(cluster.logs(job))
    if json:
        print_json({**_as_json(ended), "logs": cluster.logs(job)})
    failed = follow and ended.status != "SUCCEEDED"
    if failed or ended.reason:
        tell(f"job {ended.id} is {ended.status}" + (f": {ended.reason}" if ended.reason else ""))
    if failed:
        raise typer.Exit(1)


def stop(job: JobId, address: Address, json: JsonFlag = False) -> None:
    """Stops a job as Ctrl-C would.

    Waits until it has stopped, and says how it ended.
    """
    from archsearch.jobs import Cluster
    from archsearch.jobs import stop as stop_job

    cluster = Cluster(address)
    ended = stop_job(cluster, job, tell=tell)
    if json:
        print_json(_as_json(ended))
        return
    out = console()
    out.print(f"job {ended.id}: {ended.status}")
    if ended.status == "STOPPED" and ended.search:
        out.print("to go on with its search: archsearch submit SPEC --resume --address " + cluster.address)


def _as_json(job: Job) -> dict[str, Any]:
    from dataclasses import asdict

    moments = {name: moment.isoformat() if moment else None for name, moment in _moments(job)}
    return {**asdict(job), **moments, "reason": job.reason}


def _moments(job: Job) -> list[tuple[str, Any]]:
    return [("started_at", job.started_at), ("finished_at", job.finished_at)]


def _moment(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "-"


def _took(job: Job) -> str:
    if not job.started_at or not job.finished_at:
        return "-"
    return f"{(job.finished_at - job.started_at).total_seconds():.0f} s"


def _ignore(text: str) -> None:
    """Takes text that JSON will hold in the end."""
