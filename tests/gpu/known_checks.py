"""The checks of the core and of the built-in plugins, and the device that tries them here."""

from __future__ import annotations

from functools import cache

import torch

from archsearch.proving import Check
from archsearch.proving.rows import all_checks
from archsearch.registry import load_registry

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BUILT_IN = {"ARCHSEARCH_LOAD_PLUGINS": "full,sliding,linear,moba,nsa,latent,indexed"}


@cache
def known_checks() -> dict[str, list[Check]]:
    """Of the core and the built-in plugins, by op."""
    return all_checks(load_registry(environ=BUILT_IN))
