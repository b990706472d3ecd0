"""The cell of the mLSTM against that of `transformers`, in its recurrent and its chunkwise form."""

from __future__ import annotations

import pytest
import torch
from archsearch_plugins.linear.additive.normalised import ExponentialCore
from archsearch_plugins.linear.core import Call
from archsearch_plugins.linear.tokens import Tokens
from torch import Tensor
from torch.testing import assert_close

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

B, T, H, K, V = 2, 70, 3, 8, 10


def drawn(*last: int, seed: int) -> Tensor:
    return torch.randn(B, T, H, *last, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("form", ["mlstm_recurrent_sequence_native", "mlstm_chunkwise_native_autograd"])
@torch.no_grad()
def test_outputs_and_last_states(form: str) -> None:
    """What they add to a denominator is left out."""
    module = pytest.importorskip(
        "transformers.models.xlstm.modeling_xlstm", reason="the reference is transformers 5.24: make test-peers"
    )
    q, k, v, write, forget = (drawn(*last, seed=seed) for seed, last in enumerate(((K,), (K,), (V,), (), ())))
    write = 2 * write
    more = {} if "recurrent" in form else {"chunk_size": 10}
    heads = [x.transpose(1, 2) for x in (q, k, v, write, forget)]
    wanted, after = getattr(module, form)(*heads, return_last_states=True, eps=0.0, **more)
    kept = {"recurrent": torch.zeros(B, 1, H, K, V + 1), "stabilizer": torch.zeros(B, 1, H)}
    tokens = Tokens(q, k, v, log_decay=torch.nn.functional.logsigmoid(forget))
    found, last = ExponentialCore(K**-0.5)(tokens, Call(state=kept, more=write))
    assert_close(found, wanted.transpose(1, 2), rtol=1e-4, atol=1e-5)
    values, ones = last["recurrent"][:, 0].split([V, 1], dim=-1)
    for ours, theirs in zip((values, ones[..., 0], last["stabilizer"][:, 0, :, None]), after, strict=True):
        assert_close(ours, theirs.reshape(ours.shape), rtol=1e-4, atol=1e-5)
