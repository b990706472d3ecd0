"""What the field published that `shared-kv` and `shared` stand for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

WRITER_SYSTEMS: Mapping[str, System] = {
    "yoco-kv": System(rule="softmax over keys and values that the layers after it read too", source="arXiv 2405.05254"),
}
READER_SYSTEMS: Mapping[str, System] = {
    "yoco": System(rule="softmax over the keys and values of an earlier layer", source="arXiv 2405.05254"),
}
