"""Interrupts: a shell lets what it runs in the background ignore Ctrl-C, and the tests with it, and their children."""

from __future__ import annotations

import signal


def hears_interrupts() -> None:
    """Run by a child before its program: SIGINT acts there as at a terminal, whoever started the tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
