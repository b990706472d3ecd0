"""Layer patterns as a person types them: ``"[kda kda kda full]*4"``, ``"sliding(window=64) full(rope=0.25)"``.

    pattern := item+
    item    := ( layer | "[" pattern "]" ) [ "*" count ]
    layer   := name [ "(" key "=" value { "," key "=" value } ")" ] [ ":" "ffn_dim" "=" number ]
    value   := number | true | false | null | bare word | "quoted string" | layer | "[" pattern "]"

A name is a mixer or a preset. A value that is a layer is for an option that holds one, a pattern for one that holds
several: ``parallel(a=kda, b=sliding(window=64))``, ``parallel(of=[kda full])``. Brackets and layers in layers nest,
`MAX_DEPTH` deep. ``kda:ffn_dim=128`` is a layer with a channel mixer of its own width, 0 for none; without it the layer
has the backbone's. Reading takes time linear in the text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from archsearch.errors import NotationError, SpecError
from archsearch.layer import LayerSpec, Resolver
from archsearch.options import MixerOptions

MAX_LAYERS, MAX_DEPTH = 4096, 32
_NUMBER_CHARS = 40
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w-]))
          |(?P<string>"(?:[^"\\]|\\.)*"|'[^']*')
          |(?P<word>[A-Za-z_][\w-]*)
          |(?P<sign>[\[\]()*=,:]))""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int


class _Reader:
    """Tokens of one text, with two tokens of look-ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = self._scan()
        self._next = 0
        self.written: dict[int, tuple[LayerSpec, frozenset[str]]] = {}  # by identity; the layer is kept, and so its id

    def _scan(self) -> list[_Token]:
        tokens, position, end = [], 0, len(self.text.rstrip())
        while position < end:
            match = _TOKEN.match(self.text, position)
            if match is None:
                start = position + len(_SPACE.match(self.text, position)[0])  # type: ignore[index]
                raise self.error(f"unexpected {self.text[start]!r}", start)
            kind = match.lastgroup or ""
            tokens.append(_Token(kind, match.group(kind), match.start(kind)))
            position = match.end()
        tokens.append(_Token("end", "", end))
        return tokens

    def error(self, message: str, position: int) -> NotationError:
        return NotationError(message, text=self.text, position=position)

    def peek(self, ahead: int = 0) -> _Token:
        return self._tokens[min(self._next + ahead, len(self._tokens) - 1)]

    def take(self) -> _Token:
        token = self.peek()
        self._next += token.kind != "end"
        return token

    def accept(self, sign: str) -> bool:
        if self.peek().kind == "sign" and self.peek().text == sign:
            self.take()
            return True
        return False

    def expect(self, sign: str, why: str) -> None:
        if not self.accept(sign):
            found = self.peek()
            shown = f'"{found.text}"' if found.text else "the end"
            raise self.error(f'expected "{sign}" {why}, found {shown}', found.start)


def parse_layers(text: str, resolver: Resolver) -> tuple[LayerSpec, ...]:
    """The layers of a pattern; raises `NotationError`, which points at the character."""
    return tuple(_whole(_Reader(text), resolver))


def parse_written(text: str, resolver: Resolver) -> tuple[tuple[LayerSpec, frozenset[str]], ...]:
    """The layers of a pattern, each with the names of the options that the text itself writes out, those of a mixer
    within it by their paths ("a.window"); what a preset or a default says is none of them. Raises `NotationError`."""
    reader = _Reader(text)
    return tuple(reader.written[id(layer)] for layer in _whole(reader, resolver))


def _whole(reader: _Reader, resolver: Resolver) -> list[LayerSpec]:
    layers = _pattern(reader, resolver)
    end = reader.peek()
    if end.kind != "end":
        raise reader.error(f'unexpected "{end.text}"', end.start)
    return layers


def parse_call(text: str, resolver: Resolver | None = None) -> tuple[str, str | None, dict[str, Any]]:
    """``name``, ``name:setting`` or ``name:setting(key=value, ...)``, as tasks are named; with a resolver values may be
    layers, so that it reads a layer's name and what its notation writes out."""
    reader = _Reader(text)
    name = _word(reader, "a name")
    setting = _word(reader, "a setting") if reader.accept(":") else None
    options = _arguments(reader, resolver)
    if reader.peek().kind != "end":
        raise reader.error(f'unexpected "{reader.peek().text}"', reader.peek().start)
    return name, setting, options


def _word(reader: _Reader, what: str) -> str:
    token = reader.take()
    if token.kind != "word":
        raise reader.error(f"expected {what}", token.start)
    return token.text


def _pattern(reader: _Reader, resolver: Resolver, depth: int = 0) -> list[LayerSpec]:
    layers: list[LayerSpec] = []
    while reader.peek().kind == "word" or reader.peek().text == "[":
        start = reader.peek().start
        layers += _item(reader, resolver, depth)
        if len(layers) > MAX_LAYERS:
            raise reader.error(f"more than {MAX_LAYERS} layers", start)
    if not layers:
        found = reader.peek()
        raise reader.error("expected a mixer name or [", found.start)
    return layers


