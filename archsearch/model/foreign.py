"""Foreign calls: what a mixer's own code raises or hands back, checked and told with its layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from archsearch.errors import ArchsearchError, PluginError, foreign_code
from archsearch.model.mixer import MixerState
from archsearch.model.process_settings import settings_kept

_CPU_IS_FULL = ("can't allocate memory", "not enough memory")
"""What the allocator of the CPU says in a plain `RuntimeError`."""


class OutOfMemoryError(ArchsearchError, torch.OutOfMemoryError):
    """Memory that ran out, told with the place where it did: no fault of the plugin."""


@contextmanager
def memory_told(where: str) -> Iterator[None]:
    """Around what may need more memory than there is: then raises `OutOfMemoryError` that names `where`."""
    try:
        yield
    except OutOfMemoryError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise OutOfMemoryError(f"out of memory in {where}: {text}: make the batch or the model smaller") from error


def _is_memory(error: Exception) -> bool:
    full = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return full or any(text in str(error) for text in _CPU_IS_FULL)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a mixer stands in a model, as errors name it."""

    mixer: str
    layer: int

    def __str__(self) -> str:
        return f'mixer "{self.mixer}", layer {self.layer}'

    @contextmanager
    def calling(self, call: str) -> Iterator[None]:
        """Around a call of the mixer's code: what it raises names the mixer, the layer and the call."""
        with settings_kept(f"{self}: {call}"):
            try:
                yield
            except (Exception, SystemExit):
                where = f'layer {self.layer} (mixer "{self.mixer}", {call})'
                with foreign_code(str(self), call), memory_told(where):
                    raise

    def checked(self, call: str, x: Tensor, result: Any, *, stateful: bool) -> tuple[Tensor, Any]:
        """What `forward` or `step` made of `x`: an output like `x`, and a state of as many sequences if `stateful`.

        Raises `PluginError` that says what came and what was wanted: a wrong shape would broadcast unseen.
        """
        if not (isinstance(result, tuple) and len(result) == 2):
            raise PluginError(f"{self}: {call} gave {told(result)}, wanted a tuple of the output and the state")
        y, after = result
        if not _is_like(y, x):
            raise PluginError(f"{self}: {call} gave {told(y)}, wanted {told(x)} as its input has")
        if stateful:
            self.checked_state(call, after, x.shape[0])
        return y, after

    def checked_state(self, call: str, state: Any, batch: int) -> MixerState:
        """A state of `batch` sequences; raises `PluginError` for anything else."""
        if not isinstance(state, MixerState):
            raise PluginError(f"{self}: {call} gave {told(state)} for its state, wanted an archsearch.model.MixerState")
        if not isinstance(state.lengths, Tensor) or state.lengths.shape != (batch,):
            raise PluginError(f"{self}: {call} gave the lengths {told(state.lengths)}, wanted a tensor [{batch}]")
        return state


def _is_like(y: Any, x: Tensor) -> bool:
    return isinstance(y, Tensor) and y.shape == x.shape and y.device == x.device and y.dtype in _dtypes(x)


def _dtypes(x: Tensor) -> set[torch.dtype]:
    """Those of an output: the input's, and under autocast the low one and float32, which its operations choose."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return {x.dtype}
    return {x.dtype, torch.get_autocast_dtype(device), torch.float32}


def told(value: Any) -> str:
    """What came instead of what was wanted: a tensor's shape, dtype and device, or a type."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')} on {value.device}"
    return "None" if value is None else f"a {type(value).__name__}"
