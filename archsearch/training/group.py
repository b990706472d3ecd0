"""Group: the processes that train one candidate together, each on its parts of a batch; one process is a group too."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_MEETING = timedelta(minutes=5)
_PATIENCE = timedelta(days=1)
"""How long one process waits for the numbers of another: to be slow is no fault, and who dies is noticed."""

_BUCKET = 2**24
"""Numbers that are sent at once: enough to be fast, few beside a model."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """This process among those of `torch.distributed`'s default group, which needs a backend for the CPU (gloo) and
    one for the device of the models (NCCL on cards).

    Every process calls the same methods in the same order. What it decides follows from numbers that are the same in
    all, so that none has to be told what another did.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> Group:
        """Of the default group where one was initialised."""
        if not (dist.is_available() and dist.is_initialized()):
            return ALONE
        return cls(rank=dist.get_rank(), size=dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes and tells what is so of all."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of `count` equal tasks are this process's: as many as others have, and neighbours."""
        each = count // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Makes every tensor the sum of all processes' own, in place; the same bits everywhere."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            for tensor, summed in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(summed.view_as(tensor))

    @torch.no_grad()
    def hand_out(self, tensors: Sequence[Tensor]) -> None:
        """Makes every tensor as the first process has it, in place."""
        if self.size > 1:
            for tensor in tensors:
                whole = tensor.contiguous()
                dist.broadcast(whole, src=0)
                tensor.copy_(whole)

    def least(self, value: int) -> int:
        """The smallest of all processes' values."""
        if self.size == 1:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return int(found)

    def tell(self, content: Mapping[str, Any] | None, device: torch.device) -> dict[str, Any] | None:
        """The first process's `content`, plain data and tensors, which others take to `device`."""
        if self.size == 1:
            return None if content is None else dict(content)
        buffer = io.BytesIO()
        if self.leads and content is not None:
            torch.save(dict(content), buffer)
        size = torch.tensor(buffer.tell())
        dist.broadcast(size, src=0)
        if not int(size):
            return None
        data = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8) if self.leads else _bytes(int(size))
        dist.broadcast(data, src=0)
        found: dict[str, Any] = torch.load(io.BytesIO(data.numpy().tobytes()), map_location=device, weights_only=True)
        return found


ALONE = Group()
"""One process, which asks nobody."""


def meeting_point(host: str, port: int | None = None) -> Any:
    """Where processes find each other, torch's `TCPStore`: opened on this machine by the first, at a ``port`` that
    others are told."""
    kind: Any = dist.TCPStore  # type: ignore[attr-defined]
    return kind(host, port or 0, is_master=port is None, wait_for_workers=False, timeout=_MEETING)


def join(store: Any, rank: int, size: int, *, cards: bool) -> Group:
    """Becomes the `rank`-th of `size` processes that meet at `store`, through NCCL too where they train on `cards`."""
    backend = "cpu:gloo,cuda:nccl" if cards else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    return Group.here()


def merge(model: nn.Module, figures: Tensor, seen: Sequence[tuple[Tensor, int]], group: Group) -> None:
    """Adds up the gradients of all processes and their `figures`, in place.

    `DistributedDataParallel` would mean gradients over processes, while parts of a batch weigh by what is scored in
    them, wants the model called by its `forward`, and holds back where a weight has no gradient in one process (an
    expert that no token chose). A weight without a gradient anywhere is left without, as in one process. Buffers that
    a forward pass changed since `versions_of` gave `seen` become the first process's.
    """
    if group.size == 1:
        return
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    now = versions_of(model)
    changed = [old is not new or before != after for (old, before), (new, after) in zip(seen, now, strict=True)]
    flags = torch.tensor([*(weight.grad is not None for weight in weights), *changed], dtype=torch.int64)
    group.add_up([flags])
    told = flags.bool().tolist()
    with_gradient = [weight for weight, has in zip(weights, told, strict=False) if has]
    for weight in with_gradient:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    group.add_up([figures, *(weight.grad for weight in with_gradient if weight.grad is not None)])
    group.hand_out([buffer for (buffer, _), has in zip(now, told[len(weights) :], strict=True) if has])


def versions_of(model: nn.Module) -> list[tuple[Tensor, int]]:
    """Every buffer, and how often it was written to."""
    return [(buffer, buffer._version) for buffer in model.buffers()]


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype and device, `_BUCKET` numbers at a time."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        like = not bucket or (bucket[0].dtype, bucket[0].device) == (tensor.dtype, tensor.device)
        if bucket and (not like or sum(one.numel() for one in [*bucket, tensor]) > _BUCKET):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _bytes(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.uint8)
