"""The architecture of a recipe's teacher."""

from __future__ import annotations

from archsearch.arch import ArchSpec
from archsearch.errors import SpecError
from archsearch.layer import LayerSpec, Resolver
from archsearch.recipe import SELF, Recipe


def teacher_layer(recipe: Recipe, resolver: Resolver) -> LayerSpec | None:
    """The layer that a model of the recipe's teacher is made of; None where no other model teaches. Raises `SpecError`
    for what is no layer."""
    if recipe.teacher is None or recipe.teacher == SELF:
        return None
    try:
        return resolver.layer(recipe.teacher)
    except SpecError as error:
        raise SpecError(
            f'recipe.teacher = "{recipe.teacher}" is neither "self" nor one layer, as "full" or "full(rope=0.5)": '
            f"{error}"
        ) from None


def teacher_arch(arch: ArchSpec, recipe: Recipe, resolver: Resolver) -> ArchSpec | None:
    """The architecture of the model that teaches `arch`: its backbone, with the teacher's layer in every place; None
    where there is no such model. Raises `SpecError` as `teacher_layer` does."""
    layer = teacher_layer(recipe, resolver)
    return None if layer is None else ArchSpec(model=arch.model, layers=(layer,) * len(arch.layers))
