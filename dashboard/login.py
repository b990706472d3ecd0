"""The login: where Streamlit's secrets configure one, nothing is shown to whoever has not logged in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import streamlit as st

from .text import plain


def admitted() -> bool:
    """Whether this viewer may read on; draws the way in, or the way out, where not.

    Without a section ``[auth]`` in the secrets there is no login. ``viewers`` in a section ``[archsearch]`` lists who
    may read: mail addresses, or whole domains such as ``@lab.example.org``; without it, whoever the provider lets in.
    """
    if not st.secrets.load_if_toml_exists():
        return not _unreadable()
    if "auth" not in st.secrets:
        return True
    if not st.user.get("is_logged_in"):
        st.title("archsearch")
        st.button("Log in", icon=":material/login:", type="primary", on_click=st.login)
        return False
    if may_read(st.user.to_dict(), st.secrets.get("archsearch", {}).get("viewers")):
        return True
    st.error(plain(f"{st.user.get('email') or 'This account'} may not read here: ask who runs this dashboard."))
    st.button("Log out", icon=":material/logout:", on_click=st.logout)
    return False


def submitter() -> str | None:
    """Who sends a search: the mail address of the login, "" without one; None for whoever may only read.

    ``submitters`` in a section ``[archsearch]`` of the secrets lists who may, as ``viewers`` does; without it, whoever
    may read.
    """
    if not st.secrets.load_if_toml_exists() or "auth" not in st.secrets:
        return ""
    user = st.user.to_dict()
    allowed = st.secrets.get("archsearch", {}).get("submitters")
    return str(user.get("email") or "") if admitted_as(user) and may_read(user, allowed) else None


def admitted_as(user: Mapping[str, object]) -> bool:
    """Whether somebody who is logged in as `user` may read."""
    return bool(user.get("is_logged_in")) and may_read(user, st.secrets.get("archsearch", {}).get("viewers"))


def _unreadable() -> bool:
    """Whether there are secrets that cannot be read: they may ask for a login, and so nothing is shown."""
    if not any(Path(path).exists() for path in st.get_option("secrets.files")):
        return False
    st.error("The secrets of this dashboard cannot be read, so that nothing is shown: see its log.")
    return True


def may_read(user: Mapping[str, object], viewers: Iterable[str] | None) -> bool:
    """Whether `user` (an OIDC identity) is one of `viewers`; None admits all. An unverified address admits nobody."""
    if viewers is None:
        return True
    address = str(user.get("email") or "").lower()
    if not address or user.get("email_verified") is False:
        return False
    domain = "@" + address.rpartition("@")[2]
    return bool({address, domain} & {viewer.lower() for viewer in viewers})
