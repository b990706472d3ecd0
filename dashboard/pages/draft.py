"""The form of a new job: a draft, field by field by the spec's schema, or as TOML."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from archsearch.costs import MEASURES
from archsearch.errors import ArchsearchError, SpecError

from ..connection import registry, store
from ..queries import drafts
from ..queries.drafts import Draft, Field
from ..text import cell, plain

SMALL = "a small search"
_BASE, _ROUND = "job_base", "job_round"
_USUAL = {
    "model": ("n_layers", "d_model", "n_heads", "channel_mixer"),
    "recipe": ("steps", "batch_size", "learning_rates", "seeds", "device"),
    "search": ("trials", "concurrency", "sampler", "confirm_seeds"),
    "resources": ("cpu", "gpu", "workers"),
}
"""The keys of a table that are shown at once; the others are below "More"."""


def draft_id() -> str:
    """What tells this viewer's draft from any other one: a new one for each start."""
    return str(st.session_state.setdefault("job_draft_id", secrets.token_hex(8)))


def begin_anew() -> None:
    """Begins another draft from where this one began."""
    st.session_state.pop("job_draft_id", None)
    st.session_state[_ROUND] = st.session_state.get(_ROUND, 0) + 1


def draft_form() -> tuple[Draft, str]:
    """Draws the form, and returns the draft and what is wrong with it, "" for nothing that is known here."""
    base, unread = _begun()
    if unread:
        st.error(plain(unread), icon=":material/error:")
    how = st.segmented_control("Written as", ["Form", "TOML"], default="Form", key="job_how", required=True)
    if how == "TOML":
        return _written(base)
    return _asked(base)


def _begun() -> tuple[Draft, str]:
    """The draft that the form begins with, and why the one that was asked for cannot be read."""
    names = [search.name for search in reversed(store().searches())]
    start = st.selectbox(
        "Start from",
        [SMALL, *names],
        key="job_start",
        format_func=lambda name: cell(name, 80),
        on_change=begin_anew,
        help="A search of this database gives its whole spec, under another name.",
    )
    if start == SMALL:
        return dict(drafts.SMALL), ""
    try:
        return drafts.from_stored(store().stored_spec(start)), ""
    except ArchsearchError as error:
        return dict(drafts.SMALL), f"{start}: its spec cannot be read: {error}"


def _written(base: Draft) -> tuple[Draft, str]:
    """The draft as a text that is pasted or changed."""
    text = st.text_area(
        "Spec (TOML)", drafts.to_toml(base), height=560, key=_key("toml"), max_chars=drafts.MOST_CHARACTERS
    )
    try:
        draft = drafts.from_text(text)
    except SpecError as error:
        _tell(str(error))
        return base, str(error)
    fault = drafts.fault(draft)
    _tell(fault)
    return draft, fault


def _asked(base: Draft) -> tuple[Draft, str]:
    """The draft field by field; what is wrong is told where it stands."""
    top = st.columns([0.7, 0.3])
    name = top[0].text_input("name", str(base.get("name", "")), key=_key("name"), help="Unique in the database.")
    seed = top[1].text_input("seed", drafts.as_text(base.get("seed")), placeholder="0", key=_key("seed"))
    places = {"name": st.container()}
    draft: Draft = {**base, "name": name.strip()}
    draft.pop("seed", None)
    if seed.strip():
        draft["seed"] = drafts.read_value(seed, Field(name="seed", kind="value", default=0, help=""))
    for table in ("model", "space", "tasks", "recipe", "objectives", "budget", "search", "resources"):
        with st.expander(f"[{table}]", expanded=table in ("space", "tasks", "objectives"), icon=":material/tune:"):
            draft = _TABLES.get(table, _plain_table)(draft, table)
            places[table] = st.container()
    fault = _fault_of_budget(draft) or drafts.fault(draft)
    place = drafts.place_of(fault)
    with places.get("name" if place == "seed" else place, st.container()):
        _tell(fault)
    return draft, fault


