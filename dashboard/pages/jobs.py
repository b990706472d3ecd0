"""The page Jobs: a search is drafted, checked and sent to a cluster, and the jobs there are watched and stopped.

It is there only where the dashboard was started with ``--allow-submit``. Whatever it asks of the cluster, the command
line asks in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from archsearch.errors import ArchsearchError
from archsearch.printable import printable

from .. import command_line
from ..address import query
from ..boundary import part
from ..connection import store
from ..login import submitter
from ..navigation import link
from ..queries import drafts
from ..queries.jobs import FINISHED, jobs_table, last_lines
from ..tables import table
from ..text import cell, code, plain, shortened
from .draft import begin_anew, draft_form, draft_id

REFRESH_SECONDS = 15
_NEW, _WATCH = "New job", "Jobs"


def page() -> None:
    """Draws the draft of a job, or the jobs of the cluster."""
    st.title("Jobs")
    who = submitter()
    if who is None:
        st.error("You may read here and not send searches: ask who runs this dashboard.", icon=":material/lock:")
        return
    owned = f", as those of {plain(who)}" if who else ""
    st.caption(f"Searches are sent to the cluster at {plain(command_line.cluster())}{owned}.")
    view = st.segmented_control(
        "View",
        [_NEW, _WATCH],
        default=_NEW,
        key="view",
        bind="query-params",
        label_visibility="collapsed",
        required=True,
    )
    if view == _NEW:
        part(_new)(who)
    else:
        part(_watch, REFRESH_SECONDS)()


def _new(who: str) -> None:
    left, right = st.columns([0.58, 0.42], gap="large")
    with left:
        draft, fault = draft_form()
    with right:
        _hand_over(draft, fault, who)


def _hand_over(draft: Mapping[str, Any], fault: str, who: str) -> None:
    """The file that would be sent, what it would be, and the way to send it."""
    st.subheader("What is sent")
    try:
        toml = drafts.to_toml(draft)
    except ArchsearchError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    st.code(printable(toml), language="toml", height=420)
    mark = drafts.digest(toml)
    checked: Mapping[str, Any] | None = None
    if st.button("Check", icon=":material/checklist:", disabled=bool(fault), help="Counts candidates; a few seconds."):
        st.session_state["job_checked"] = (mark, _survey(toml))
    kept = st.session_state.get("job_checked")
    if kept is not None and kept[0] == mark:
        checked = kept[1]
    if checked is not None:
        _show_checked(checked)
    elif not fault:
        st.caption("Check it first: the plugins, the tasks and the budget are looked at, and nothing is trained.")
    _send(
        toml,
        drafts.digest(toml, command_line.cluster(), draft_id()),
        who,
        ready=checked is not None and may_go(checked),
    )


def may_go(checked: Mapping[str, Any]) -> bool:
    """Whether a checked search can be sent: its name is free, and something of it can be trained."""
    return "error" not in checked and not checked.get("taken") and bool(checked.get("space", {}).get("trainable"))


def _survey(toml: str) -> Mapping[str, Any]:
    try:
        with st.spinner("Looking at the space"):
            return command_line.survey(toml)
    except ArchsearchError as error:
        return {"error": str(error)}


def _show_checked(checked: Mapping[str, Any]) -> None:
    if "error" in checked:
        st.error(plain(str(checked["error"])), icon=":material/error:")
        return
    lines = [str(line) for line in checked.get("said", ())]
    show = st.success if may_go(checked) else st.warning
    show("  \n".join(plain(line) for line in lines), icon=":material/checklist:")


def _send(toml: str, key: str, who: str, *, ready: bool) -> None:
    """The button that sends, and what became of it. However often it is pressed, one draft is one job."""
    if st.button("Send to the cluster", type="primary", icon=":material/send:", disabled=not ready):
        try:
            with st.spinner("Sending; the cluster is asked first whether it can run this, which may take a minute"):
                st.session_state["job_sent"] = (key, sent(key, toml, who))
        except ArchsearchError as error:
            st.error(plain(str(error)), icon=":material/error:")
            st.button("Another draft", on_click=begin_anew, icon=":material/add:")
            return
    kept = st.session_state.get("job_sent")
    if kept is None or kept[0] != key:
        return
    job = kept[1]
    st.success(
        f"Sent as job {code(str(job.get('id')))}, which is {plain(str(job.get('status')))}. "
        f"{plain(str(job.get('reason') or ''))}",
        icon=":material/check:",
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        link("jobs", {"view": _WATCH}, "Watch it", ":material/visibility:")
        st.button("Another draft", on_click=begin_anew, icon=":material/add:")


@st.cache_resource(show_spinner=False, max_entries=1000)
def sent(key: str, _toml: str, _who: str) -> Mapping[str, Any]:
    """Sends a draft once: who asks again by the same key waits for the first answer and is given it; a failure is
    tried again."""
    return command_line.submit(_toml, key, _who)


def _watch() -> None:
    now = datetime.now(UTC)
    found = _listed(command_line.cluster())
    if not found:
        st.info("No search was sent to this cluster yet.", icon=":material/info:")
        return
    st.caption(f"{len(found):,} {'job' if len(found) == 1 else 'jobs'}, the newest first · as of {now:%H:%M:%S} UTC")
    table(jobs_table(found, now), "jobs", columns=_COLUMNS, file="jobs.csv")
    ids = [str(job.get("id")) for job in found]
    chosen = st.selectbox("Job", ids, key="job_chosen", format_func=lambda name: cell(name, 80), width=520)
    _one(next(job for job in found if str(job.get("id")) == chosen))


_COLUMNS = {
    "job": st.column_config.TextColumn(width="medium"),
    "search": st.column_config.TextColumn(width="medium"),
    "reason": st.column_config.TextColumn(width="large"),
}


@st.cache_resource(show_spinner="Asking the cluster", ttl=REFRESH_SECONDS - 5, max_entries=4)
def _listed(cluster: str) -> list[dict[str, Any]]:
    """The jobs of the cluster, asked once for all viewers."""
    return command_line.jobs()


@st.cache_resource(show_spinner=False, ttl=REFRESH_SECONDS - 5, max_entries=32)
def _logs(cluster: str, job: str, status: str) -> str:
    return command_line.logs(job)


def _one(job: Mapping[str, Any]) -> None:
    """One job: its reason, its search, its last lines, and how it is stopped."""
    name, status = str(job.get("id")), str(job.get("status"))
    if job.get("reason"):
        st.warning(plain(str(job["reason"])), icon=":material/info:")
    with st.container(horizontal=True, vertical_alignment="center"):
        search = job.get("search")
        if search in [one.name for one in store().searches()]:
            link("front", query(search=str(search)), f"The front of {shortened(str(search))}", ":material/show_chart:")
        if status not in FINISHED:
            st.button("Stop", icon=":material/stop_circle:", on_click=_wish, args=(_ASKED, name))
    if st.session_state.get(_ASKED) == name:
        _confirm(name)
    if st.session_state.pop(_TO_STOP, None) == name:
        _stop(name)
    try:
        text = _logs(command_line.cluster(), name, status)
    except ArchsearchError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    lines, left_out = last_lines(text)
    st.caption(f"Its last lines ({left_out:,} before them are left out)" if left_out else "What it has printed")
    st.code(lines or "nothing yet", language=None, height=360)


_ASKED, _TO_STOP = "job_asked_to_stop", "job_to_stop"


def _wish(wish: str, name: str) -> None:
    """Keeps that a job is to be stopped, or that somebody is asked whether; the latest wish stands alone."""
    for known in (_ASKED, _TO_STOP):
        st.session_state.pop(known, None)
    if wish:
        st.session_state[wish] = name


def _confirm(name: str) -> None:
    """Asks before a job is stopped."""
    st.warning(
        f"Stop job {code(name)}? What is being trained is broken off; the search can be gone on with later.",
        icon=":material/help:",
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Yes, stop it", type="primary", on_click=_wish, args=(_TO_STOP, name))
        st.button("No", on_click=_wish, args=("", name))


def _stop(name: str) -> None:
    try:
        with st.spinner("Waiting for it to stop"):
            ended = command_line.stop(name)
    except ArchsearchError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    _listed.clear()
    st.success(f"Job {code(name)} is {plain(str(ended.get('status')))}.", icon=":material/check:")
