"""The server: Streamlit over the pages, which are imported, and the newest searches read, before it listens.

Where reading takes long, it listens meanwhile: whoever asks for a search that is just being read waits for that.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from threading import Thread

from streamlit.web import cli

from archsearch.errors import ArchsearchError

from . import app
from .connection import registry, store
from .queries.searches import listed
from .reading import answers, evidence, front
from .tables import ONE_WAY_OUT

SCRIPT = Path(app.__file__).parent / "entry" / "script.py"
READ_AHEAD_SECONDS = 5.0


def main() -> None:
    """Runs Streamlit with the options of this process; the first viewer waits for no import."""
    reading = Thread(target=read_ahead, name="read ahead", daemon=True)
    reading.start()
    reading.join(READ_AHEAD_SECONDS)
    cli.main(prog_name="streamlit", args=["run", str(SCRIPT), f"--{ONE_WAY_OUT}=true", *sys.argv[1:]])


def read_ahead(seconds: float = READ_AHEAD_SECONDS) -> int:
    """Reads the newest searches into what all viewers share, and returns how many.

    No search is begun after `seconds`; what cannot be read is left to the page, which tells it.
    """
    begun, count = time.monotonic(), 0
    try:
        registry()
        for search in reversed(listed(store().searches())[-answers.KEPT :]):
            if time.monotonic() - begun > seconds:
                break
            answers.hypervolume(search)
            answers.values(search)
            if not count:
                front.read_front(search, [objective.name for objective in answers.answer(search).objectives[:3]])
                evidence.evidence_of(search)
            count += 1
    except ArchsearchError:
        return count
    return count


if __name__ == "__main__":
    main()