def _tell(fault: str) -> None:
    if fault:
        st.error(plain(fault), icon=":material/error:")


def _plain_table(draft: Draft, table: str) -> Draft:
    """A table by its schema, its usual keys first."""
    found = drafts.fields(drafts.TABLES[table])
    usual = [field for name in _USUAL[table] for field in found if field.name == name]
    values = _fields(usual, draft, table)
    with st.popover("More", icon=":material/more_horiz:"):
        values |= _fields([field for field in found if field not in usual], draft, table)
    return drafts.with_table(draft, table, values)


def _fields(found: Sequence[Field], draft: Draft, table: str) -> dict[str, Any]:
    """The values of some fields, None for those that are left out, in rows of three."""
    values: dict[str, Any] = {}
    given = draft.get(table) if isinstance(draft.get(table), Mapping) else {}
    assert isinstance(given, Mapping)
    for begin in range(0, len(found), 3):
        for column, field in zip(st.columns(3), found[begin : begin + 3], strict=False):
            with column:
                values[field.name] = _field(field, given.get(field.name), _key(f"{table}.{field.name}"))
    return values


def _field(field: Field, given: Any, key: str) -> Any:
    if field.kind == "choice":
        first = given if given in field.choices else field.default
        chosen = st.selectbox(
            field.name, field.choices, field.choices.index(first) if first else 0, key=key, help=field.help
        )
        return None if chosen == field.default and given is None else chosen
    if field.kind == "switch" and not isinstance(given, list | tuple):
        on = st.toggle(field.name, bool(field.default if given is None else given), key=key, help=field.help)
        return None if on == field.default and given is None else on
    if field.kind == "switch":  # a list stands where else a switch does
        field = Field(name=field.name, kind="list", default=field.default, help=field.help)
    text = st.text_input(field.name, drafts.as_text(given), placeholder=field.placeholder, key=key, help=field.help)
    return drafts.read_value(text, field)


def _space(draft: Draft, table: str) -> Draft:
    """The mixers, how they hang together, and which choices of each are searched."""
    given: Mapping[str, Any] = draft.get(table) or {}
    known = drafts.mixer_names(registry())
    mixers = _several("mixers", known, given.get("mixers"), "mixers or presets")
    by_name = {field.name: field for field in drafts.fields(drafts.TABLES[table], ("options", "mixers"))}
    pattern = _field(by_name["pattern"], given.get("pattern"), _key("space.pattern"))
    wanted = {"periodic": ("period",), "ratio": ("ratios", "costly")}.get(pattern or "free", ())
    values = _fields([by_name[name] for name in wanted], draft, table)
    stays = (*mixers, "backbone", "ffn_dim")
    kept = {name: None for name in given if name not in stays}  # options of a mixer that is no longer there, too
    with st.container(horizontal=True):
        options = {name: _narrowed(name, given.get(name)) for name in mixers if name in known}
    unknown = {name: given[name] for name in mixers if name not in known and name in given}
    return drafts.with_table(
        draft, table, {**kept, "mixers": mixers, "pattern": pattern, **values, **options, **unknown}
    )


def _narrowed(name: str, given: Any) -> dict[str, Any] | None:
    """Which choices of a mixer's options are searched; None for all that it declares."""
    declared = drafts.tunables(registry(), name)
    stated: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    narrowed: dict[str, Any] = {option: value for option, value in stated.items() if option not in declared}
    if not declared:
        return narrowed or None
    with st.popover(f"Options of {cell(name)}", icon=":material/tune:"):
        st.caption("What is searched; nothing chosen stands for every choice.")
        for option, choices in declared.items():
            value = stated.get(option)
            chosen = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
            offered = [*choices, *(one for one in chosen if one not in choices)]
            picked = st.multiselect(
                option, offered, chosen, key=_key(f"space.{name}.{option}"), format_func=drafts.as_text
            )
            if picked:
                narrowed[option] = picked
    return narrowed or None


