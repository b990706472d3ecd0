"""The spec of a search that trains in seconds."""

from __future__ import annotations

_SPEC = """
name = "{name}"
seed = {seed}
[model]
d_model = 16
n_layers = 2
n_heads = 1
channel_mixer = "none"
[space]
mixers = ["full", "sliding"]
[space.sliding]
window = [8]
sinks = [0]
[[tasks]]
name = "mqar"
setting = "easy"
[recipe]
steps = {steps}
eval_every = 1000
{recipe}
[objectives]
maximize = ["recall"]
minimize = ["state_bytes"]
context = 1024
[search]
trials = 2
concurrency = 1
{search}
"""


def tiny_spec(steps: int | str, *, name: str = "tiny", seed: int | str = 0, recipe: str = "", search: str = "") -> str:
    """TOML; `recipe` and `search` are further lines of these tables, and texts such as "{seed}" leave a place."""
    return _SPEC.format(steps=steps, name=name, seed=seed, recipe=recipe, search=search)
