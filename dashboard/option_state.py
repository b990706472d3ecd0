"""The state of a choice whose options stand in the URL by their keys, however a page words them."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from .address import OptionT, option_of, trial_of


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


def adopt_number(name: str, most: int) -> str:
    """As `adopt`, for a whole number from 1, which is the default, to `most`.

    Streamlit's own binding fails at a number that is too large for its arithmetic.
    """
    given = trial_of(st.query_params.get(name)) or 0
    if not 1 <= given <= most and name in st.query_params:
        del st.query_params[name]
    st.session_state[_key(name)] = given if 1 <= given <= most else 1
    return _key(name)


def _key(name: str) -> str:
    return f"{name}_option"
