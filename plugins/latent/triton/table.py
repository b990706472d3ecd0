"""Configurations of the kernels of attention over latents, by architecture and width of the latent.

"decode" takes N rows of the cache a turn, "merge" S partial outputs a turn.
"""

from __future__ import annotations

from archsearch.kernels import Config, Table
from archsearch.kernels.config import Key
from archsearch.ops.triton.exact import for_float32

SHARED = 64
"""Channels of the shared key that the kernels hold at most; DeepSeek-V2 and V3 have as many."""


def _row(arch: str, rank: int) -> dict[str, Config]:
    if rank <= 128:
        decode = Config.of(4, 3 if arch == "sm_90" else 2, N=64)
    else:
        decode = Config.of(8, 2, N=16 if (arch, rank) == ("sm_80", 512) else 32)
    return {"decode": decode, "merge": Config.of(4, 1, S=16)}


ROWS: dict[Key, dict[str, Config]] = {
    (arch, rank, 0): _row(arch, rank)
    for arch, ranks in (("sm_90", (16, 32, 64, 128, 256, 512)), ("sm_80", (32, 64, 128, 256, 512)))
    for rank in ranks
}
TABLE = Table(
    op="latent_attention_absorbed",
    package=__package__,
    rows=ROWS,
    exact=for_float32(ROWS, ("decode",)),
    candidates={
        (arch, 512, 0): ({"merge": Config.of(4, 1, S=32)}, {"decode": Config.of(8, 3, N=16)})
        for arch in ("sm_90", "sm_80")
    },
)
