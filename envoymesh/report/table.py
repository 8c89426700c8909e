"""Tables for people: at most 100 columns, cells folded where they must."""

import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

WIDTH = 100


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; what a terminal would obey or cannot show is a space."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for title in titles:
        made.add_column(title, overflow="fold")
    for row in rows:
        made.add_row(*("".join(c if c.isprintable() else " " for c in cell) for cell in row))
    buffer = io.StringIO()
    Console(file=buffer, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False).print(made)
    return [line.rstrip() for line in buffer.getvalue().splitlines()]
