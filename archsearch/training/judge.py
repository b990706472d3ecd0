"""Judge: a model's metrics on the evaluation sets, by its forward pass or by decoding token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.errors import foreign_code
from archsearch.model import Context, HybridLM
from archsearch.recipe import Recipe
from archsearch.tasks import IGNORE, Batch, CheckedTask
from archsearch.training.group import ALONE, Group

_FEW = 4
"""Rows of `Judge.sample`."""


class NotFiniteError(ArithmeticError):
    """Logits of an evaluation set that are not finite; ``tokens`` `[B, T]` gave them."""

    def __init__(self, split: str, tokens: Tensor) -> None:
        super().__init__(f"the output on {split} is not finite")
        self.tokens = tokens


@dataclass(frozen=True, kw_only=True)
class Judge:
    """How models are judged: on `task`, in the recipe's batches, ``by`` "forward" or "steps".

    By steps, the tokens before the first that is scored are a prompt, and from there to the last that is scored each
    is read by `HybridLM.step`: what a mixer keeps of the past is all that it answers from. The processes of a group
    share the batches, and each has the metrics of all.
    """

    task: CheckedTask
    recipe: Recipe
    device: torch.device
    by: Literal["forward", "steps"]
    group: Group = ALONE

    @torch.no_grad()
    def metrics(
        self, model: HybridLM, split: Literal["validation", "test"], *, progress: float, main_only: bool = False
    ) -> dict[str, float]:
        """The task's metrics on all evaluation sets of a split, or on the main one; `progress` is what mixers are told
        of the training. Raises `NotFiniteError`."""
        self.to_eval(model)
        found: dict[str, float] = {}
        for label, batch in self.task.evaluation(split).items():
            if label and main_only:
                continue
            nll, predictions = self.scores(model, batch, split, progress)
            found |= self.task.metrics(label, batch, nll=nll, predictions=predictions)
        return found

    def scores(self, model: HybridLM, batch: Batch, split: str, progress: float) -> tuple[Any, Any]:
        """Negative log-likelihoods `[B, T]` (nats; 0 where ignored) and predictions `[B, T]`, as numpy arrays."""
        losses, chosen = torch.zeros(batch.tokens.shape), torch.full(batch.tokens.shape, -1)
        parts = [slice(start, start + self.recipe.rows) for start in range(0, len(batch.tokens), self.recipe.rows)]
        faulty = len(parts)
        for index in range(self.group.rank, len(parts), self.group.size):
            if not self._score(model, batch.take(parts[index]), progress, losses[parts[index]], chosen[parts[index]]):
                faulty = index
                break
        faulty = self.group.least(faulty)
        if faulty < len(parts):
            raise NotFiniteError(split, on_device(batch.take(parts[faulty]), self.device)[0])
        chosen += 1  # what others scored is 0 here
        self.group.add_up([losses, chosen])
        return losses.numpy(), (chosen - 1).numpy()

    def _score(self, model: HybridLM, batch: Batch, progress: float, losses: Tensor, chosen: Tensor) -> bool:
        """Writes the `losses` and the `chosen` tokens `[b, T]` of a batch; whether all its logits are finite."""
        tokens, targets = on_device(batch, self.device)
        scored = targets != IGNORE
        with autocast(self.recipe, self.device):
            logits = self._logits(model, tokens, scored, progress).float()
        if not logits.isfinite().all():
            return False
        mask = scored.cpu()
        losses[mask] = F.cross_entropy(logits, targets[scored], reduction="none").cpu()
        chosen[mask] = logits.argmax(-1).cpu()
        return True

    def to_eval(self, model: HybridLM) -> None:
        """Puts a model into evaluation mode."""
        with foreign_code("a mixer of the model", "eval"):
            model.eval()

    @torch.no_grad()
    def sample(self, model: HybridLM, *, progress: float) -> Tensor:
        """Logits `[n, V]` of a few rows of validation, with the same random numbers each time."""
        self.to_eval(model)
        tokens, targets = on_device(self.task.evaluation("validation")[""].take(slice(0, _FEW)), self.device)
        with torch.random.fork_rng(), autocast(self.recipe, self.device):
            torch.manual_seed(0)
            return self._logits(model, tokens, targets != IGNORE, progress).float()

    def _logits(self, model: HybridLM, tokens: Tensor, scored: Tensor, progress: float) -> Tensor:
        """Logits `[n, V]` at the scored positions, row by row."""
        if self.by == "forward":
            return model.logits_at(tokens, scored, ctx=Context(progress=progress))
        return stepped(model, tokens, scored, progress)


def stepped(model: HybridLM, tokens: Tensor, scored: Tensor, progress: float) -> Tensor:
    """Logits `[n, V]` at the `scored` `[B, T]` positions, each read by a step after a prompt."""
    places = scored.any(0).nonzero()[:, 0].tolist()
    if not places:
        return model.logits_at(tokens, scored)
    first, last = places[0], places[-1]
    states = model.init_state(tokens.shape[0], last + 1)
    if first:
        _, states = model.prefill(tokens[:, :first], states, ctx=Context(want_state=True, progress=progress))
    found: list[Tensor] = []
    for place in range(first, last + 1):
        ctx = Context(want_state=True, progress=progress)
        logits, states = model.step(tokens[:, place], states, ctx=ctx)
        found.append(logits[scored[:, place]])
    columns = scored[:, first : last + 1].T.nonzero()  # (place, row) of each, in the order of `found`
    order = (columns[:, 1] * tokens.shape[1] + columns[:, 0]).argsort()
    return torch.cat(found)[order]


def on_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens and targets `[B, T]`."""
    return torch.from_numpy(batch.tokens).to(device), torch.from_numpy(batch.targets).to(device)


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Products in the recipe's dtype."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.dtype == "bfloat16")
