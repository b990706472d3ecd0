"""Viewers of a Streamlit page without a browser: what the server sends them, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

LIMIT = 600.0
SUBPROTOCOL = "streamlit"


def answered(address: str, count: int, text: str) -> tuple[list[float], list[float]]:
    """Seconds until each of `count` viewers, who ask for `address` at the same time, has been sent `text`, and until
    each has the whole page.

    Each holds a connection of its own, as a fresh browser does, and asks for the page's script as its app does.
    """
    parts = urlsplit(address)
    start = threading.Barrier(count)
    first, whole = [0.0] * count, [0.0] * count

    def view(index: int) -> None:
        with connect(f"ws://{parts.netloc}/_stcore/stream", subprotocols=[SUBPROTOCOL], max_size=None) as wire:
            start.wait(LIMIT)
            begun = time.perf_counter()
            first[index], whole[index] = _read(wire, begun, parts.path.strip("/"), parts.query, text)

    viewers = [threading.Thread(target=view, args=(index,), daemon=True) for index in range(count)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join(LIMIT)
    if not all(first) or not all(whole):
        raise RuntimeError(f"{address}: {_told(first, whole)}")
    return first, whole


def _read(wire: ClientConnection, begun: float, page: str, query: str, text: str) -> tuple[float, float]:
    """Seconds from `begun` until a message holds `text`, and until the script has ended."""
    wire.send(BackMsg(rerun_script={"page_name": page, "query_string": query}).SerializeToString())
    seen = 0.0
    while True:
        message = ForwardMsg.FromString(wire.recv(LIMIT, decode=False))
        if not seen and text.encode() in message.SerializeToString():
            seen = time.perf_counter() - begun
        if message.WhichOneof("type") == "script_finished":
            if message.script_finished != ForwardMsg.FINISHED_SUCCESSFULLY:
                raise RuntimeError(f"{page}: its script ended with {message.script_finished}")
            return seen, time.perf_counter() - begun


def _told(first: Sequence[float], whole: Sequence[float]) -> str:
    return f"{sum(map(bool, first))} of {len(first)} viewers were sent its words, {sum(map(bool, whole))} all of it"
