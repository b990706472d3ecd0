"""Training: the recipe, the loop, and the measurement of one architecture on one task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archsearch.recipe import Recipe

if TYPE_CHECKING:
    from archsearch.training.evaluation import Evaluation, Progress, evaluate
    from archsearch.training.key import device_kind, form_of, measurement_key
    from archsearch.training.memory import needs

__all__ = ["Evaluation", "Progress", "Recipe", "device_kind", "evaluate", "form_of", "measurement_key", "needs"]


def __getattr__(name: str) -> object:
    """All but the recipe imports torch: only those who train pay for it."""
    if name in ("Evaluation", "Progress", "evaluate"):
        from archsearch.training import evaluation

        return getattr(evaluation, name)
    if name in ("device_kind", "form_of", "measurement_key"):
        from archsearch.training import key

        return getattr(key, name)
    if name == "needs":
        from archsearch.training.memory import needs

        return needs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
