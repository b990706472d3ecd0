"""Fit: one model trained at one learning rate, step by step, so that it can be left and taken up again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.arch import ArchSpec
from archsearch.mixer import Resolver
from archsearch.model import Context, HybridLM
from archsearch.recipe import Recipe
from archsearch.tasks import IGNORE, Batch, Task

CUDA_LOOK = 16
"""On CUDA the losses are read (a host synchronisation) once in so many steps."""


class Fit:
    """Trains a fresh `HybridLM` on a task's stream; equal arguments give equal steps, interrupted or not.

    ``diverged_at`` is the first step whose loss was not finite, ``solved_at`` the step at which validation reached
    the recipe's ``stop_at``; either ends the run.
    """

    def __init__(
        self, arch: ArchSpec, task: Task, recipe: Recipe, *, seed: int, rate: float, resolver: Resolver,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.task, self.recipe, self.seed, self.rate, self.device = task, recipe, seed, rate, device
        self.total_steps = recipe.steps_for(task.seq_len)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = HybridLM(arch, resolver, vocab_size=task.vocab_size).to(device)
            self._rng = torch.get_rng_state()
        self.optimizer = _adamw(self.model, recipe, rate)
        self.step = 0
        self.diverged_at: int | None = None
        self.solved_at: int | None = None
        self.curve: list[dict[str, float]] = []
        self.seconds = 0.0
        self._unread: list[Tensor] = []
        self._losses: list[float] = []

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""
        return self.step >= self.total_steps or self.diverged_at is not None or self.solved_at is not None

    def advance(self) -> None:
        """One optimiser step, and a look at validation where the recipe has one."""
        with torch.random.fork_rng():
            torch.set_rng_state(self._rng)
            self._unread.append(self._train_step())
            self._rng = torch.get_rng_state()
        self.step += 1
        due = self.step % self.recipe.eval_every == 0 or self.step == self.total_steps
        if due or self.device.type == "cpu" or len(self._unread) >= CUDA_LOOK:
            self._read_losses()
        if due and self.diverged_at is None:
            self._look()

    def _train_step(self) -> Tensor:
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * schedule(self.step, self.total_steps, self.recipe)
        batch = self.task.train_batch(seed=self.seed, step=self.step, batch_size=self.recipe.batch_size)
        ctx = Context(progress=self.step / self.total_steps)
        with _autocast(self.recipe, self.device):
            loss = _loss(self.model, batch, self.device, ctx)
        total: Tensor = sum(ctx.losses.values(), loss)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        return loss.detach()

    def _read_losses(self) -> None:
        for offset, value in enumerate(self._unread):
            loss = float(value)
            if not math.isfinite(loss):
                self.diverged_at = self.step - len(self._unread) + offset + 1
                break
            self._losses.append(loss)
        self._unread.clear()

    def _look(self) -> None:
        metrics = evaluate_split(self.model, self.task, "validation", self.recipe, self.device, main_only=True)
        value = metrics[self.task.metric]
        self.curve.append({
            "step": float(self.step), "loss": sum(self._losses) / len(self._losses), self.task.metric: value,
        })  # fmt: skip
        self._losses.clear()
        if not math.isfinite(value):
            self.diverged_at = self.step
        elif self.recipe.stop_at and self.task.direction == "maximize" and value >= self.recipe.stop_at:
            self.solved_at = self.step

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on exactly: plain data and tensors."""
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "rng": self._rng,
            "step": self.step, "diverged_at": self.diverged_at, "solved_at": self.solved_at,
            "curve": self.curve, "seconds": self.seconds, "losses": self._losses,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`'s data."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._rng, self.step, self.seconds = state["rng"].cpu(), state["step"], state["seconds"]
        self.diverged_at, self.solved_at = state["diverged_at"], state["solved_at"]
        self.curve = list(state["curve"])
        self._losses = list(state["losses"])
        self._unread.clear()


def schedule(step: int, total: int, recipe: Recipe) -> float:
    """Share of the learning rate at a step: linear warm-up, then cosine down to the recipe's final share."""
    warm = max(1, round(recipe.warmup * total))
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, total - warm)
    return recipe.final_learning_rate + (1 - recipe.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def evaluate_split(
    model: HybridLM, task: Task, split: Literal["validation", "test"], recipe: Recipe, device: torch.device, *,
    main_only: bool = False,
) -> dict[str, float]:  # fmt: skip
    """The task's metrics on all evaluation sets of a split, or on the main one."""
    model.eval()
    found: dict[str, float] = {}
    for label, batch in task.evaluation(split).items():
        if label and main_only:
            continue
        nll, predictions = _score(model, batch, recipe, device)
        found |= task.metrics(label, batch, nll=nll, predictions=predictions)
    return found


def _score(model: HybridLM, batch: Batch, recipe: Recipe, device: torch.device) -> tuple[Any, Any]:
    """Negative log-likelihoods `[B, T]` (nats; 0 where ignored) and predictions `[B, T]`, as numpy arrays."""
    losses, chosen = torch.zeros(batch.tokens.shape), torch.full(batch.tokens.shape, -1)
    for start in range(0, len(batch.tokens), recipe.batch_size):
        rows = slice(start, start + recipe.batch_size)
        tokens, targets = _tensors(Batch(batch.tokens[rows], batch.targets[rows]), device)
        scored = targets != IGNORE
        with _autocast(recipe, device):
            logits = model.logits_at(tokens, scored).float()
        mask = scored.cpu()
        losses[rows][mask] = F.cross_entropy(logits, targets[scored], reduction="none").cpu()
        chosen[rows][mask] = logits.argmax(-1).cpu()
    return losses.numpy(), chosen.numpy()


def _loss(model: HybridLM, batch: Batch, device: torch.device, ctx: Context) -> Tensor:
    tokens, targets = _tensors(batch, device)
    scored = targets != IGNORE
    logits = model.logits_at(tokens, scored, ctx=ctx)
    return F.cross_entropy(logits.float(), targets[scored])


def _tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(batch.tokens).to(device), torch.from_numpy(batch.targets).to(device)


def _autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.dtype == "bfloat16")


def _adamw(model: HybridLM, recipe: Recipe, rate: float) -> torch.optim.AdamW:
    """Weight decay acts on matrices, not on norms, biases and gate constants."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=recipe.betas, fused=True)
