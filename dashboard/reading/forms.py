"""Reading forms: which form runs each op, kept for a while, as the driver of a card is asked for it."""

from __future__ import annotations

import streamlit as st

from archsearch.op_forms import OpForm, op_forms
from archsearch.registry import Registry

_SECONDS = 15.0


def forms_here(registry: Registry) -> list[OpForm]:
    """`op_forms`, from at most so many seconds ago."""
    return _forms(_registry=registry)


@st.cache_data(show_spinner=False, ttl=_SECONDS, max_entries=1)
def _forms(*, _registry: Registry) -> list[OpForm]:
    return op_forms(_registry)
