"""Teaching: what a fit learns from beside its task, and which of the two stages of distillation is on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import SpecError
from archsearch.model import Context, HybridLM
from archsearch.model.lm import build_mixer
from archsearch.model.recorded import Attends, RecordedTeacher
from archsearch.model.teacher import OwnTeacher, Teacher
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.training.teacher_arch import teacher_layer


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """A trained ``model`` that teaches, or None where each layer is its own teacher, and the share of the training
    that the dense stage takes (DeepSeek-V3.2, arXiv 2512.02556, section 2.1.1)."""

    warmup: float
    model: HybridLM | None = None

    def dense(self, progress: float) -> bool:
        """Whether the dense stage is on."""
        return progress < self.warmup

    def of(self, tokens: Tensor, progress: float) -> Teacher:
        """The teacher of a batch `[B, T]`."""
        dense = self.dense(progress)
        return OwnTeacher(dense=dense) if self.model is None else RecordedTeacher(self.model, tokens, dense=dense)

    def begin(self, student: HybridLM) -> bool:
        """Gives the student the weights of its teacher, part by part (a mixer, a norm, a channel mixer) where a part
        has all that the teacher's has; whether all parts do."""
        if self.model is None:
            return False
        theirs, ours = dict(self.model.named_parameters()), dict(student.named_parameters())
        lacking = {
            _part(name) for name, weights in theirs.items() if name not in ours or ours[name].shape != weights.shape
        }
        with torch.no_grad():
            for name, weights in theirs.items():
                if _part(name) not in lacking:
                    ours[name].copy_(weights)
        return not lacking


def _part(name: str) -> str:
    """The part of a model that a parameter is of: ``blocks.3.mixer`` of ``blocks.3.mixer.qkv.weight``."""
    return ".".join(name.split(".")[:3]) if name.startswith("blocks.") else name


def check_teacher(model: ModelSpec, recipe: Recipe, registry: Registry) -> None:
    """Raises `SpecError` for a teacher on that backbone which is no layer, or cannot say what it attends to."""
    layer = teacher_layer(recipe, registry)
    if layer is None:
        return
    if not isinstance(build_mixer(ArchSpec(model=model, layers=(layer,)), 0, registry), Attends):
        raise SpecError(
            f'recipe.teacher = "{recipe.teacher}" cannot say what it attends to: use "full" or "mla", or "self" for '
            "each layer's own attention"
        )


def asks(student: HybridLM, teacher: HybridLM, tokens: Tensor) -> bool:
    """Whether a layer of a fresh student asks its teacher for anything as it trains on `tokens` `[B, T]`."""
    heard = _Heard(RecordedTeacher(teacher, tokens))
    student.train()(tokens, ctx=Context(teacher=heard))
    return heard.anything


class _Heard:
    """A `Teacher` that notes whether it is asked, and answers as another does."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher, self.anything = teacher, False

    @property
    def dense(self) -> bool:
        return self._teacher.dense

    def attention(self, layer: int) -> Tensor | None:
        self.anything = True
        return self._teacher.attention(layer)

    def output(self, layer: int) -> Tensor | None:
        self.anything = True
        return self._teacher.output(layer)
