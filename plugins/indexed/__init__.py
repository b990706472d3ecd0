"""Attention over what an index chooses: the tokens or blocks of highest score, beside those that are always in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import heads_refusal, rotation_refusal
from archsearch.hookspecs import RegisterKernels, RegisterOps
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import dense_up_to, indexed_flops, indexed_params, indexed_state, indexed_traffic
from .options import IndexedOptions
from .shared_cost import shared_flops, shared_params, shared_state, shared_traffic
from .sharing import TAKER, SharedIndexOptions, base_of, misplaced
from .systems import SYSTEMS, TAKER_SYSTEMS

if TYPE_CHECKING:
    from archsearch.bench.op import BenchOp
    from archsearch.kernels import Build
    from archsearch.proving import Check

    from .layer import Indexed

_BLOCKS = {"block_size": 8, "top_k": 3, "own": "block"}


class IndexedPlugin(MixerPlugin[IndexedOptions]):
    """DSA, QSA, MiniMax-M3's lightning indexer, exact top-k, Quest and InfLLM: one engine, by how blocks are scored."""

    name = "indexed"
    api_version = 2
    family = "sparse"
    summary = "softmax attention over the tokens or blocks that an index chooses (DSA, QSA, M3, Quest, InfLLM)"
    options = IndexedOptions
    systems = SYSTEMS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "dsa": {"block_size": 1, "top_k": 32, "scorer": "relu", "rope": 0.5},
        "dsa-mla": {"block_size": 1, "top_k": 32, "scorer": "relu", "rope": 0.5, "kv_rank": 64, "shared_dim": 16},
        "glm5-next": {"block_size": 4, "top_k": 8, "scorer": "relu", "summary": "gated", "rope": 0.0, "kv_rank": 64},
        "qsa": {"block_size": 8, "top_k": 4, "scorer": "relu-sum", "summary": "mean"},
        "m3": {**_BLOCKS, "scorer": "group"},
        "topk": {"block_size": 1, "top_k": 32, "scorer": "attention", "learn": "none"},
        "quest": {**_BLOCKS, "scorer": "attention", "summary": "minmax", "learn": "none"},
        "infllm": {
            **_BLOCKS,
            "local": 1,
            "first": 1,
            "scorer": "attention",
            "summary": "representative",
            "learn": "none",
        },
    }
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "dsa-8": {"top_k": 8, "index_heads": 2, "index_dim": 6},
            "gated-blocks": {**_BLOCKS, "scorer": "attention", "summary": "softmax", "learn": "gates"},
            "gated-tokens": {"top_k": 8, "learn": "gates", "first": 2, "local": 3},
            "latents-4": {"top_k": 4, "index_heads": 2, "index_dim": 6, "kv_rank": 6, "shared_dim": 4},
            "mistral-large-4": {
                "top_k": 4,
                "index_heads": 2,
                "kv_rank": 6,
                "shared_dim": 4,
                "query_scale": True,
                "rope_learned": True,
                "rope_factor": 32.0,
                "rope_trained": 16,
                "index_norm": True,
            },
            "deepseek-v32": {"top_k": 4, "index_heads": 2, "kv_rank": 6, "shared_dim": 4, "q_rank": 5},
            "qwen4-exp": {**_BLOCKS, "scorer": "relu-sum", "summary": "mean", "qk_norm": True, "output_gate": True},
            "pools-of-8": {"block_size": 8, "top_k": 2, "summary": "gated", "rope": 0.0, "own": "block", "local": 1},
            "mean-keys": {**_BLOCKS, "scorer": "attention", "summary": "mean", "learn": "none", "rope": 0.5},
            "infllm-published": {
                **_BLOCKS,
                "block_size": 4,
                "local": 2,
                "first": 1,
                "scorer": "attention",
                "summary": "representative",
                "learn": "none",
                "counted": 8,
                "choose": "together",
                "far": 12,
            },
            "far-means": {
                **{"block_size": 4, "top_k": 2, "scorer": "attention", "own": "block", "summary": "mean"},
                **{"learn": "none", "local": 1, "rope": 0.5, "far": 40},
            },
            "keys-of-blocks": {"block_size": 4, "top_k": 2, "scorer": "attention", "own": "block", "learn": "none"},
        },
    }

    def check(self, options: IndexedOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        index = rotation_refusal(options.rope, "index_dim", options.index_dim) if options.indexes else None
        if options.kv_rank and options.shared_dim:
            return rotation_refusal(options.shared_rope, "shared_dim", options.shared_dim) or index
        return index if options.kv_rank else heads_refusal(shape, rope=options.rope) or index

    def params(self, options: IndexedOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return indexed_params(options, shape)

    def flops(
        self, options: IndexedOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return indexed_flops(options, shape, phase=phase, context=context)

    def traffic(self, options: IndexedOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return indexed_traffic(options, shape, context=context)

    def state(self, options: IndexedOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return indexed_state(options, shape)

    def values(self, options: IndexedOptions, shape: ModelShape) -> tuple[int, int] | None:
        return None if options.kv_rank else (shape.n_kv_heads, shape.head_dim)

    def build(self, options: IndexedOptions, shape: ModelShape, layer: LayerInfo) -> Indexed:
        from .far import FarAttention
        from .latents import IndexedLatents
        from .layer import IndexedAttention
        from .scorers import scorer_of

        of_heads = FarAttention if options.far else IndexedAttention
        kind = IndexedLatents if options.kv_rank else of_heads
        built = kind(self, options, shape, layer)
        built.choose_by(scorer_of(options, shape), options)
        return built

    def dense_up_to(self, options: IndexedOptions, layer: LayerInfo) -> int:
        return dense_up_to(options)


class SharedIndexPlugin(MixerPlugin[SharedIndexOptions]):
    """IndexCache, as GLM-5.2 has it, and the sharing of DeepSeek-V4.1: a choice, or latents, count once for several
    layers."""

    name = TAKER
    api_version = 2
    family = "sparse"
    summary = "attention over what an earlier layer's index chose, and perhaps its latents (IndexCache, GLM-5.2)"
    options = SharedIndexOptions
    systems = TAKER_SYSTEMS
    reads_pattern = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "indexshare": {},
        "indexshare-latents": {"latents": "shared"},
        "reindex": {"choice": "own", "latents": "shared"},
    }
    conformance: ClassVar[Mapping[str, Any]] = {
        "pattern": f"dsa-mla(top_k=6, kv_rank=12, shared_dim=4, index_heads=2, index_dim=6) {TAKER} {TAKER}",
        "cases": {"own-keys": {"choice": "own", "latents": "shared", "index_keys": "own"}, "teaches": {"teach": True}},
    }

    def check(self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        return misplaced(options, layer)

    def params(self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return shared_params(options, _base(layer), shape)

    def flops(
        self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return shared_flops(options, _base(layer), shape, phase=phase, context=context)

    def traffic(self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return shared_traffic(options, _base(layer), shape, context=context)

    def state(self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return shared_state(options, _base(layer), shape)

    def build(self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo) -> Indexed:
        from .taking import TakesOfHeads, TakesOfLatents

        kind = TakesOfLatents if _base(layer).kv_rank else TakesOfHeads
        return kind(self, options, shape, layer)

    def dense_up_to(self, options: SharedIndexOptions, layer: LayerInfo) -> int:
        return dense_up_to(_base(layer))


def _base(layer: LayerInfo) -> IndexedOptions:
    """Options of the nearest `indexed` before the layer, the default ones where there is none: `check` refuses that."""
    return base_of(layer) or IndexedOptions()


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "indexed" and "shared-index"."""
    register(IndexedPlugin())
    register(SharedIndexPlugin())


@hookimpl
def register_ops(register: RegisterOps) -> None:
    """The ops that are measured."""

    def ops() -> Iterable[BenchOp]:
        from .bench import bench_ops

        return bench_ops()

    register("indexed", ops, names=("indexed choice",))


@hookimpl
def register_kernels(register: RegisterKernels) -> None:
    """The kernels that are compiled ahead of time, and what proves them."""

    def kernels(arch: str) -> Iterable[Build]:
        from .triton.builds import builds

        return builds(arch)

    def checks() -> Iterable[Check]:
        from .triton.checks import checks

        return checks()

    register("indexed", kernels, checks=checks)
