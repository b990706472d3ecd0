"""``archsearch submit``, ``jobs``, ``logs`` and ``stop``: a search on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.climbing import LadderYesOption
from archsearch.cli.output import (
    JsonFlag,
    StorageOption,
    console,
    print_json,
    prints_told,
    table,
    tell,
    write,
)
from archsearch.cli.run import GrowOption, HoursOption, RetrainOption, UntilOption, WaitOption

if TYPE_CHECKING:
    from archsearch.jobs import Cluster, Job
    from archsearch.storage.jobs import JobRecord

Address = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="URL of the Ray dashboard, as http://127.0.0.1:8265.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, as `archsearch jobs` lists it.")]
ScheduleTimeout = Annotated[
    float,
    typer.Option(
        "--schedule-timeout",
        metavar="SECONDS",
        min=1.0,
        help="How long the job may wait for room before it is given up.",
    ),
]
ThereOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help="Database, without a password; else that of ARCHSEARCH_STORAGE or ARCHSEARCH_STORAGE_FILE on the cluster.",
    ),
]
PluginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FOLDER|WHEEL|REQUIREMENT",
        help="A plugin that goes along: its folder, its wheel, or what pip is to install there; repeatable.",
    ),
]
CpusOption = Annotated[
    float, typer.Option("--cpus", metavar="N", min=0.0, help="CPUs kept for the search's own process.")
]
GpusOption = Annotated[
    float, typer.Option("--gpus", metavar="F", min=0.0, help="GPUs kept for the search's own process.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the search of that name where the database has one.")
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="TEXT", help="Names this submission: another of the same key is the same job, for good."
    ),
]
IdOption = Annotated[str | None, typer.Option("--job-id", help="Id of the job; by default made from the name.")]
InsecureOption = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Also to a cluster that others reach and that asks nobody for a token, or whose jobs can read the "
        "database's password in their environment.",
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("submit")(submit)
    app.command("jobs")(jobs)
    app.command("logs")(logs)
    app.command("stop")(stop)
    app.command("question", hidden=True)(question)


def submit(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Spec file of the search (TOML).")],
    address: Address,
    storage: ThereOption = None,
    plugin: PluginOption = None,
    cpus: CpusOption = 0.0,
    gpus: GpusOption = 0.0,
    resume: ResumeOption = False,
    grow: GrowOption = False,
    wait: WaitOption = False,
    retrain: RetrainOption = False,
    max_hours: HoursOption = None,
    until: UntilOption = None,
    yes: LadderYesOption = False,
    key: KeyOption = None,
    job_id: IdOption = None,
    schedule_timeout: ScheduleTimeout = 300.0,
    insecure: InsecureOption = False,
    json: JsonFlag = False,
) -> None:
    """Runs a search on a Ray cluster.

    Asks the cluster whether it would run there, sends the spec and the plugins, waits for the job to start, and
    returns. The same submission is the same job, however often it is sent, until that failed or was stopped. The exit
    code is 1 when the job has failed or was stopped by then.
    """
    from archsearch.errors import SpecError
    from archsearch.jobs import Cluster, Wishes, check_open, open_rows, packed, prepare, wait_for_start
    from archsearch.jobs import submit as send
    from archsearch.search.time_limit import TimeLimit
    from archsearch.storage import storage_url

    if not resume and (grow or wait or retrain):
        raise SpecError("--grow, --wait and --retrain are for a search that goes on: give --resume too")
    wishes = Wishes(
        storage=storage,
        resume=resume,
        grow=grow,
        wait=wait,
        retrain=retrain,
        yes=yes,
        limit=TimeLimit.read(max_hours, until).arguments,
        cpus=cpus,
        gpus=gpus,
    )
    with packed(plugin or [], tell) as plugins:
        submission = prepare(spec, plugins=plugins, wishes=wishes)
        cluster = Cluster(address)
        check_open(cluster, insecure=insecure)
        with open_rows(storage_url(storage, spec=submission.read.storage.url), tell) as rows:
            sent, new = send(cluster, submission, rows, job_id=job_id, key=key, tell=tell, insecure=insecure)
            job = sent if sent.finished else wait_for_start(cluster, sent.id, seconds=schedule_timeout, tell=tell)
            rows.heard(job)
    if json:
        print_json({**_as_json(job), "new": new})
    else:
        _show_submitted(cluster, job, new)
    if job.status in ("FAILED", "STOPPED"):
        tell(_not_running(cluster, job, keyed=key is not None and not new))
        raise typer.Exit(1)


def _show_submitted(cluster: Cluster, job: Job, new: bool) -> None:
    out = console()
    how = "submitted" if new else "submitted before:"
    out.print(f"{how} {job.search} as job {job.id}: {job.status}", soft_wrap=True)
    if job.reason and not job.finished:
        out.print(job.reason, soft_wrap=True)
    out.print(
        f"next:\n  archsearch logs {job.id} --address {cluster.address} --follow\n"
        f"  archsearch stop {job.id} --address {cluster.address}\n  archsearch jobs --address {cluster.address}",
        soft_wrap=True,
    )


def _not_running(cluster: Cluster, job: Job, *, keyed: bool) -> str:
    """Why no search runs after a submission; a job that is named by a key of the user's stays what it is."""
    why = cluster.why(job)
    told = f"job {job.id} is {job.status}" + (f": {why}" if why else "")
    return f"{told}; its key names it for good: submit with another key" if keyed else told


