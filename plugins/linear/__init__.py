"""Linear attention and its kin: a fixed state, written by the Hebbian or the delta rule, with or without decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import rotation_refusal
from archsearch.hookspecs import RegisterKernels, RegisterOps
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from . import cost
from .additive import memories_cost
from .options import LinearOptions
from .presets import CASES, PRESETS
from .systems import SYSTEMS

if TYPE_CHECKING:
    from archsearch.bench.op import BenchOp
    from archsearch.kernels import Build
    from archsearch.proving import Check

    from .layer import LinearMixer


class LinearPlugin(MixerPlugin[LinearOptions]):
    """One engine for the table of update rule by decay; its presets are the published mixers."""

    name = "linear"
    api_version = 2
    version = 2
    family = "linear"
    summary = "a fixed state per head, written by the Hebbian or the delta rule, with or without decay"
    options = LinearOptions
    presets = PRESETS
    systems = SYSTEMS
    conformance: ClassVar[Mapping[str, Any]] = {"cases": CASES}

    def check(self, options: LinearOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        if options.key_heads and shape.n_heads % options.key_heads:
            return (
                f"key_heads = {options.key_heads} does not divide n_heads = {shape.n_heads}: choose a divisor, or 0 "
                "for keys of each head"
            )
        return rotation_refusal(options.rope, "key_dim", options.dims(shape).key_dim)

    def params(self, options: LinearOptions, shape: ModelShape, layer: LayerInfo) -> int:
        placed = options.form.placed_params(options.dims(shape), layer) + cost.values_params(options, shape, layer)
        return cost.params(options, shape) + placed

    def active_params(self, options: LinearOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return self.params(options, shape, layer) - memories_cost.idle_params(options, shape)

    def flops(
        self, options: LinearOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        tokens = 1.0 if phase == "decode" else float(context)
        mixing = cost.values_flops(options, shape, layer) * tokens
        return cost.flops(options, shape, phase=phase, context=context) + mixing

    def traffic(self, options: LinearOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return cost.traffic(options, shape, context=context)

    def state(self, options: LinearOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return cost.state(options, shape)

    def values(self, options: LinearOptions, shape: ModelShape) -> tuple[int, int] | None:
        heads, _, width = options.dims(shape)
        return None if options.memories or options.first_values else (options.steps * heads, width)

    def hands_out(self, options: LinearOptions, shape: ModelShape) -> int:
        heads, _, width = options.dims(shape)
        return heads * width

    def build(self, options: LinearOptions, shape: ModelShape, layer: LayerInfo) -> LinearMixer:
        from .additive.memories import MemoriesMixer
        from .layer import LinearMixer

        return (MemoriesMixer if options.memories else LinearMixer)(self, options, shape, layer)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "linear" and its presets."""
    register(LinearPlugin())


@hookimpl
def register_ops(register: RegisterOps) -> None:
    """The ops that are measured."""

    def ops() -> Iterable[BenchOp]:
        from .bench import bench_ops

        return bench_ops()

    register("linear", ops)


@hookimpl
def register_kernels(register: RegisterKernels) -> None:
    """The kernels that are compiled ahead of time, and what proves them."""

    def kernels(arch: str) -> Iterable[Build]:
        from .triton.builds import builds

        return builds(arch)

    def checks() -> Iterable[Check]:
        from .triton.checks import checks

        return checks()

    register("linear", kernels, checks=checks)
