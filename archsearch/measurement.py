"""Measurement: what one architecture did on one task with one seed, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from archsearch.exercise import Unexercised


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The result of `archsearch.evaluate` for one task and seed; every field is plain data.

    ``validation`` and ``test`` map metric names to values; ``metric`` names the primary one, to be maximised or
    minimised by ``direction``. ``sweep`` has one entry a learning rate tried, ``curve`` one entry a logged step
    of the rate that was chosen (on validation). ``unexercised`` says which layers' sparsity could not act at
    ``seq_len`` tokens. ``judged`` says whether validation and test took the forward pass or decoding, token by token,
    and ``judged_reason`` which mixer's broken law asked for the latter. ``key`` is equal for measurements that must
    come out equal.
    """

    key: str
    digest: str
    pattern: str
    arch: Mapping[str, Any]
    task: str
    task_options: Mapping[str, Any]
    metric: str
    direction: Literal["maximize", "minimize"]
    recall: bool
    chance: float
    recipe: Mapping[str, Any]
    seed: int
    status: Literal["complete", "diverged"]
    reason: str | None = None
    judged: Literal["forward", "steps"] = "forward"
    judged_reason: str | None = None
    learning_rate: float | None = None
    steps: int = 0
    solved_at: int | None = None
    validation: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    sweep: tuple[Mapping[str, Any], ...] = ()
    curve: tuple[Mapping[str, float], ...] = ()
    unexercised: tuple[Unexercised, ...] = ()
    seq_len: int = 0
    params: int = 0
    costs: Mapping[str, Any] = field(default_factory=dict)
    tokens_per_second: float = 0.0
    train_seconds: float = 0.0
    peak_memory_bytes: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def exercised(self) -> bool:
        """Whether every layer's sparsity acted at the length that was trained and tested."""
        return not self.unexercised

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """Reads `to_json`'s data."""
        values = dict(data)
        for name in ("sweep", "curve"):
            values[name] = tuple(values.get(name, ()))
        values["unexercised"] = tuple(Unexercised.from_json(entry) for entry in values.get("unexercised", ()))
        return cls(**values)
