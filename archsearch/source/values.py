"""Values: the digest of an object that lies in no file, such as a class of a notebook, with all that it names.

Functions count by their instructions, which have neither comments nor docstrings, and by the globals and closure cells
that those name; classes by their members and bases; what lies in a file by `Closure`; data by value; and any other
object as `pickle` would make it again: by what it calls, and with which data. So it needs no text, which a notebook
may have lost.
"""

from __future__ import annotations

import copyreg
import dataclasses
import dis
import enum
import functools
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from archsearch.errors import ArchsearchError
from archsearch.source.closure import Closure
from archsearch.source.modules import Modules
from archsearch.source.syntax import IMPORTERS, absolute

_MOST = 20_000
"""Objects that one digest may walk: what holds more is a data set, not a piece of code."""

FIELDS = "__pydantic_fields__"
"""The entry of a pydantic class that holds its fields: their types, defaults and limits."""

_SCALARS = (bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented))
_MADE = frozenset(
    {
        "__module__",
        "__qualname__",
        "__doc__",
        "__dict__",
        "__weakref__",
        "__annotations__",
        "__orig_bases__",
        "__parameters__",
        "__abstractmethods__",
        "__firstlineno__",
        "__static_attributes__",
        "_abc_impl",
        "__slots__",
        "__match_args__",
        "__dataclass_params__",
        "__signature__",
        "__class_vars__",
        "__private_attributes__",
        "__fields__",
        "__annotations_cache__",
        "__annotate_func__",
    }
)
"""Entries of a class that Python makes of its source."""


class UnknownSourceError(ArchsearchError):
    """Something that a digest cannot tell from another thing: it is neither code nor data."""


class Values:
    """Spells objects, and adds the modules that they reach to a `Closure`."""

    def __init__(self, modules: Modules, closure: Closure) -> None:
        self._modules, self._closure = modules, closure
        self._seen: dict[int, tuple[int, object]] = {}
        self.said: list[str] = []

    def add(self, value: object) -> None:
        """Spells a value; raises `UnknownSourceError` for one that is neither code nor data."""
        if isinstance(value, _SCALARS):
            self._say(type(value).__name__, _spelt(value))
        elif id(value) in self._seen:
            self._say("again", self._seen[id(value)][0])
        else:
            if len(self._seen) >= _MOST:
                raise UnknownSourceError(f"holds more than {_MOST} objects")
            self._seen[id(value)] = len(self._seen), value  # held, so that its id is not given to another
            self._spell(value)

    def _say(self, *words: object) -> None:
        self.said.append(" ".join(map(str, words)))

    def _spell(self, value: object) -> None:
        if isinstance(value, ModuleType):
            self._module(value.__name__)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, FunctionType):
            self._function(value)
        elif type(value) in (tuple, list):
            self._items(type(value).__name__, value)  # type: ignore[arg-type]
        elif type(value) in (dict, MappingProxyType):
            self._items("dict", [part for item in value.items() for part in item])  # type: ignore[attr-defined]
        elif isinstance(value, set | frozenset):
            self._set(value)
        elif isinstance(value, logging.Logger):
            self._say("logger")
        else:
            self._object(value)

    def _items(self, kind: str, values: Iterable[object]) -> None:
        self._say(kind)
        for value in values:
            self.add(value)
        self._say("end")

    def _set(self, values: Iterable[object]) -> None:
        """Of scalars only: others have no order that is the same in every process."""
        values = list(values)
        if not all(isinstance(value, _SCALARS) for value in values):
            raise UnknownSourceError("holds a set of objects")
        self._say("set", *sorted(f"{type(value).__name__} {value!r}" for value in values))

    # -- code ------------------------------------------------------------------------------------------------

    def _module(self, name: str) -> None:
        if self._modules.find(name) is None and self._modules.whose(name) not in ("standard", "required"):
            raise UnknownSourceError(f"the module {name} lies in no file")
        self._say("module", name)
        self._closure.add(name)

    def _class(self, value: type) -> None:
        if is_packaged(value, self._modules):
            self._say("named", value.__qualname__)
            self._module(value.__module__)
            return
        self._say("class", value.__qualname__)
        self._items("bases", (type(value), *value.__bases__))
        for name, member in sorted(vars(value).items()):
            if name not in _MADE and (name == FIELDS or not name.startswith("__pydantic")):
                self._say("member", name)
                self.add(member)
        self._items("validators", _validators(value))

    def _function(self, function: FunctionType) -> None:
        if is_packaged(function, self._modules):
            self._say("named", function.__qualname__)
            self._module(function.__module__)
            return
        self._code(function.__code__, function.__globals__)
        self._items("defaults", (function.__defaults__, function.__kwdefaults__))
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        self._items("cells", [_content(cell) for name, cell in cells if name != "__class__"])
        self._items("attributes", [part for item in sorted(vars(function).items()) for part in item])

    def _code(self, code: CodeType, names: Mapping[str, object]) -> None:
        """What code does: its instructions, in which neither comments nor docstrings are, and what its names are."""
        self._say("code", code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self._say("handlers", code.co_exceptiontable.hex())
        consts: list[object] = [0, None]
        for instruction in dis.get_instructions(code):
            self._say(instruction.opname)
            if instruction.opcode in dis.hasconst:
                consts.append(instruction.argval)
                self._const(instruction.argval, names)
                continue
            self._say(repr(instruction.argval))
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and instruction.argval in names:
                self.add(names[instruction.argval])
            elif instruction.opname == "IMPORT_NAME":
                self._import(instruction.argval, consts[-2], consts[-1], str(names.get("__package__") or ""))
        if IMPORTERS & set(code.co_names):
            for name in filter(_dotted, consts):
                self._closure.add(absolute(str(name), str(names.get("__package__") or "")))

    def _const(self, value: object, names: Mapping[str, object]) -> None:
        if isinstance(value, CodeType):
            self._code(value, names)
        else:
            self.add(value)

    def _import(self, name: str, level: object, wanted: object, package: str) -> None:
        base = absolute("." * (level if isinstance(level, int) else 0) + name, package)
        for reached in (base, *(f"{base}.{part}" for part in (wanted if isinstance(wanted, tuple) else ()))):
            self._closure.add(reached)

    # -- objects ---------------------------------------------------------------------------------------------

    def _object(self, value: object) -> None:
        if isinstance(value, property):
            self._items("property", (value.fget, value.fset, value.fdel))
        elif isinstance(value, staticmethod | classmethod):
            self._items(type(value).__name__, (value.__func__,))
        elif isinstance(value, functools.cached_property):
            self._items("cached", (value.func,))
        elif isinstance(value, MethodType):
            self._items("method", (value.__func__, value.__self__))
        elif isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, ModuleType | type(None)):
            self._say("builtin", value.__module__, value.__qualname__)
        elif isinstance(value, MemberDescriptorType):
            self._say("slot")
        elif isinstance(value, enum.Enum):
            self._items(f"enum {value.name}", (type(value), value.value))
        elif hasattr(value, "__wrapped__"):
            self._items("wraps", (type(value), value.__wrapped__))  # as by functools.cache, which pickles by name
        else:
            self._remade(value)

    def _remade(self, value: object) -> None:
        """As `pickle` would make it: by the name under which its module has it, or by a call."""
        made = _reduced(value)
        if not isinstance(made, str):
            call, arguments, state, items, pairs = (*made, None, None, None)[:5]
            self._items("object", (call, arguments, state))
            self._items("with", [*(items or ()), *(part for pair in pairs or () for part in pair)])
            return
        name = getattr(value, "__module__", None) or type(value).__module__
        if name == "__main__" or _within(name, made) is not value:
            raise UnknownSourceError(f"{made} is in no module under that name")
        self._say("named", made)
        self._module(name)


