"""One op at one shape in one phase: its inputs, what each contender makes of them, and whether that is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from archsearch.bench.op import BenchOp, Draw, Inputs, Outputs
from archsearch.bench.results.work import Shape, Work
from archsearch.proving.compare import OUTPUT, Verdict, agreeing_rows, judge, limit_of, worst


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A function that is timed. ``form`` says what it is, ``reference`` what its outputs must equal (in `agreeing` of
    their rows), ``work`` the least that it must do, ``proven`` the proofs of the kernels that it runs, in words."""

    name: str
    form: str
    run: Callable[[Inputs], Outputs]
    reference: Callable[[Inputs], Outputs]
    work: Callable[[Shape, int], Work]
    agreeing: float
    proven: str = ""


@dataclass(kw_only=True)
class Case:
    """Inputs of one op and shape, drawn once for all contenders; ``phase`` as in `KernelRow`."""

    op: BenchOp
    shape: Shape
    phase: str
    draw: Draw
    inputs: dict[str, Tensor] = field(init=False)
    upstream: Tensor | None = None

    def __post_init__(self) -> None:
        self.inputs = self.op.inputs(self.shape, self.draw)

    @property
    def trains(self) -> bool:
        """Whether the backward pass belongs to it."""
        return self.phase == "forward+backward"

    def work(self, contender: Contender) -> Work:
        """The least work of one call."""
        done = contender.work(self.shape, self.draw.dtype.itemsize)
        return done.trained() if self.trains else done

    def call(self, contender: Contender) -> Callable[[], Outputs]:
        """One call, gradients of the inputs included where it trains; nothing is accumulated from call to call."""
        if not self.trains:
            return lambda: self._forward(contender)
        leaves = self._leaves(self.inputs)
        trained = [leaves[name] for name in self.op.trained]

        def train() -> Outputs:
            out = contender.run(leaves)[0]
            return torch.autograd.grad(out, trained, self._upstream(out))

        return train

    def check(self, contender: Contender) -> Verdict:
        """The outputs of one group of heads, and the gradients of its inputs, against the reference in float32."""
        group, index = self.shape.kv_heads - 1, self._group
        wanted_inputs = self.op.group(self.inputs, self.shape, group)
        if not self.trains:
            expected = self._no_grad(contender.reference, wanted_inputs)
            return self._judge_outputs(contender, [index(x) for x in self._forward(contender)], expected)[0]
        leaves, wanted = self._leaves(self.inputs), self._leaves(wanted_inputs)
        out, expected_out = contender.run(leaves)[0], contender.reference(wanted)[0]
        verdict, agreeing = self._judge_outputs(contender, [index(out)], (expected_out,))
        upstream = self._upstream(out).clone()
        index(upstream).mul_(agreeing.to(upstream.dtype))
        names = self.op.trained
        found = torch.autograd.grad(out, [leaves[name] for name in names], upstream)
        right = torch.autograd.grad(expected_out, [wanted[name] for name in names], index(upstream).float())
        verdicts = [
            judge(f"d_{name}", self.op.grad_group(name, grad, self.shape, group), exact, limit_of(name))
            for name, grad, exact in zip(names, found, right, strict=True)
        ]
        return worst([verdict, *verdicts])

    def _forward(self, contender: Contender) -> Outputs:
        return self._no_grad(contender.run, self.inputs)

    @staticmethod
    @torch.no_grad()
    def _no_grad(function: Callable[[Inputs], Outputs], inputs: Inputs) -> Outputs:
        return function(inputs)

    def _group(self, output: Tensor) -> Tensor:
        return self.op.output_group(output, self.shape, self.shape.kv_heads - 1)

    def _leaves(self, inputs: Inputs) -> dict[str, Tensor]:
        return {name: x.detach().requires_grad_(name in self.op.trained) for name, x in inputs.items()}

    def _upstream(self, out: Tensor) -> Tensor:
        """The gradient of the output, random and the same for every contender."""
        if self.upstream is None:
            self.upstream = self.draw.normal(*out.shape, dtype=out.dtype)
        return self.upstream

    def _judge_outputs(self, contender: Contender, outputs: list[Tensor], expected: Outputs) -> tuple[Verdict, Tensor]:
        """The verdict, and which rows of the first output agree (all of them unless the op ranks blocks)."""
        if len(outputs) != len(expected):
            raise ValueError(f"{contender.name} gives {len(outputs)} outputs, its reference {len(expected)}")
        if contender.agreeing == 1:
            verdicts = [
                judge(f"output {n}", a, e, OUTPUT) for n, (a, e) in enumerate(zip(outputs, expected, strict=True))
            ]
            return worst(verdicts), torch.ones(1, device=outputs[0].device)
        agreeing = agreeing_rows(outputs[0], expected[0])
        share = float(agreeing.mean())
        verdict = judge("output", outputs[0] * agreeing, expected[0] * agreeing, OUTPUT)
        fault = verdict.fault or (
            f"{1 - share:.1%} of the rows differ, more than rounding moves" if share < contender.agreeing else ""
        )
        return Verdict(error=verdict.error, agreeing=share, fault=fault), agreeing
