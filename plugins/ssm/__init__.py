"""State space mixers: a diagonal recurrence for each channel, chosen by the token or fixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from . import cost
from .options import PRESETS, SsmOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from archsearch.model import Mixer


class SsmPlugin(MixerPlugin[SsmOptions]):
    """S4D, Mamba-1's selective scan and Mamba-3's rule; its presets are the published mixers."""

    name = "ssm"
    api_version = 2
    family = "linear"
    summary = "a diagonal recurrence for each channel or head, whose steps, writes and reads follow the token or not"
    options = SsmOptions
    presets = PRESETS
    systems = SYSTEMS
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "other-sizes": {"expand": 3, "state_dim": 5, "dt_rank": 3, "conv": 2},
            "no-conv": {"conv": 0, "state_dim": 4},
            "fixed-inv": {"rule": "fixed", "start": "inv", "state_dim": 6},
            "trapezoidal-8": {"rule": "trapezoidal", "expand": 1, "state_dim": 8},
            "normed-2": {"rule": "trapezoidal", "expand": 1, "state_dim": 8, "rank": 2, "output_norm": True},
            "mimo-3": {"rule": "trapezoidal", "expand": 1, "state_dim": 8, "rank": 3},
        }
    }

    def params(self, options: SsmOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return cost.params(options, shape)

    def flops(self, options: SsmOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        return cost.flops(options, shape, phase=phase, context=context)

    def traffic(self, options: SsmOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        moved = float(sum(tensor.nbytes(context) for tensor in cost.state(options, shape)))
        return Traffic(read_bytes=moved, written_bytes=moved)

    def state(self, options: SsmOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return cost.state(options, shape)

    def values(self, options: SsmOptions, shape: ModelShape) -> tuple[int, int] | None:
        inner = options.inner(shape)
        kinds = {"selective": (1, inner), "trapezoidal": (inner // shape.head_dim, shape.head_dim)}
        return kinds.get(options.rule)

    def check(self, options: SsmOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        inner = options.inner(shape)
        if options.rule == "trapezoidal" and inner % shape.head_dim:
            return (
                f"expand * d_model = {inner} channels are no whole heads of head_dim = {shape.head_dim}: "
                "choose another expand or head_dim"
            )
        return None

    def hands_out(self, options: SsmOptions, shape: ModelShape) -> int | None:
        return None if options.rule == "fixed" else options.inner(shape)

    def build(self, options: SsmOptions, shape: ModelShape, layer: LayerInfo) -> Mixer:
        if options.rule == "trapezoidal":
            from .heads import TrapezoidalSpace

            return TrapezoidalSpace(self, options, shape, layer)
        from .layer import FixedSpace, SelectiveSpace

        built = SelectiveSpace if options.rule == "selective" else FixedSpace
        return built(self, options, shape, layer)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "ssm" and its presets."""
    register(SsmPlugin())