def question(file: Annotated[str, typer.Argument(metavar="FILE")]) -> None:
    """Answers what a submitter asks of the cluster that this runs on."""
    from json import dumps
    from pathlib import Path

    from archsearch.jobs import MARK, Question, answer

    with prints_told():
        found = answer(Question.read(Path(file)))
    write(f"{MARK}{dumps(found, default=str)}\n")


def jobs(address: Address, storage: StorageOption = None, json: JsonFlag = False) -> None:
    """Lists the searches that were submitted to a cluster."""
    from archsearch.jobs import Cluster, open_rows
    from archsearch.storage import storage_url

    cluster = Cluster(address)
    found = cluster.jobs()
    with open_rows(storage_url(storage), tell) as rows:
        missing = rows.learn(cluster.address, found)
    if json:
        listed = [*(_as_json(job) for job in found), *(_missing_json(record) for record in missing)]
        print_json({"address": cluster.address, "jobs": listed})
        return
    out = console()
    if not found and not missing:
        out.print(f"no search was submitted to {cluster.address} yet: `archsearch submit SPEC --address URL` does it")
        return
    shown = [[job.id, job.search, job.status, job.owner or "-", _moment(job.started_at), _took(job)] for job in found]
    shown += [
        [one.name, one.search, one.state.upper(), one.owner or "-", _moment(one.created_at), "-"] for one in missing
    ]
    out.print(table(["job", "search", "status", "owner", "submitted (UTC)", ">took"], shown))
    for job in found:
        why = cluster.why(job)
        if why:
            out.print(f"{job.id}: {why}", soft_wrap=True)
    for record in missing:
        if not record.ended:
            out.print(f"{record.name}: it has not arrived: submit the same again", soft_wrap=True)


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
    why = cluster.why(ended)
    if failed or why:
        tell(f"job {ended.id} is {ended.status}" + (f": {why}" if why else ""))
    if failed:
        raise typer.Exit(1)


def stop(job: JobId, address: Address, storage: StorageOption = None, json: JsonFlag = False) -> None:
    """Stops a job as Ctrl-C would.

    Waits until it has stopped, and says how it ended and how its search stands.
    """
    from archsearch.jobs import Cluster, open_rows
    from archsearch.jobs import stop as stop_job
    from archsearch.storage import storage_url

    cluster = Cluster(address)
    before = cluster.job(job)
    ended = stop_job(cluster, job, tell=tell)
    with open_rows(storage_url(storage), tell) as rows:
        rows.heard(ended)
    search = None if before.finished or not ended.search else _search_now(cluster, ended, storage)
    if json:
        print_json({**_as_json(ended), "search_state": search})
        return
    out = console()
    out.print(f"job {ended.id}: {ended.status}")
    if search is not None:
        out.print(f"search {ended.search}: {search['state']}" + (f": {search['reason']}" if search["reason"] else ""))
    if ended.status == "STOPPED" and ended.search:
        wait = " --wait" if search is not None and search["state"] in ("running", "interrupted") else ""
        out.print(
            f"to go on with its search: archsearch submit SPEC --resume{wait} --address {cluster.address}",
            soft_wrap=True,
        )


def _search_now(cluster: Cluster, job: Job, storage: str | None) -> dict[str, Any] | None:
    """How the search of a job stands in its database, asked from here where it is a server that can be reached, else on
    the cluster; None, and told, where nobody knows."""
    import shlex

    from archsearch.errors import ArchsearchError, StorageError
    from archsearch.jobs import Question, put
    from archsearch.storage import Store, storage_url
    from archsearch.storage.url import read_url

    assert job.search is not None
    words = shlex.split(job.entrypoint)
    given = words[words.index("--storage") + 1] if "--storage" in words[:-1] else None
    url = storage or given or storage_url()
    try:
        if read_url(url).get_backend_name() != "sqlite":
            with Store.open(url, read_only=True) as store:
                record = store.search(job.search)
                return {"state": record.state_now(), "reason": record.reason}
    except StorageError as error:
        tell(f"the database cannot be asked from here: {error}")
    try:
        found = put(cluster, Question(search=job.search, storage=given), tell)["database"]["search"]
    except ArchsearchError as error:
        tell(f"how the search stands could not be asked: {error}")
        return None
    return found if isinstance(found, dict) else None


def _as_json(job: Job) -> dict[str, Any]:
    from dataclasses import asdict

    moments = {name: moment.isoformat() if moment else None for name, moment in _moments(job)}
    return {**asdict(job), **moments, "reason": job.reason}


def _missing_json(record: JobRecord) -> dict[str, Any]:
    """A job that is known here alone, under the names of the others."""
    return {
        "id": record.name,
        "search": record.search,
        "status": record.state.upper(),
        "message": "",
        "reason": record.reason,
        "entrypoint": "",
        "exit_code": None,
        "key": record.key,
        "owner": record.owner,
        "asks": "",
        "started_at": record.created_at.isoformat(),
        "finished_at": record.finished_at.isoformat() if record.finished_at else None,
    }


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
