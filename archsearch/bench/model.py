"""The measuring of whole models: training, prefill, decoding and memory, beside what the cost model says."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.bench.clock import Clock, Timed, captured
from archsearch.bench.kernels import spread_of
from archsearch.bench.results.schema import ModelRow, Rates, Status
from archsearch.bench.results.work import Ceilings, Work
from archsearch.bench.timing import measure
from archsearch.costs import ArchCost, CostModel
from archsearch.model import HybridLM
from archsearch.model.lm import BlockState
from archsearch.ops.impl import VARIABLE
from archsearch.proving.compare import ratio
from archsearch.registry import Registry

CHECKED_TOKENS, LIMIT = 192, 5e-2
"""A model's pass and its step are measured only if their logits after so many tokens are within this ratio of those in
float32 without kernels."""

_SECONDS = 1.5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Contexts in tokens, each of one sequence (``batch`` of them when decoding)."""

    train: Sequence[int]
    prefill: Sequence[int]
    decode: Sequence[int]
    batch: int = 1


LARGE = Plan(train=(8192,), prefill=(8192, 32768, 131072), decode=(8192, 131072, 1048576))
SMALL = Plan(train=(64,), prefill=(64, 256), decode=(64, 256))
"""On a card, and elsewhere."""


def plan_for(
    device: torch.device, *, train: Sequence[int], prefill: Sequence[int], decode: Sequence[int], batch: int
) -> Plan:
    """The contexts that are given, for none of a kind the usual ones of the device."""
    usual = LARGE if device.type == "cuda" else SMALL
    return Plan(
        train=train or usual.train, prefill=prefill or usual.prefill, decode=decode or usual.decode, batch=batch
    )


def impl_in_use() -> str:
    """The implementation that ops run: "auto", unless the environment names another."""
    return os.environ.get(VARIABLE) or "auto"


@dataclass(frozen=True, kw_only=True)
class ModelBench:
    """Where models of one backbone are measured: in ``dtype``, by `clock`, about `seconds` a figure."""

    device: torch.device
    dtype: torch.dtype
    clock: Clock
    ceilings: Rates
    spec: ModelSpec
    registry: Registry
    seconds: float = _SECONDS

    def bound(self, flops: float, read_bytes: float, written_bytes: float = 0.0) -> float:
        """What the cost model's figures come to on this device, in seconds."""
        work = Work(flops=flops, read_bytes=read_bytes, written_bytes=written_bytes)
        return Ceilings(**self.ceilings.model_dump()).bound_seconds(work)


def bench_pattern(pattern: str, plan: Plan, bench: ModelBench) -> Iterator[ModelRow]:
    """The rows of one pattern, in the order of the plan; what fails is a row with its reason."""
    arch = ArchSpec.parse(pattern, bench.registry, bench.spec)
    torch.manual_seed(0)
    with torch.device(bench.device):
        model = HybridLM(arch, bench.registry)
    subject = _Subject(pattern=pattern, arch=arch, model=model, bench=bench)
    tokens = torch.randint(bench.spec.vocab_size, (1, CHECKED_TOKENS), device=bench.device)
    with torch.no_grad(), _without_kernels():
        expected = model(tokens)
    for context in plan.train:
        yield from subject.guarded("training", 1, context, partial(subject.train, context))
    model.to(bench.dtype)
    faults = _faults(model, tokens, expected)
    for quantity, contexts, batch, figure in (
        ("prefill", plan.prefill, 1, subject.prefill),
        ("decode", plan.decode, plan.batch, subject.decode),
    ):
        for context in contexts:
            if faults[quantity]:
                yield subject.row(quantity, batch, context, "wrong", faults[quantity])
            else:
                yield from subject.guarded(quantity, batch, context, partial(figure, context, batch))


@torch.no_grad()
def _faults(model: HybridLM, tokens: Tensor, expected: Tensor) -> dict[str, str]:
    """What is wrong with the logits of a pass and of a step, "" for nothing."""
    return {"prefill": _fault(model(tokens), expected), "decode": _fault(_stepped(model, tokens), expected[:, -1])}


def _stepped(model: HybridLM, tokens: Tensor) -> Tensor:
    """Logits `[B, V]` after the last token, which is read by a step."""
    _, states = model.prefill(tokens[:, :-1], model.init_state(*tokens.shape))
    return model.advance(tokens[:, -1], states)[0]


def _fault(logits: Tensor, expected: Tensor) -> str:
    off = ratio(logits, expected)
    return "" if off <= LIMIT else f"the logits are off by {off:.2g}, allowed are {LIMIT:g}"


