"""Mixers and presets, as plugins registered them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from archsearch.analysis.catalogue import BACKBONE, rows_in_words
from archsearch.arch import ArchSpec
from archsearch.composition import figures_of, refusal
from archsearch.layer import LayerSpec
from archsearch.mixer import MixerPlugin
from archsearch.units import format_quantity
from reference.fields import fields_of, number
from reference.registered import registry
from reference.texts import code, names_of, plain, sentence, settings, table, values_of

CONTEXTS = (4096, 131_072, 1_048_576)
ROOT = Path(__file__).parents[2]


def mixers_overview() -> str:
    """One row a mixer, with its presets."""
    rows = (
        [
            f"[`{mixer.name}`](#{mixer.name})",
            mixer.family,
            plain(mixer.summary),
            names_of(registry().presets_of(mixer.name)),
        ]
        for mixer in registry().mixers()
    )
    return table(["mixer", "family", "what it is", "presets"], rows)


def mixers_reference() -> str:
    """Every mixer: its options, its presets, and the state that it keeps."""
    return "\n\n".join(map(_section, registry().mixers()))


def _section(mixer: MixerPlugin[Any]) -> str:
    parts = [f"## {mixer.name}", f"{sentence(mixer.summary)} Family `{mixer.family}`.{_maths(mixer)}"]
    parts += [f"It breaks the law `{law}` by design: {plain(reason)}." for law, reason in mixer.broken_laws.items()]
    parts += ["**Options**", _options(mixer)] if mixer.options.model_fields else ["It has no options."]
    presets = registry().presets_of(mixer.name)
    if presets:
        rows = ([code(name), settings(values)] for name, values in presets.items())
        parts += ["**Presets**", table(["preset", "fixes"], rows)]
    return "\n\n".join([*parts, "**State**", _states(mixer)])


def _options(mixer: MixerPlugin[Any]) -> str:
    tunables = mixer.options.tunables()
    rows = (
        [code(field.name), field.type, field.default, values_of(tunables.get(field.name, ())), field.text]
        for field in fields_of(mixer.options)
    )
    return table(["option", "value", "default", "searched over", "meaning"], rows)


def _states(mixer: MixerPlugin[Any]) -> str:
    names = [mixer.name, *(name for name in registry().presets_of(mixer.name) if name != mixer.name)]
    columns = ["layer", "keeps", "a row is", "rows", *(f"at {number(tokens)} tokens" for tokens in CONTEXTS)]
    return table(columns, (row for name in names for row in _state(name)))


def _state(name: str) -> Iterator[list[str]]:
    layer = LayerSpec.make(name, registry())
    arch = ArchSpec(model=BACKBONE, layers=(layer, layer))
    reason = refusal(arch, registry())
    if reason is not None:
        yield [code(name), f"cannot stand everywhere: {plain(reason)}", *[""] * (2 + len(CONTEXTS))]
        return
    tensors = figures_of(layer, arch, 1, registry()).state()
    if not tensors:
        yield [code(name), "nothing", *[""] * (2 + len(CONTEXTS))]
    for tensor in tensors:
        held = [format_quantity(tensor.nbytes(tokens), unit="bytes") for tokens in CONTEXTS]
        yield [code(name), code(tensor.name), f"{list(tensor.row_shape)} {tensor.dtype}", rows_in_words(tensor), *held]


def _maths(mixer: MixerPlugin[Any]) -> str:
    """A link to the README beside the plugin, where it lies in this repository."""
    readme = Path(inspect.getfile(type(mixer))).parent / "README.md"
    if not readme.is_relative_to(ROOT) or not readme.exists():
        return ""
    return f" [Its page](../{readme.relative_to(ROOT).as_posix()}) has the maths."