def _tasks(draft: Draft, table: str) -> Draft:
    """The tasks with a setting each; options of a task that the draft has stay."""
    given = [one for one in draft.get(table) or [] if isinstance(one, Mapping)]
    known = {task.name: task for task in registry().tasks()}
    names = [str(one.get("name")) for one in given]
    wanted = _several("tasks", list(known), list(dict.fromkeys(names)), "tasks")
    made: list[dict[str, Any]] = []
    columns = st.columns(3)
    for index, name in enumerate(wanted):
        mine = [dict(one) for one in given if one.get("name") == name] or [{"name": name}]
        if len(mine) == 1 and name in known:
            settings = ["default", *known[name].settings]
            first = mine[0].get("setting")
            with columns[index % 3]:
                setting = st.selectbox(
                    f"setting of {cell(name)}",
                    settings,
                    settings.index(first) if first in settings else 0,
                    key=_key(f"tasks.{name}.setting"),
                )
            mine[0] = {key: value for key, value in mine[0].items() if key != "setting"}
            if setting != "default":
                mine[0]["setting"] = setting
        made += mine
    return {**draft, table: made}


def _objectives(draft: Draft, table: str) -> Draft:
    given: Mapping[str, Any] = draft.get(table) or {}
    tasks = {task.name: task for task in registry().tasks()}
    named = [str(one.get("name")) for one in draft.get("tasks") or [] if isinstance(one, Mapping)]
    measured = ["recall", *(f"{name}.{tasks[name].metric}" for name in named if name in tasks)]
    maximize = _several("maximize", measured, given.get("maximize"), "recall, TASK.METRIC, or a cost")
    minimize = _several("minimize", [*MEASURES, *measured], given.get("minimize"), "costs, as state_bytes@131072")
    (context,) = [field for field in drafts.fields(drafts.TABLES[table]) if field.name == "context"]
    at = _field(context, given.get("context"), _key("objectives.context"))
    return drafts.with_table(draft, table, {"maximize": maximize or None, "minimize": minimize or None, "context": at})


def _budget(draft: Draft, table: str) -> Draft:
    """Limits, one a line; a line that is none stands in the draft as it is, so that it is told."""
    text = st.text_area(
        "limits, one a line",
        drafts.budget_text(draft),
        key=_key("budget"),
        height=90,
        placeholder="state_bytes = 18 MiB",
        help="COST = LIMIT or COST@CONTEXT = LIMIT; candidates beyond one are never trained.",
    )
    try:
        found: Any = drafts.read_budget(text)
    except SpecError as error:
        found = {_UNREAD: str(error)}
    made = {**draft, table: found}
    if not found:
        del made[table]
    return made


_UNREAD = "\0"
_TABLES = {"space": _space, "tasks": _tasks, "objectives": _objectives, "budget": _budget}


def _fault_of_budget(draft: Draft) -> str:
    """What is wrong with the budget's lines, which is taken out of the draft."""
    found = draft.get("budget")
    if isinstance(found, dict) and _UNREAD in found:
        del draft["budget"]
        return str(found[_UNREAD])
    return ""


def _several(label: str, offered: Sequence[str], given: Any, hint: str) -> list[str]:
    """Names that are chosen or typed in."""
    first = [str(one) for one in given] if isinstance(given, list | tuple) else []
    options = list(dict.fromkeys([*offered, *first]))
    return st.multiselect(
        label,
        options,
        first,
        key=_key(label),
        accept_new_options=True,
        placeholder=hint,
        format_func=lambda name: cell(name, 80),
    )


def _key(name: str) -> str:
    """A widget's key, which is another one after each start: then it shows what the draft begins with."""
    return f"job_{name}_{st.session_state.get(_ROUND, 0)}"
