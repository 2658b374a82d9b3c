"""The two shapes in which the terminal shows facts: a table under headings, and a sheet of name and value."""

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from millm.cli.visible import replace_control_chars

TableRow = Sequence[RenderableType]
Fact = tuple[str, RenderableType | None]
"""A name and its value; None leaves the line out."""

ALIGN_RIGHT = ">"
"""Before a heading: the column is one of numbers."""


def table(headings: Sequence[str], rows: Iterable[TableRow]) -> Table:
    """The first column gives way where there is little room, the others only after it."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        justify = "right" if heading.startswith(ALIGN_RIGHT) else "left"
        made.add_column(heading.removeprefix(ALIGN_RIGHT), justify=justify, no_wrap=place > 0, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        made.add_row(*(plain_text(cell) for cell in row))
    return made


def details_table(facts: Iterable[Fact]) -> Table:
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in facts:
        if value is not None:
            made.add_row(Text(f"  {name}", style="dim"), plain_text(value))
    return made


def plain_text(value: RenderableType) -> RenderableType:
    """A text without markup or control characters; what is drawn already, as it is."""
    return Text(replace_control_chars(value)) if isinstance(value, str) else value
