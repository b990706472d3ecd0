"""The login: where Streamlit's secrets configure one, nothing is shown to whoever has not logged in. Where a proxy in
front has one, it says who is asking by a header, which is believed only where the dashboard was told so."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import streamlit as st

from archsearch.printable import printable
from archsearch.storage.owner import LONGEST

from .text import plain

USER_HEADER = "ARCHSEARCH_USER_HEADER"
"""The request header by which a proxy in front says who is asking; `archsearch dashboard --user-header` sets it."""


def admitted() -> bool:
    """Whether this viewer may read on; draws the way in, or the way out, where not.

    Without a section ``[auth]`` in the secrets there is no login here, and a proxy may have one. ``viewers`` in a
    section ``[archsearch]`` lists who may read: mail addresses or names, or whole domains such as
    ``@lab.example.org``; without it, whoever the provider or the proxy lets in.
    """
    if not st.secrets.load_if_toml_exists() and _unreadable():
        return False
    user, here = _viewer(), _login_is_here()
    if user is None:
        return True
    if here and not user.get("is_logged_in"):
        st.title("archsearch")
        st.button("Log in", icon=":material/login:", type="primary", on_click=st.login)
        return False
    if may_read(user, _listed("viewers")):
        return True
    st.error(plain(f"{user.get('email') or 'This account'} may not read here: ask who runs this dashboard."))
    if here:
        st.button("Log out", icon=":material/logout:", on_click=st.logout)
    return False


def submitter() -> str | None:
    """Who sends a search: the mail address of the login, or whom the proxy names; "" where nobody is asked for a name.
    None for whoever may only read, and where the proxy names nobody.

    ``submitters`` in a section ``[archsearch]`` of the secrets lists who may, as ``viewers`` does; without it, whoever
    may read.
    """
    user = _viewer()
    if user is None:
        return ""
    allowed = bool(user.get("is_logged_in")) and may_read(user, _listed("viewers"))
    return str(user.get("email") or "") if allowed and may_read(user, _listed("submitters")) else None


def _viewer() -> Mapping[str, object] | None:
    """Who is asking, by the login here, else by the proxy's word; None where neither asks."""
    if _login_is_here():
        return st.user.to_dict()
    said = _named_by_proxy()
    return None if said is None else {"email": said, "is_logged_in": bool(said)}


def _login_is_here() -> bool:
    return bool(st.secrets.load_if_toml_exists()) and "auth" in st.secrets


def _named_by_proxy() -> str | None:
    """Whom the trusted header names; None where no header is trusted, "" where it names nobody, or several."""
    header = os.environ.get(USER_HEADER)
    if not header:
        return None
    said = st.context.headers.get_all(header)
    if len(said) != 1 or said[0].startswith("{"):  # a placeholder that the proxy had nothing for
        return ""
    return printable(said[0], lines=False).strip()[:LONGEST]


def _listed(who: str) -> Iterable[str] | None:
    """The list of that name in the secrets, None where there is none."""
    found = st.secrets.get("archsearch", {}).get(who) if st.secrets.load_if_toml_exists() else None
    return None if found is None else list(found)


def _unreadable() -> bool:
    """Whether there are secrets that cannot be read: they may ask for a login, and so nothing is shown."""
    if not any(Path(path).exists() for path in st.get_option("secrets.files")):
        return False
    st.error("The secrets of this dashboard cannot be read, so that nothing is shown: see its log.")
    return True


def may_read(user: Mapping[str, object], viewers: Iterable[str] | None) -> bool:
    """Whether `user` (an OIDC identity, or what a proxy says) is one of `viewers`; None admits all. An unverified
    address admits nobody."""
    if viewers is None:
        return True
    address = str(user.get("email") or "").lower()
    if not address or user.get("email_verified") is False:
        return False
    domain = "@" + address.rpartition("@")[2]
    return bool({address, domain} & {viewer.lower() for viewer in viewers})