def _item(reader: _Reader, resolver: Resolver, depth: int) -> list[LayerSpec]:
    start = reader.peek().start
    if reader.accept("["):
        if depth == MAX_DEPTH:
            raise reader.error(f"brackets nest more than {MAX_DEPTH} deep", start)
        layers = _pattern(reader, resolver, depth + 1)
        reader.expect("]", "to close the bracket")
    else:
        layers = [_layer(reader, resolver, depth)]
    if not reader.accept("*"):
        return layers
    count = reader.take()
    repeats = _number(reader, count) if count.kind == "number" else None
    if not isinstance(repeats, int) or not count.text.isdigit() or not 1 <= repeats <= MAX_LAYERS:
        raise reader.error(f"expected a count of repeats, 1 to {MAX_LAYERS}", count.start)
    if len(layers) * repeats > MAX_LAYERS:
        raise reader.error(f"more than {MAX_LAYERS} layers", count.start)
    return layers * repeats


def _layer(reader: _Reader, resolver: Resolver, depth: int = 0) -> LayerSpec:
    name = reader.take()
    options = _arguments(reader, resolver, depth)
    width = _ffn_dim(reader)
    try:
        layer = LayerSpec.make(name.text, resolver, **options).with_ffn_dim(width)
    except NotationError:
        raise
    except SpecError as error:
        raise reader.error(str(error), name.start) from None
    reader.written[id(layer)] = layer, frozenset(_written(reader, options, resolver))
    return layer


def _written(reader: _Reader, options: Mapping[str, Any], resolver: Resolver) -> Iterator[str]:
    """The names of options, and by their paths ("a.window", "more.0.window") those that the layers in them write."""
    for key, value in options.items():
        yield key
        for path, held in (
            [(f"{key}.{at}", one) for at, one in enumerate(value)] if isinstance(value, tuple) else [(key, value)]
        ):
            yield from (f"{path}.{name}" for name in _written_in(reader, held, resolver))


def _written_in(reader: _Reader, value: object, resolver: Resolver) -> frozenset[str]:
    """What a layer in an option writes out, which may stand in quotes there."""
    if isinstance(value, LayerSpec):
        return reader.written[id(value)][1]
    if isinstance(value, str) and "(" in value:
        try:
            layers = parse_written(value, resolver)
        except SpecError:  # a text, whose option says what it is
            return frozenset()
        return layers[0][1] if len(layers) == 1 else frozenset()
    return frozenset()


def _ffn_dim(reader: _Reader) -> Any:
    """The width of a layer's own channel mixer, None where none is written."""
    if not reader.accept(":"):
        return None
    key = reader.take()
    if key.text != "ffn_dim":
        raise reader.error('expected ffn_dim after ":"', key.start)
    reader.expect("=", 'after "ffn_dim"')
    token = reader.take()
    if token.kind != "number":
        raise reader.error("expected a number", token.start)
    return _number(reader, token)


def _arguments(reader: _Reader, resolver: Resolver | None = None, depth: int = 0) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if not reader.accept("("):
        return options
    while not reader.accept(")"):
        if options:
            reader.expect(",", "or ) after an option")
        key = reader.take()
        if key.kind != "word":
            raise reader.error("expected the name of an option", key.start)
        if key.text in options:
            raise reader.error(f'option "{key.text}" is given twice', key.start)
        reader.expect("=", f'after "{key.text}"')
        options[key.text] = _value(reader, resolver, depth)
    return options


def _value(reader: _Reader, resolver: Resolver | None, depth: int) -> Any:
    token = reader.peek()
    if token.kind == "number":
        return _number(reader, reader.take())
    if token.kind == "string":
        return _string(reader, reader.take())
    if token.kind == "word" and not (resolver is not None and reader.peek(1).text == "("):
        reader.take()
        return _WORDS.get(token.text, token.text)
    if resolver is None or (token.kind != "word" and token.text != "["):
        raise reader.error("expected a value", token.start)
    if depth == MAX_DEPTH:
        raise reader.error(f"layers in layers nest more than {MAX_DEPTH} deep", token.start)
    if reader.accept("["):
        layers = _pattern(reader, resolver, depth + 1)
        reader.expect("]", "to close the bracket")
        return tuple(layers)
    return _layer(reader, resolver, depth + 1)


def _number(reader: _Reader, token: _Token) -> int | float:
    """The number that a token writes; one of absurd length or beyond what a float holds is refused."""
    if len(token.text) > _NUMBER_CHARS:
        raise reader.error(f"a number of {len(token.text)} characters is too long", token.start)
    value = float(token.text) if set(token.text) & set(".eE") else int(token.text)
    if not math.isfinite(value):
        raise reader.error(f"{token.text} is too large a number", token.start)
    return value


