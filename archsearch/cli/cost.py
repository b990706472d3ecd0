"""``archsearch cost``: what an architecture costs at one or more contexts, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.model_options import (
    ChannelMixer,
    DModel,
    DtypeName,
    HeadDim,
    Heads,
    KvHeads,
    MetaTokens,
    ShortConv,
    ValueResidual,
    VocabSize,
)
from archsearch.cli.output import JsonFlag, console, print_json, table

if TYPE_CHECKING:
    from archsearch.arch import ArchSpec
    from archsearch.costs import ArchCost
    from archsearch.registry import Registry


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("cost")(cost)


def cost(
    pattern: Annotated[str, typer.Argument(help='Layer pattern, such as "[kda kda kda full]*4".')],
    d_model: DModel = 2048,
    heads: Heads = 16,
    head_dim: HeadDim = 0,
    kv_heads: KvHeads = 0,
    short_conv: ShortConv = 0,
    meta_tokens: MetaTokens = 0,
    value_residual: ValueResidual = "none",
    dtype: DtypeName = "bfloat16",
    channel_mixer: ChannelMixer = "swiglu",
    vocab_size: VocabSize = 32768,
    context: Annotated[str, typer.Option("--context", help="Contexts in tokens, by commas.")] = "4096,131072",
    json: JsonFlag = False,
) -> None:
    """Parameters, FLOPs, cache bytes and traffic of an architecture, by layer and in total."""
    from archsearch.arch import ArchSpec, ModelSpec
    from archsearch.composition import check_arrangement
    from archsearch.costs import CostModel, parse_context
    from archsearch.errors import SpecError
    from archsearch.registry import load_registry

    registry = load_registry()
    model = ModelSpec.read(
        {
            "d_model": d_model,
            "n_heads": heads,
            "n_kv_heads": kv_heads,
            "head_dim": head_dim,
            "dtype": dtype,
            "channel_mixer": channel_mixer,
            "short_conv": short_conv,
            "meta_tokens": meta_tokens,
            "value_residual": value_residual,
            "vocab_size": vocab_size,
        }
    )
    arch = ArchSpec.parse(pattern, registry, model)
    check_arrangement(arch, registry)
    contexts = [parse_context(part.strip()) for part in context.split(",") if part.strip()]
    if not contexts:
        raise SpecError(f'--context "{context}" names no context: write numbers of tokens, as 4096,128Ki')
    costs = [CostModel(registry).cost(arch, tokens) for tokens in contexts]
    if json:
        print_json(_as_json(arch, costs, registry))
    else:
        _print(arch, costs, registry)


def _as_json(arch: ArchSpec, costs: list[ArchCost], registry: Registry) -> dict[str, Any]:
    contexts = []
    for cost in costs:
        data = cost.to_json()
        for layer, line in zip(arch.layers, data["layers"], strict=True):
            line["mixer"] = layer.mixer
            line["pattern"] = _layer_name(layer, registry)
        contexts.append(data)
    return {
        "pattern": arch.pattern(registry),
        "digest": arch.digest,
        "model": arch.model.model_dump(mode="json"),
        "contexts": contexts,
    }


def _layer_name(layer: Any, registry: Registry) -> str:
    from archsearch.notation import format_layer

    return format_layer(layer, registry)


def _print(arch: ArchSpec, costs: list[ArchCost], registry: Registry) -> None:
    from archsearch.costs import MEASURES
    from archsearch.units import format_quantity

    out = console()
    model = arch.model
    out.print(
        f"{arch.pattern(registry)}   digest {arch.digest}\n{len(arch.layers)} layers, d_model {model.d_model}, "
        f"{model.n_heads} heads ({model.n_kv_heads} kv) of {model.head_dim}, {model.channel_mixer}, "
        f"vocabulary {model.vocab_size}, costs in {model.dtype}{_residual(arch, registry)}"
    )
    contexts = [f">{cost.context:,} tokens" for cost in costs]
    rows = [
        [name, *(format_quantity(cost.measure(name), unit=unit) for cost in costs)] for name, unit in MEASURES.items()
    ]
    out.print(table(["cost", *contexts], rows))
    out.print(_layer_table(arch, costs[-1], registry))


def _residual(arch: ArchSpec, registry: Registry) -> str:
    """Which layers mix in the values of which, as a line of its own; nothing without a value residual."""
    from archsearch.value_residual import taken, without_effect

    if arch.model.value_residual == "none":
        return ""
    found = dict.fromkeys((mixer[0], source[0]) for mixer, (source, _) in taken(arch, registry).items())
    named = ", ".join(f"{index} from {source}" for index, source in found)
    told = f"by layers {named}" if named else without_effect(arch, registry)
    return f"\nvalue residual, {arch.model.value_residual}: {told}"


def _layer_table(arch: ArchSpec, cost: ArchCost, registry: Registry) -> Any:
    from archsearch.units import format_quantity

    groups: dict[tuple[str, Any], list[int]] = {}
    for index, (layer, line) in enumerate(zip(arch.layers, cost.layers, strict=True)):
        groups.setdefault((_layer_name(layer, registry), line), []).append(index)
    rows = [
        [
            f"{len(indices)} x",
            name,
            format_quantity(line.params, unit=""),
            format_quantity(line.prefill_flops.total, unit="FLOP"),
            format_quantity(line.decode_flops.total, unit="FLOP"),
            format_quantity(line.kv_bytes, unit="bytes"),
            format_quantity(line.state_bytes, unit="bytes"),
            format_quantity(line.traffic.read_bytes, unit="bytes"),
        ]
        for (name, line), indices in groups.items()
    ]
    columns = [">layers", "mixer", ">params", ">prefill", ">decode", ">kv", ">state", ">decode read"]
    return table(columns, rows, title=f"each layer at {cost.context:,} tokens")
