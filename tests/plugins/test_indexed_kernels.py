"""The kernels of what an index chooses, interpreted: whole layers, float16, and what no kernel serves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.indexed import IndexedPlugin
from archsearch_plugins.indexed.choice import Choice
from archsearch_plugins.indexed.listing import listed_blocks
from archsearch_plugins.indexed.ops import indexed_attention
from archsearch_plugins.indexed.options import Rule
from archsearch_plugins.indexed.products import Products
from archsearch_plugins.indexed.triton.attention import listed_attention
from archsearch_plugins.indexed.triton.builds import builds as builds_of
from archsearch_plugins.indexed.triton.checks import checks
from archsearch_plugins.indexed.triton.choice import indexed_choose
from archsearch_plugins.indexed.triton.table import CHOICE, TABLE
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from archsearch.errors import KernelUnavailableError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, Mixer
from archsearch.proving import Attempt

SHAPE = ModelShape(d_model=24, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
FEW = {"block_size": 3, "top_k": 1}
LAYERS: dict[str, dict[str, Any]] = {
    "dsa": {"top_k": 3},
    "m3": FEW,
    "quest": FEW,
    "qsa": FEW,
    "infllm": FEW,
    "topk": {"top_k": 3},
    "topk together": {"top_k": 3, "choose": "together"},
    "dsa-mla": {"top_k": 3},
    "glm5-next": {"block_size": 3, "top_k": 2},
}
SLOW = ("m3", "quest", "qsa", "infllm", "topk", "topk together", "dsa-mla", "glm5-next")


def layer(name: str) -> Mixer:
    plugin = IndexedPlugin()
    torch.manual_seed(0)
    return plugin.build(plugin.parse_options({**plugin.presets[name.split()[0]], **LAYERS[name]}), SHAPE, LayerInfo())


def outputs(mixer: Mixer, x: Tensor) -> list[Tensor]:
    """Of whole sequences and their gradient, of two parts over a cache, and of a decoded token."""
    leaf, last = x.clone().requires_grad_(), x.shape[1] - 1
    whole, _ = mixer(leaf, ctx=Context())
    (grad,) = torch.autograd.grad((whole * torch.linspace(-1, 1, whole.numel()).view_as(whole)).sum(), leaf)
    with torch.no_grad():
        _, state = mixer(x[:, :7], state=mixer.init_state(len(x), 30), ctx=Context())
        part, state = mixer(x[:, 7:last], state=state, ctx=Context())
        token, _ = mixer.step(x[:, last], state=state, ctx=Context())
    return [whole.detach(), grad, part, token]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in LAYERS]
)
def test_layers_by_kernels_are_those_of_the_explicit_form(
    name: str, monkeypatch: pytest.MonkeyPatch, poisoned_memory: None
) -> None:
    mixer, x = layer(name), torch.randn(1, 10, 24)
    mixer.eval()
    found = []
    for impl in ("triton", "reference"):
        monkeypatch.setenv("ARCHSEARCH_IMPL", impl)
        found.append(outputs(mixer, x))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["narrower heads", pytest.param("what is chosen", marks=pytest.mark.slow)])
def test_half_precision(name: str, poisoned_memory: None) -> None:
    check = next(check for check in checks() if check.name == name)
    attempt = Attempt(key=("sm_90", 16, 0), device=torch.device("cpu"), dtype=torch.float16)
    assert check.try_case(attempt, check.samples[0]).fault == ""


def choice(*, gated: bool = False) -> Choice:
    queries, keys = torch.randn(1, 9, 2, 8), torch.randn(1, 9, 1, 8)
    scores = queries.transpose(1, 2) @ keys.transpose(1, 2).mT
    return Choice(
        rule=Rule(block_size=1, top_k=3, tail=True, local=1, first=1),
        scores=lambda part: scores[:, :, part],
        choosers=2,
        gated=gated,
        products=lambda: Products(queries=queries, keys=keys),
    )


def test_both_forms_list_the_same_blocks() -> None:
    positions, given = torch.arange(9)[None], choice()
    chosen, counts = listed_blocks(given, positions, 9, impl="triton")
    other, _ = listed_blocks(given, positions, 9, impl="chunkwise")
    assert torch.equal(counts, (chosen >= 0).sum(-1))
    assert torch.equal(chosen.sort(-1).values, other.sort(-1).values[..., -chosen.shape[-1] :])


def test_what_no_kernel_serves_says_so() -> None:
    q, k, positions = torch.randn(1, 9, 2, 8), torch.randn(1, 9, 1, 8), torch.arange(9)[None]
    with pytest.raises(KernelUnavailableError, match=r"indexed_attention.*no such form"):
        indexed_attention(q, k, k, positions, choice(gated=True), impl="triton")
    wide = torch.randn(1, 9, 1, 300)
    with pytest.raises(KernelUnavailableError, match="128 is the largest"):
        indexed_attention(wide, wide, wide, positions, choice(), impl="triton")


def test_the_ops_are_registered_in_full() -> None:
    q, k = torch.randn(1, 4, 2, 16, requires_grad=True), torch.randn(1, 4, 1, 16, requires_grad=True)
    positions, rule = torch.arange(4)[None], [1, 1, 0, 0, 2]
    asked = q.detach(), k.detach(), None, positions, False, 1, 1.0, rule, 3
    torch.library.opcheck(indexed_choose, asked, test_utils=("test_schema", "test_faketensor"))
    given = q, k, k.detach(), positions, *indexed_choose(*asked), 1, 0.3
    torch.library.opcheck(
        listed_attention, given, test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )


def test_nothing_is_read_back_from_the_device() -> None:
    with FakeTensorMode():  # reading a value out of a fake tensor is an error
        q, k, positions = torch.zeros(1, 9, 2, 8), torch.zeros(1, 9, 1, 8), torch.zeros(1, 9, dtype=torch.int64)
        assert indexed_attention(q, k, k, positions, choice(), impl="triton").shape == q.shape


@pytest.mark.parametrize("arch", ["sm_90", "sm_80"])
def test_builds_name_every_argument_of_every_kernel_of_every_row(arch: str) -> None:
    builds = list(builds_of(arch))
    for build in builds:
        assert sorted([*build.signature, *build.constexprs]) == sorted(build.fn.arg_names), build.label
    for table in (TABLE, CHOICE):
        rows = {key[1]: set(row) for key, row in table.rows.items() if key[0] == arch}
        named = {dim: {each.name for each in builds if each.op == table.op and each.head_dim == dim} for dim in rows}
        assert named == rows
    assert len({build.label for build in builds}) == len(builds)
