"""The interface by which other machines reach this one."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from archsearch.search.interfaces import VARIABLE, interface_of, listen_at


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces are asked for as Linux has it")
def test_the_loopback_address_is_of_the_loopback_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    name = interface_of("127.0.0.1")
    assert name in [known for _, known in socket.if_nameindex()]
    monkeypatch.delenv(VARIABLE, raising=False)
    listen_at("127.0.0.1")
    assert os.environ[VARIABLE] == name


def test_an_address_of_no_interface_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert interface_of("192.0.2.1") == interface_of("no address") == ""
    listen_at("192.0.2.1")
    assert VARIABLE not in os.environ


def test_what_somebody_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "mine")
    listen_at("127.0.0.1")
    assert os.environ[VARIABLE] == "mine"
