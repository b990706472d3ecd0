"""MixerConformance: the laws of a token mixer, as a pytest suite that a plugin author inherits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import pytest
import torch

from archsearch.kernels import interpreting
from archsearch.layer import LayerSpec, Resolver
from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.testing.case import LAYER, SHAPE, Case, using_impl
from archsearch.testing.laws import LAWS, Law, tried
from archsearch.testing.recording import device_of

INTERPRETED_LAWS = (
    "test_long_second_prefill",
    "test_a_wanted_state_is_returned",
    "test_packed_sequences_are_apart",
    "test_gradients_are_finite_and_reach_every_parameter",
    "test_one_token",
)
"""Laws that the default run tries with interpreted kernels."""


class MixerConformance:
    """Inherit, set ``plugin``, and pytest runs the laws that every mixer keeps, a test for each law, case and
    implementation::

        class TestMyMixer(MixerConformance):
            plugin = MyPlugin()
            cases = {"small": {"window": 8}, "with-sinks": {"window": 8, "sinks": 2}}

    A test that fails says in one line which law is broken, where, by how much, and what usually causes it. The laws are
    `archsearch.testing.laws.LAWS`, which can be tried without pytest too.

    ``cases`` are options by readable id; every preset is a case too. Choose options whose sparsity acts within
    ``tokens``, the length of the sequences tried (some laws look at longer ones, for what shows late). A law in the
    plugin's ``broken_laws`` that indeed fails is reported as an expected failure, with the plugin's reason; one that
    holds for every case fails.

    - ``shape``, ``layer``: the sizes that layers are built for, and the index and depth at which.
    - ``registry``: who knows the names of other mixers, for options that hold layers and for ``pattern``; by default
      all that are installed.
    - ``pattern``: the architecture around the layer, as notation or as layers, for a mixer that needs others: the layer
      takes the place of the first of its mixer in it. By default all layers are alike.
    - ``tolerance``: by how much two forms of one computation may differ, absolutely and as a share.
      ``causal_tolerance``: by how much an output may change with what it must not depend on.
    - ``traffic_contexts``: numbers of tokens at which a single step's reads and writes are looked at.
    - ``traffic_slack``: the share by which ``traffic`` may exceed what a step is seen to read and write, for a mixer
      whose choice may come out smaller, and by which the mean of steps in a row may exceed the stated mean. No step may
      move more than the stated peak.
    - ``drops_beyond``: one token past ``dense_up_to``, some token no longer reaches the last output, by any way at all.
    - ``idle_parameters`` names parameters that may have no gradient.
    - ``impls``: the implementations that the laws are tried with, one after the other, by `using_impl`. Among them may
      be "triton": without a card Triton's interpreter runs the kernels (TRITON_INTERPRET=1 before triton is imported),
      which is slow. So they are tried on ``interpreted_tokens``; and all but the laws `INTERPRETED_LAWS` on
      ``interpreted_cases`` carry the marker "slow". On a card ``pytest -p archsearch.testing.recording
      --conformance-device cuda`` tries them all, and nothing else.
    """

    plugin: ClassVar[MixerPlugin[Any]]
    cases: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    shape: ClassVar[ModelShape] = SHAPE
    layer: ClassVar[LayerInfo] = LAYER
    registry: ClassVar[Resolver | None] = None
    pattern: ClassVar[str | Sequence[LayerSpec] | None] = None
    tokens: ClassVar[int] = 100
    interpreted_tokens: ClassVar[int] = 40
    interpreted_cases: ClassVar[tuple[str, ...]] = ()
    traffic_contexts: ClassVar[tuple[int, ...]] = (2, 17, 50)
    tolerance: ClassVar[float] = 1e-4
    causal_tolerance: ClassVar[float] = 1e-6
    traffic_slack: ClassVar[float] = 0.0
    drops_beyond: ClassVar[bool] = True
    idle_parameters: ClassVar[frozenset[str]] = frozenset()
    impls: ClassVar[tuple[str, ...]] = ("auto",)

    def using_impl(self, impl: str) -> AbstractContextManager[None]:
        """Makes the layer's ops run `impl`; by default through ``ARCHSEARCH_IMPL``, which `choose_impl` heeds."""
        return using_impl(impl)

    def case(self, values: Mapping[str, Any], impl: str = "auto", device: str = "cpu") -> Case:
        """The options `values` with the suite's knobs, to be tried in one implementation on a device."""
        interpreted = impl == "triton" and device == "cpu"
        siblings = self._all_cases().values()
        case = Case.of(
            self.plugin,
            values,
            registry=self.registry if self.layer.resolver is None else self.layer.resolver,
            pattern=self.pattern if self.layer.pattern is None else self.layer.pattern,
            layer=self.layer,
            shape=self.shape,
            siblings=(),
            tokens=self.interpreted_tokens if interpreted else self._knob("tokens"),
            tolerance=self._knob("tolerance"),
            causal_tolerance=self._knob("causal_tolerance"),
            traffic_slack=self._knob("traffic_slack"),
            traffic_contexts=self._knob("traffic_contexts"),
            drops_beyond=self._knob("drops_beyond"),
            idle_parameters=self._knob("idle_parameters"),
            device=torch.device(device),
            impl=impl,
            using=self.using_impl,
        )
        return case.beside(siblings)

    def _knob(self, name: str) -> Any:
        """The suite's own, else what the plugin states."""
        own = getattr(self, name)
        return own if own != getattr(MixerConformance, name) else self.plugin.conformance.get(name, own)

    def _all_cases(self) -> dict[str, Mapping[str, Any]]:
        return {**self.cases, **self.plugin.presets, **self.plugin.conformance.get("cases", {})}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each case, and for each implementation where the layer runs."""
        cases, law = self._all_cases(), getattr(metafunc.function, "law", None)
        if "impl" in metafunc.fixturenames:
            device = device_of(metafunc.config)
            tried = [(name, impl) for impl in self.impls for name in cases if _can_run(law, impl, device)]
            metafunc.parametrize(
                ("values", "impl"),
                [pytest.param(cases[name], impl, marks=self._marks(law, name, impl)) for name, impl in tried],
                ids=[f"{name}-{impl}" for name, impl in tried],
            )
        elif "values" in metafunc.fixturenames:
            chosen = list(cases)[: 1 if law is not None and law.once else None]
            metafunc.parametrize("values", [cases[name] for name in chosen], ids=chosen)

    def _marks(self, law: Law | None, name: str, impl: str) -> tuple[pytest.MarkDecorator, ...]:
        always = law is not None and f"test_{law.name}" in INTERPRETED_LAWS and name in self.interpreted_cases
        return () if impl != "triton" or always or not interpreting() else (pytest.mark.slow,)


def _can_run(law: Law | None, impl: str, device: str) -> bool:
    """Kernels need a card or Triton's interpreter, which multiplies matrices of bfloat16 wrongly."""
    return impl != "triton" or device != "cpu" or (interpreting() and (law is None or law.name != "bfloat16_runs"))


def _test_of(law: Law) -> Callable[..., None]:
    """The test of a law, which asks pytest for the implementation only where the layer runs."""

    def run(suite: MixerConformance, request: pytest.FixtureRequest, values: Mapping[str, Any], impl: str) -> None:
        outcome = tried(law, suite.case(values, impl, device_of(request.config)))
        if outcome.status == "failed":
            pytest.fail(outcome.text, pytrace=False)
        if outcome.status == "declared broken":
            pytest.xfail(outcome.text)
        if outcome.status == "skipped":
            pytest.skip(outcome.text)

    def in_each_form(
        self: MixerConformance, request: pytest.FixtureRequest, values: Mapping[str, Any], impl: str
    ) -> None:
        run(self, request, values, impl)

    def in_any_form(self: MixerConformance, request: pytest.FixtureRequest, values: Mapping[str, Any]) -> None:
        run(self, request, values, "auto")

    test: Any = in_each_form if law.runs_layer else in_any_form
    test.law, test.__name__, test.__doc__ = law, f"test_{law.name}", law.says
    return test  # type: ignore[no-any-return]


for _law in LAWS:
    setattr(MixerConformance, f"test_{_law.name}", _test_of(_law))