def is_packaged(found: type | FunctionType, modules: Modules) -> bool:
    """Whether a class or function is what its module, which lies in a file, has under its name."""
    name = found.__module__ or ""
    if name == "__main__" or (modules.find(name) is None and modules.whose(name) != "standard"):
        return False
    return _within(name, found.__qualname__) is found


def _within(module: str, qualname: str) -> object:
    """What a module that is loaded has under a dotted name, None for nothing."""
    at: object = sys.modules.get(module)
    for part in qualname.split("."):
        at = getattr(at, part, None)
    return at


def _reduced(value: object) -> Any:
    """What `pickle` would make an object of; raises `UnknownSourceError` for one that cannot be pickled."""
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        return reduce(value) if reduce is not None else value.__reduce_ex__(4)
    except Exception as error:  # the plugin boundary: what pickles an object may be foreign code
        raise UnknownSourceError(f"{_named(value)} cannot be told by value ({type(error).__name__})") from None


def _validators(value: type) -> Iterator[object]:
    """Of a pydantic class the names of its validators and serializers, and what their decorators were told."""
    decorators = vars(value).get("__pydantic_decorators__")
    for kind in dataclasses.fields(decorators) if decorators is not None else ():
        for name, decorator in sorted(getattr(decorators, kind.name).items()):
            yield from (kind.name, name, decorator.info)


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # not bound yet


def _dotted(value: object) -> bool:
    return isinstance(value, str) and bool(value) and all(part.isidentifier() for part in value.lstrip(".").split("."))


def _named(value: object) -> str:
    return value.__qualname__ if isinstance(value, type) else f"an object of {type(value).__qualname__}"


def _spelt(value: object) -> str:
    """The text of a scalar; Python writes whole numbers of thousands of digits in base 16 alone."""
    try:
        return repr(value)
    except ValueError:
        return f"{value:x}"
