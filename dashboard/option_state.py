"""The state of a choice whose options stand in the URL by their keys, however a page words them."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from .address import OptionT, option_of


def adopt(name: str, options: Sequence[OptionT], default: OptionT) -> str:
    """The key of the widget that is drawn next, whose choice is now the URL's; `default` where it names no option.

    The widget calls `keep` with `name` and `default` when its choice changes.
    """
    named = option_of(st.query_params.get(name), options)
    if named is None and name in st.query_params:
        del st.query_params[name]
    st.session_state[_key(name)] = default if named is None else named
    return _key(name)


def keep(name: str, default: str | int) -> None:
    """Writes the choice into the URL; the default is left out."""
    chosen = st.session_state[_key(name)]
    if chosen != default:
        st.query_params[name] = str(chosen)
    elif name in st.query_params:
        del st.query_params[name]


def _key(name: str) -> str:
    return f"{name}_option"
