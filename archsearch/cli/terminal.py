"""Terminal: rich's console for texts that came from elsewhere, which may neither steer it nor be read as markup."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from archsearch.cli.outlet import Outlet
from archsearch.printable import printable

PIPE_COLUMNS = 200
LEAST_COLUMNS = 20


class Terminal(Console):
    """Writes to an outlet, as wide as its terminal, or `PIPE_COLUMNS` in a pipe, so that tables are not folded.

    Whatever is printed is escaped by `printable`; colours and movements are rich's own alone.
    """

    def __init__(self, outlet: Outlet) -> None:
        file = cast("IO[str]", outlet)
        super().__init__(file=file, highlight=False, markup=False, emoji=False)
        if not outlet.isatty():
            self.width = PIPE_COLUMNS
        elif self.width < LEAST_COLUMNS:
            self.width = LEAST_COLUMNS

    def render_str(self, text: str, **options: Any) -> Text:
        """Escapes before rich measures the text, and before it drops the controls that it knows."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Escapes what came as rich's own text, too."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
