"""The layer of mixers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.model.composite import CompositeMixer

from .options import Join, ParallelOptions


class ParallelMixer(CompositeMixer):
    """Each part has the whole input, and its own heads and state; their outputs are joined.

    ``scales`` `[n, D]` are those of the norms of the n parts' outputs; there are none where outputs are summed. Where
    the parts share a projection they hand out what theirs would read, D is its width, and ``out`` is the one.
    """

    def __init__(
        self, plugin: MixerPlugin[Any], options: ParallelOptions, shape: ModelShape, layer: LayerInfo, *, width: int
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        self.join: Join = options.join
        self.given = options
        self.out: nn.Module = nn.Identity()
        if options.project == "shared":
            for part in self.parts:
                assert isinstance(part, Mixer)
                part.hand_out(width)
            self.out = nn.Linear(width, shape.d_model, bias=False)
        self.scales = None if self.join == "sum" else nn.Parameter(torch.ones(len(self.parts), width))

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises what its parts do, and `SpecError` for packed ones with a state."""
        state, options = self.state_for(x, state, ctx), self.given
        outputs, tensors = [], dict[str, Tensor]()
        for index in range(len(self.parts)):
            y, own = self.run(index, self._scaled(x, options.input_scales, index), state=state, ctx=ctx)
            outputs.append(self._scaled(y, options.output_scales, index))
            tensors |= own
        return self.joined(outputs), None if state is None else state.after(tensors, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`."""
        options = self.given
        outputs, tensors = [], dict[str, Tensor]()
        for index in range(len(self.parts)):
            y, own = self.run_step(index, self._scaled(x_t, options.input_scales, index), state=state, ctx=ctx)
            outputs.append(self._scaled(y, options.output_scales, index))
            tensors |= own
        return self.joined(outputs), state.after(tensors, 1)

    @staticmethod
    def _scaled(x: Tensor, scales: Sequence[float], index: int) -> Tensor:
        return x if scales[index] == 1 else x * scales[index]

    def joined(self, outputs: Sequence[Tensor]) -> Tensor:
        """The parts' outputs `[..., D]` as one, through the shared projection where there is one."""
        out: Tensor = self.out(self._joined(outputs))
        return out

    def _joined(self, outputs: Sequence[Tensor]) -> Tensor:
        if self.scales is None:
            return torch.stack(tuple(outputs)).sum(0)
        normed = [
            F.rms_norm(y, y.shape[-1:], scale.to(y.dtype), 1e-6) for y, scale in zip(outputs, self.scales, strict=True)
        ]
        if self.join == "mean":
            return torch.stack(normed).mean(0)
        first, *gates = normed
        for gate in gates:
            first = first * torch.sigmoid(gate)
        return first
