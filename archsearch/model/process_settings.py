"""Process settings: what of torch is the whole process's, and must not change in a call of foreign code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from archsearch.errors import PluginError

_SETTINGS: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "gradients' mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "number of threads": (torch.get_num_threads, torch.set_num_threads),
}
"""By name, how each is read and written."""


@contextmanager
def settings_kept(where: str) -> Iterator[None]:
    """Around a call of foreign code; raises `PluginError` where a setting is another after it, and sets it back: the
    layers and candidates that come next would be computed differently, and nobody would know why."""
    before = _read()
    try:
        yield
    finally:
        after = _read()
        for name, value in before.items():
            if after[name] != value:
                _SETTINGS[name][1](value)
    for name, value in before.items():
        if after[name] != value:
            raise PluginError(
                f"{where} changed torch's {name} from {value} to {after[name]}, which is the whole process's: "
                "change it in a with block, or not at all"
            )


@contextmanager
def usual_settings(threads: int) -> Iterator[None]:
    """Trains alike whatever the imports of plugins left behind: float32, gradients, and `threads` of the CPU."""
    before = _read()
    wanted = {"default dtype": torch.float32, "gradients' mode": True, "number of threads": threads}
    try:
        for name, value in wanted.items():
            _SETTINGS[name][1](value)
        yield
    finally:
        for name, value in before.items():
            _SETTINGS[name][1](value)


def _read() -> dict[str, Any]:
    return {name: read() for name, (read, _) in _SETTINGS.items()}
