"""Fixtures that every test may use."""

from __future__ import annotations

import os

import pytest
import torch

from archsearch.registry import Registry, load_registry

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which is later than this


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The registry of the built-in plugins."""
    return load_registry(environ={"ARCHSEARCH_LOAD_PLUGINS": "full,sliding,linear,moba,nsa,tasks"})
