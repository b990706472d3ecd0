"""Laws of options: they are read back as they were written, and what is unknown is refused."""

from __future__ import annotations

import json
from typing import Any

from archsearch.errors import OptionsError
from archsearch.layer import LayerSpec
from archsearch.mixer import MixerOptions
from archsearch.testing.case import Case
from archsearch.testing.laws.law import LawBroken, law


@law(
    "Options written as JSON are read back the same, with the same hash.",
    cause="a field that JSON has no form for, or a validator that changes what it has already changed",
    runs_layer=False,
)
def options_survive_json(case: Case) -> None:
    """Options, to JSON and back."""
    data = json.loads(json.dumps(case.options.model_dump(mode="json")))
    back = _parsed(case, data)
    if back != case.options:
        raise LawBroken(f"{case.options} was read back as {back}")
    if hash(back) != hash(case.options):
        raise LawBroken(f"{case.options} has another hash when it is read back")


@law(
    "An option that the mixer does not have is refused by its name.",
    cause="options that allow extra fields, or a parse_options that drops them",
    runs_layer=False,
    once=True,
)
def unknown_option_is_refused(case: Case) -> None:
    """A misspelt option."""
    try:
        _parsed(case, {"no_such_option": 1})
    except OptionsError as error:
        if "no_such_option" not in str(error):
            raise LawBroken(f'the option no_such_option is refused, but not by its name: "{error}"') from None
        return
    raise LawBroken("the option no_such_option is taken")


@law(
    "Every choice of a tunable option is valid in some combination.",
    cause="a Tunable that lists a value which the options' own validation refuses",
    runs_layer=False,
    once=True,
)
def every_tunable_choice_is_valid_in_some_combination(case: Case) -> None:
    """What a search would draw."""
    combinations = list(case.plugin.choices(resolver=case.layer.resolver))
    for name, choices in case.plugin.options.tunables().items():
        reached = [getattr(options, name) for options in combinations]
        missing = [choice for choice in choices if _read(case, choice, reached) not in reached]
        if missing:
            raise LawBroken(f"{name} = {missing[0]!r} is a choice and valid in no combination")


def _read(case: Case, choice: Any, reached: list[Any]) -> Any:
    """A choice as options hold it: of one that is a layer in notation, the layer."""
    is_layer = isinstance(choice, str) and any(isinstance(value, LayerSpec) for value in reached)
    return case.layer.resolver.layer(choice) if is_layer and case.layer.resolver is not None else choice


def _parsed(case: Case, values: dict[str, Any]) -> MixerOptions:
    options: MixerOptions = case.plugin.parse_options(values, case.layer.resolver)
    return options


LAWS = (options_survive_json, unknown_option_is_refused, every_tunable_choice_is_valid_in_some_combination)