def _string(reader: _Reader, token: _Token) -> str:
    """The text between quotes: JSON's escapes in double ones, none in single ones; nothing that cannot be stored."""
    try:
        text = str(json.loads(token.text)) if token.text[0] == '"' else token.text[1:-1]
    except ValueError as error:
        raise reader.error(f"this text in quotes cannot be read: {error}", token.start) from None
    if not text.isprintable():
        raise reader.error("a text in quotes holds a character that is not seen", token.start)
    return text


def format_layers(layers: tuple[LayerSpec, ...], resolver: Resolver | None = None) -> str:
    """The notation of layers, repeats folded; `parse_layers` reads it back to the same layers."""
    numbers = {layer: chr(number) for number, layer in enumerate(dict.fromkeys(layers))}
    words = {number: format_layer(layer, resolver) for layer, number in numbers.items()}
    return " ".join(_fold("".join(numbers[layer] for layer in layers), words))


def _fold(marks: str, words: Mapping[str, str]) -> list[str]:
    """Layers as one character each, whose notation `words` holds, with what repeats folded."""
    folded, at = [], 0
    while at < len(marks):
        period, repeats = _best_repeat(marks, at)
        one = period == 1
        body = words[marks[at]] if one else f"[{' '.join(_fold(marks[at : at + period], words))}]"
        if one and repeats > 1 and body[-1].isdigit() and ":" in body:  # a width would be read as multiplied
            body = f"[{body}]"
        folded.append(f"{body}*{repeats}" if repeats > 1 else body)
        at += period * repeats
    return folded


def _best_repeat(marks: str, at: int) -> tuple[int, int]:
    best = (1, 1)
    middle = at + (len(marks) - at) // 2
    again = marks.find(marks[at], at + 1, middle + 1)
    while again >= 0:  # a unit can only begin again where its first layer does
        period, repeats = again - at, 1
        unit = marks[at:again]
        while marks.startswith(unit, at + period * repeats):
            repeats += 1
        if repeats > 1 and period * repeats > best[0] * best[1]:
            best = (period, repeats)
        again = marks.find(marks[at], again + 1, middle + 1)
    return best


def parse_layer(text: str, resolver: Resolver) -> LayerSpec:
    """The one layer that a text writes; raises `NotationError`."""
    layers = parse_layers(text, resolver)
    if len(layers) > 1:
        raise NotationError(f"expected one layer, found {len(layers)}", text=text, position=0)
    return layers[0]


def format_layer(layer: LayerSpec, resolver: Resolver | None = None) -> str:
    """``name(option=value, ...)``, by the mixer's or preset's name that leaves the fewest options to write, and
    ``:ffn_dim=width`` where the layer has its own."""
    if layer.ffn_dim is not None:
        return f"{format_layer(layer.with_ffn_dim(None), resolver)}:ffn_dim={layer.ffn_dim}"
    candidates = []
    for name, base in _named(layer, resolver):
        changed = {key: value for key, value in _values(layer.options).items() if key not in base or value != base[key]}
        candidates.append((len(changed), name, changed))
    for _, name, changed in sorted(candidates, key=lambda candidate: candidate[0]):
        if resolver is None or LayerSpec.make(name, resolver, **changed) == layer:
            return name + _format_options(changed, resolver)
    return layer.mixer + _format_options(_values(layer.options), resolver)


def _named(layer: LayerSpec, resolver: Resolver | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The names that a layer may go by, each with the options that it stands for."""
    if resolver is None:
        yield layer.mixer, _defaults(layer.options)
        return
    plugin = resolver.resolve(layer.mixer).plugin
    yield layer.mixer, _values(plugin.parse_options({}, resolver))
    for preset, values in resolver.presets_of(layer.mixer).items():
        yield preset, _values(plugin.parse_options(values, resolver))


def _defaults(options: MixerOptions) -> Mapping[str, Any]:
    """The values of options that were left out; none where they cannot be read without knowing the mixers' names."""
    try:
        return _values(type(options)())
    except ValidationError:
        return {}


def _values(options: MixerOptions) -> dict[str, Any]:
    """Options as plain data, but layers as they are."""
    plain = options.model_dump(mode="json")
    kept = {name: getattr(options, name) for name in type(options).model_fields}
    return {name: kept[name] if _holds_layers(kept[name]) else plain[name] for name in plain}


def _holds_layers(value: object) -> bool:
    return isinstance(value, LayerSpec) or (
        isinstance(value, tuple) and bool(value) and all(isinstance(item, LayerSpec) for item in value)
    )


def _format_options(options: Mapping[str, Any], resolver: Resolver | None) -> str:
    if not options:
        return ""
    return "(" + ", ".join(f"{key}={format_value(value, resolver)}" for key, value in options.items()) + ")"


def format_value(value: Any, resolver: Resolver | None = None) -> str:
    """The value of an option as a pattern has it."""
    if isinstance(value, LayerSpec):
        return format_layer(value, resolver)
    if _holds_layers(value):
        return f"[{format_layers(value, resolver)}]"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, str):
        bare = re.fullmatch(r"[A-Za-z_][\w-]*", value) and value not in _WORDS
        return value if bare else json.dumps(value)
    return repr(value)
