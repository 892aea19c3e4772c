"""One description of a table, laid out as text of any width or as HTML."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape

_GAP = "  "
_NARROWEST = 24
"""Width of the narrowest terminal that tables support, in characters."""


@dataclass(frozen=True)
class Table:
    """Rows of text under titles.

    A table that is wider than the terminal is laid out again. Cells of the columns in `long` become footnotes, then the table is
    cut into blocks of columns. Every cell is shown in full.

    Attributes
    ----------
    header : tuple of str
        Titles of the columns; empty for a matrix.
    rows : tuple of tuple of str
    left : int
        The first `left` columns are text, the others numbers.
    keys : int
        The first `keys` columns identify the rows; every block begins with them.
    long : tuple of str
        Titles of text columns whose cells may become footnotes.
    title : str
        A line above the table.
    notes : tuple of str
        Paragraphs below the table.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    keys: int = 1
    long: tuple[str, ...] = ()
    title: str = ""
    notes: tuple[str, ...] = ()

    def text(self, width: int | None = None) -> str:
        """Lay the table out as plain text.

        Parameters
        ----------
        width : int, optional
            Largest width of a line in characters, at least 24; without it, each row is one line.

        Examples
        --------
        >>> rows = ("first", "no fast algorithm pays", "1.25"), ("last", "fastest", "0.5")
        >>> table = Table(("layer", "why", "ms"), rows, left=2, long=("why",))
        >>> print(table.text())
        layer  why                       ms
        first  no fast algorithm pays  1.25
        last   fastest                  0.5
        >>> print(table.text(24))
        layer  why    ms
        first  [1]  1.25
        last   [2]   0.5
        <BLANKLINE>
        [1] no fast algorithm
            pays
        [2] fastest
        """
        limit = math.inf if width is None else max(width, _NARROWEST)
        rows = tuple(tuple(map(_printable, row)) for row in self.rows)
        table, footnotes = _footnoted(replace(self, rows=rows), limit)
        blocks = ["\n".join([*table._place(columns), *table._lines(columns)]) for columns in table._blocks(limit)]
        if self.title:
            blocks[0] = f"{_wrapped(self.title, limit)}\n{blocks[0]}"
        marks = "\n".join(_wrapped(f"[{number}] {text}", limit, "    ") for text, number in footnotes.items())
        return "\n\n".join([*blocks, *([marks] if marks else []), *(_wrapped(note, limit) for note in self.notes)])

    def html(self) -> str:
        """Return the table as HTML."""
        title = f'<caption style="text-align: left">{escape(self.title)}</caption>' if self.title else ""
        head = f"<thead>{self._html_row(self.header, 'th')}</thead>" if self.header else ""
        body = "".join(self._html_row(row, "td") for row in self.rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<table>{title}{head}<tbody>{body}</tbody></table>{notes}"

    def _html_row(self, cells: Sequence[str], tag: str) -> str:
        sides = ("left" if k < self.left else "right" for k in range(len(cells)))
        return "<tr>" + "".join(f'<{tag} style="text-align: {s}">{escape(c)}</{tag}>' for c, s in zip(cells, sides, strict=True)) + "</tr>"

    @cached_property
    def _lengths(self) -> list[int]:
        """Return the width of each column."""
        lines = [self.header, *self.rows] if self.header else self.rows
        return [max(map(_length, column)) for column in zip(*lines, strict=True)]

    def _span(self, columns: Iterable[int]) -> int:
        """Return the width of some columns next to each other."""
        return sum(self._lengths[k] + len(_GAP) for k in columns) - len(_GAP)

    def _blocks(self, limit: float) -> list[list[int]]:
        """Cut the columns into blocks that fit; each begins with the keys."""
        keys, blocks = list(range(self.keys)), [list(range(self.keys))]
        for k in range(self.keys, len(self._lengths)):
            if len(blocks[-1]) > len(keys) and self._span([*blocks[-1], k]) > limit:
                blocks.append(list(keys))
            blocks[-1].append(k)
        return blocks

    def _place(self, columns: list[int]) -> list[str]:
        """Return a line that names the columns of a matrix in a block, if it has others."""
        if self.header or len(columns) == len(self._lengths):
            return []
        first, last = columns[0] + 1, columns[-1] + 1
        return [f"column {first}" if first == last else f"columns {first} to {last}"]

    def _lines(self, columns: Sequence[int]) -> list[str]:
        return [
            _GAP.join(_padded(line[k], self._lengths[k], k < self.left) for k in columns).rstrip()
            for line in ([self.header, *self.rows] if self.header else self.rows)
        ]

    def _noted(self, columns: Iterable[int]) -> tuple[Table, dict[str, int]]:
        """Replace cells that are wider than the title of their column by numbers of footnotes, row by row."""
        widest, footnotes = {k: max(_length(self.header[k]), 3) for k in columns}, dict[str, int]()

        def noted(k: int, cell: str) -> str:
            keep = _length(cell) <= widest.get(k, math.inf)
            return cell if keep else f"[{footnotes.setdefault(cell, len(footnotes) + 1)}]"

        return replace(self, rows=tuple(tuple(noted(k, cell) for k, cell in enumerate(row)) for row in self.rows)), footnotes


class Shown:
    """Base of results that are shown as tables: text by `table` and `str`, HTML in a notebook."""

    def tables(self) -> tuple[Table, ...]:
        """Return the tables that show this object."""
        raise NotImplementedError

    def table(self, width: int | None = None) -> str:
        """Return the tables as plain text, each row on one line unless a width is given."""
        return "\n\n".join(table.text(width) for table in self.tables())

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self.tables())


def terminal_width() -> int | None:
    """Return the width of the terminal, None if standard output is a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _footnoted(table: Table, limit: float) -> tuple[Table, dict[str, int]]:
    """Turn cells of long columns into footnotes until the table fits, then others until each block fits."""
    by_length = sorted(range(min(table.left, len(table.header))), key=lambda k: -table._lengths[k])
    long = [k for k in by_length if table.header[k] in table.long]
    others = [k for k in by_length if k not in long]
    columns: list[int] = []
    found = table, dict[str, int]()
    for k in (*long, *others):
        blocks = [range(len(table.header))] if k in long else found[0]._blocks(limit)
        if max(map(found[0]._span, blocks)) > limit:
            columns.append(k)
            found = table._noted(columns)
    return found


def _printable(text: str) -> str:
    """Escape control characters, which names from a file may contain."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _length(text: str) -> int:
    """Return the width of a text in a terminal."""
    return (
        len(text)
        if text.isascii()
        else sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    )


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _padded(text: str, length: int, left: bool) -> str:
    space = " " * (length - _length(text))
    return text + space if left else space + text


def _wrapped(text: str, limit: float, indent: str = "") -> str:
    if len(text) <= limit:
        return text
    return textwrap.fill(text, int(limit), subsequent_indent=indent, break_on_hyphens=False)
