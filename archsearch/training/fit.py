"""Fit: one model trained at one learning rate, step by step, so that it can be left and taken up again."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.arch import ArchSpec
from archsearch.composition import mixers_of
from archsearch.errors import foreign_code
from archsearch.mixer import Resolver
from archsearch.model import Context, HybridLM
from archsearch.model.block_calls import training_calls
from archsearch.model.channel import BALANCE
from archsearch.model.foreign import memory_told
from archsearch.recipe import Recipe
from archsearch.tasks import IGNORE
from archsearch.training.blame import faulty_weights, first_fault
from archsearch.training.group import merge, versions_of
from archsearch.training.judge import Judge, NotFiniteError, autocast, on_device
from archsearch.training.parts import Part, draw_for, parts_of
from archsearch.training.teaching import Teaching

CUDA_LOOK = 16
"""On CUDA the losses are read (a host synchronisation) once in so many steps."""


class Fit:
    """Trains a fresh `HybridLM` on a judge's task; equal arguments give equal steps, interrupted or not.

    ``diverged_at`` is the first step at which something was not finite, told in ``reason``; ``solved_at`` the step at
    which validation reached the recipe's ``stop_at``; either ends the run. Where the judge's group has several
    processes each makes the same `Fit`, which trains on its share of every batch and stays equal to the others.
    """

    def __init__(
        self,
        arch: ArchSpec,
        judge: Judge,
        *,
        seed: int,
        rate: float,
        resolver: Resolver,
        teaching: Teaching | None = None,
    ) -> None:
        self.judge, self.seed, self.rate, self.teaching = judge, seed, rate, teaching
        self.task, self.recipe, self.device, self.group = judge.task, judge.recipe, judge.device, judge.group
        self.total_steps = self.recipe.steps_for(self.task.seq_len)
        self.mixers = ", ".join(f'mixer "{name}"' for name in mixers_of(arch.layers, resolver))
        with torch.random.fork_rng(), memory_told("building the model"):
            torch.manual_seed(seed)
            self.model = HybridLM(arch, resolver, vocab_size=self.task.vocab_size)
            with foreign_code(self.mixers, "to"):
                self.model = self.model.to(self.device)
            self._rng = torch.get_rng_state()
        self._begun_as_teacher = teaching is not None and teaching.begin(self.model)
        self.group.hand_out([*self.model.parameters(), *self.model.buffers()])
        self.model.training_calls = training_calls(
            self.model, compiled=self.recipe.compile, checkpointed=self.recipe.checkpoint_activations
        )
        self.optimizer = _adamw(self.model, self.recipe, rate)
        self.step = 0
        self.diverged_at: int | None = None
        self.reason: str | None = None
        self.solved_at: int | None = None
        self.curve: list[dict[str, float]] = []
        self.seconds = 0.0
        self._unread: list[Tensor] = []
        self._losses: list[float] = []

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""
        return self.step >= self.total_steps or self.diverged_at is not None or self.solved_at is not None

    @property
    def progress(self) -> float:
        """Share of the training done, as mixers are told it."""
        return self.step / self.total_steps

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

    def validation(self, *, main_only: bool = False) -> dict[str, float]:
        """Metrics on validation; none where an output is not finite, which ends the run."""
        try:
            return self.judge.metrics(self.model, "validation", progress=self.progress, main_only=main_only)
        except NotFiniteError as error:
            self._diverge(self.step, str(error), error.tokens)
            return {}

    def _train_step(self) -> Tensor:
        """The task's loss, the sum of all losses and the norm of the gradient, `[3]`."""
        with foreign_code(self.mixers, "train"):
            self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * schedule(self.step, self.total_steps, self.recipe)
        with memory_told(f"training step {self.step + 1}"):
            self.optimizer.zero_grad(set_to_none=True)
            figures, seen = torch.zeros(2, device=self.device), versions_of(self.model)
            batch = self.task.train_batch(seed=self.seed, step=self.step, batch_size=self.recipe.batch_size)
            for part in parts_of(batch, self.recipe, self.group):
                figures += self._gradients_of(part)
            merge(self.model, figures, seen, self.group)
            with foreign_code(self.mixers, "the step of the optimiser over its parameters"):
                return self._update(figures)

    def _gradients_of(self, part: Part) -> Tensor:
        """Adds a part's gradients to those that there are; its share of the task's loss and of all losses, `[2]`."""
        draw_for(part, self.recipe, seed=self.seed, step=self.step)
        loss, added = self._losses_of(part)
        first, *others = added if added and self._only_choices_learn() else [loss, *added]
        total: Tensor = sum(others, first)
        with foreign_code(self.mixers, "backward"), memory_told("the backward pass"):
            total.backward()
        return torch.stack([loss.detach().float(), total.detach().float()])

    def _update(self, losses: Tensor) -> Tensor:
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        figures = torch.cat([losses, norm.float()[None]])
        # AdamW skips a step so marked, as `torch.amp.GradScaler` has it: the weights that gave NaN stay to be seen
        self.optimizer.found_inf = (~losses.isfinite().all() | norm.isnan()).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        return figures

    def _losses_of(self, part: Part) -> tuple[Tensor, list[Tensor]]:
        """The part's share of the task's loss, a mean over the scored positions of the whole batch, and of the losses
        that layers add."""
        tokens, targets = on_device(part.batch, self.device)
        scored = targets != IGNORE
        with autocast(self.recipe, self.device):
            teacher = None if self.teaching is None else self.teaching.of(tokens, self.progress)
            ctx = Context(progress=self.progress, teacher=teacher)
            logits = self.model.logits_at(tokens, scored, ctx=ctx)
            loss = F.cross_entropy(logits.float(), targets[scored], reduction="sum") / part.scored
        if self._only_choices_learn():
            ctx.losses.pop(BALANCE, None)  # experts are balanced as the teacher's are
        return loss, [value * part.rows for value in ctx.losses.values()]

    def _only_choices_learn(self) -> bool:
        """Whether the dense stage is on in a model that began as its teacher: there only what mixers add to the losses
        is learnt."""
        return self._begun_as_teacher and self.teaching is not None and self.teaching.dense(self.progress)

    def _read_losses(self) -> None:
        first = self.step - len(self._unread) + 1
        for step, figures in enumerate(torch.stack(self._unread).tolist() if self._unread else [], first):
            what = _not_finite(*figures)
            if what is not None:
                batch = self.task.train_batch(seed=self.seed, step=step - 1, batch_size=self.recipe.batch_size)
                self._diverge(step, what, on_device(batch, self.device)[0])
                break
            self._losses.append(figures[0])
        self._unread.clear()

    def _look(self) -> None:
        faulty = faulty_weights(self.model)
        if faulty is not None:
            self.diverged_at, self.reason = self.step, f"the weights are not finite at step {self.step}: {faulty}"
            return
        metrics = self.validation(main_only=True)
        if not metrics:
            return
        value = metrics[self.task.metric]
        self.curve.append(
            {
                "step": float(self.step),
                "loss": sum(self._losses) / len(self._losses),
                self.task.metric: value,
            }
        )
        self._losses.clear()
        if self.recipe.stop_at and self.task.task.direction == "maximize" and value >= self.recipe.stop_at:
            self.solved_at = self.step

    def _diverge(self, step: int, what: str, tokens: Tensor) -> None:
        """Ends the run; the reason names the layer that one more pass over `tokens` `[B, T]` finds, if any."""
        self.diverged_at, self.reason = step, f"{what} at step {step}"
        progress, by_steps = step / self.total_steps, self.judge.by == "steps"
        fault = None
        for part in tokens.split(self.recipe.rows):
            with torch.random.fork_rng(), autocast(self.recipe, self.device):
                fault = fault or first_fault(self.model, part, progress=progress, by_steps=by_steps)
        if fault is not None:
            self.reason += f": {fault}"

    def weights(self) -> dict[str, Any]:
        """A copy of the model's `state_dict`."""
        with foreign_code(self.mixers, "state_dict"):
            return copy.deepcopy(self.model.state_dict())

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Takes what `weights` gave; raises `ForeignCodeError` where it is not of this model."""
        with foreign_code(self.mixers, "load_state_dict"):
            self.model.load_state_dict(weights)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on exactly: plain data and tensors."""
        self._read_losses()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self._rng,
            "step": self.step,
            "diverged_at": self.diverged_at,
            "reason": self.reason,
            "solved_at": self.solved_at,
            "curve": self.curve,
            "seconds": self.seconds,
            "losses": self._losses,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`'s data; what is raised for any other data has no one type."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        _check_moments(self.optimizer)
        self._rng = torch.Generator().set_state(state["rng"].cpu()).get_state()
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.diverged_at, self.reason, self.solved_at = state["diverged_at"], state["reason"], state["solved_at"]
        metric = self.task.metric
        self.curve = [{name: float(entry[name]) for name in ("step", "loss", metric)} for entry in state["curve"]]
        self._losses = [float(loss) for loss in state["losses"]]
        self._unread.clear()
        if not 0 <= self.step <= self.total_steps:
            raise ValueError(f"step {self.step} of {self.total_steps}")


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raises `ValueError` for moments that are not like their weights, which the optimiser does not look at."""
    for weights, moments in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            if moments[name].shape != weights.shape:
                raise ValueError(f"moments {list(moments[name].shape)} of weights {list(weights.shape)}")


def _not_finite(loss: float, total: float, norm: float) -> str | None:
    if not math.isfinite(loss):
        return "the loss is not finite"
    if not math.isfinite(total):
        return "the loss that mixers add is not finite"
    return "the gradient is not finite" if math.isnan(norm) else None


def schedule(step: int, total: int, recipe: Recipe) -> float:
    """Share of the learning rate at a step: linear warm-up, then cosine down to the recipe's final share."""
    warm = max(1, round(recipe.warmup * total))
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, total - warm)
    return recipe.final_learning_rate + (1 - recipe.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * progress))


def _adamw(model: HybridLM, recipe: Recipe, rate: float) -> torch.optim.AdamW:
    """Weight decay acts on matrices, not on norms, biases and gate constants."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=recipe.betas, fused=True)