@contextmanager
def _without_kernels() -> Iterator[None]:
    """Every op runs its PyTorch form."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "chunkwise"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """One model that is measured."""

    pattern: str
    arch: ArchSpec
    model: HybridLM
    bench: ModelBench

    def guarded(self, quantity: str, batch: int, context: int, figures: Callable[[], list[ModelRow]]) -> list[ModelRow]:
        """The rows, or one that says why there are none; memory is given back."""
        try:
            return figures()
        except torch.OutOfMemoryError as error:
            return [self.row(quantity, batch, context, "out of memory", _told(error))]
        except Exception as error:  # the boundary of foreign code and of kernels: a failure is a row, not the end
            return [self.row(quantity, batch, context, "failed", _told(error))]
        finally:
            gc.collect()
            if self.bench.device.type == "cuda":
                torch.cuda.empty_cache()

    def train(self, context: int) -> list[ModelRow]:
        """A step on one sequence: forward, backward and AdamW, products in the bench's dtype; the learning rate is 0,
        so that the weights stay as they are."""
        model, bench = self.model, self.bench
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
        tokens = torch.randint(bench.spec.vocab_size, (1, context + 1), device=bench.device)
        low = bench.dtype if bench.dtype != torch.float32 else torch.bfloat16

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(bench.device.type, dtype=low, enabled=bench.dtype != torch.float32):
                logits = model(tokens[:, :-1])
                loss = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
            loss.backward()
            optimizer.step()

        cost = self.cost(context)
        rows = self._timed("training", 1, context, step, bench.clock.timed, bench.bound(cost.train_flops, 0.0))
        optimizer.zero_grad(set_to_none=True)
        return rows

    @torch.no_grad()
    def prefill(self, context: int, batch: int = 1) -> list[ModelRow]:
        """One pass over a sequence that fills empty states, and the logits of its last token."""
        tokens = torch.randint(self.bench.spec.vocab_size, (batch, context), device=self.bench.device)
        states, cost = self.model.init_state(batch, context), self.cost(context)
        predicted = self.bench.bound(cost.prefill_flops * batch, cost.weight_bytes, cost.state_bytes * batch)
        return self._timed(
            "prefill", batch, context, lambda: self.model.prefill(tokens, states), self.bench.clock.timed, predicted
        )

    @torch.no_grad()
    def decode(self, context: int, batch: int = 1) -> list[ModelRow]:
        """A step whose token is the last of `context`, over states full of random numbers; the states' bytes, and the
        most that was held."""
        bench, cost = self.bench, self.cost(context)
        states, held = self._full_states(batch, context), cost.state_bytes * batch
        token = torch.randint(bench.spec.vocab_size, (batch,), device=bench.device)

        def step() -> object:
            return self.model.advance(token, states)

        call, timed, note = _graphed(step, bench)
        moved = (cost.decode_read_bytes * batch + cost.weight_bytes, cost.decode_written_bytes * batch)
        predicted = bench.bound(cost.decode_flops * batch, *moved)
        rows = self._timed("decode", batch, context, call, timed, predicted, note)
        rows = [row for row in rows if row.quantity != "peak"] + [
            row.model_copy(update={"predicted": cost.weight_bytes + held}) for row in rows if row.quantity == "peak"
        ]
        found = float(sum(state.nbytes for state in states))
        return [*rows, self.row("state", batch, context, "measured", "", measured=found, predicted=float(held))]

    def cost(self, context: int) -> ArchCost:
        """The cost model's figures."""
        return CostModel(self.bench.registry).cost(self.arch, context)

    def row(self, quantity: str, batch: int, context: int, status: Status, reason: str, **figures: object) -> ModelRow:
        """A row of this pattern."""
        return ModelRow.model_validate(
            {
                "pattern": self.pattern,
                "quantity": quantity,
                "batch": batch,
                "context": context,
                "status": status,
                "reason": reason,
                **figures,
            }
        )

    def _timed(
        self,
        quantity: str,
        batch: int,
        context: int,
        call: Callable[[], object],
        timed: Timed,
        predicted: float,
        note: str = "",
    ) -> list[ModelRow]:
        """The time, and on a card the most memory that was held meanwhile."""
        bench = self.bench
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.device)
        timing = measure({quantity: call}, stopwatch=bench.clock, seconds=bench.seconds)[quantity]
        rows = [
            self.row(
                quantity,
                batch,
                context,
                "measured",
                note,
                timed=timed,
                measured=timing.median,
                spread=spread_of(timing),
                predicted=predicted,
            )
        ]
        if bench.device.type == "cuda":
            peak = float(torch.cuda.max_memory_allocated(bench.device))
            rows.append(self.row("peak", batch, context, "measured", f"while {quantity}", measured=peak))
        return rows

    def _full_states(self, batch: int, context: int) -> list[BlockState]:
        """As after all tokens but one."""
        states = self.model.init_state(batch, context)
        for state in states:
            for tensor in [*state.mixer.tensors.values(), *([state.tail] if state.tail is not None else [])]:
                tensor.normal_()
            state.mixer = state.mixer.after(state.mixer.tensors, context - 1)
        return states


def _graphed(step: Callable[[], object], bench: ModelBench) -> tuple[Callable[[], object], Timed, str]:
    """The step as a CUDA graph, else as it is, with the reason."""
    if bench.device.type != "cuda":
        return step, bench.clock.timed, "no CUDA graph on a CPU"
    try:
        return captured(step), "cuda graph", ""
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        torch.cuda.synchronize(bench.device)
        return step, bench.clock.timed, f"no CUDA graph: {_told(error)}"


def _told(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"[:300]
