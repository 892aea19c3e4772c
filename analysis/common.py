"""What the scripts share: where figures go, files written whole or not at all, tables of a page, a progress bar."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastconv.cli.files import save_figure
from fastconv.files import replacing, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = Path(__file__).parent.parent / "figures"
COLOURS = ("#222222", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 2)))


def style(k: int) -> dict[str, Any]:
    """Return a line style of its own for the k-th line, told apart in grey too."""
    return {"color": COLOURS[k % 7], "marker": MARKERS[k % 7], "ls": DASHES[k % 7], "mfc": "white", "ms": 5, "lw": 1.5}


def progress(items: Iterable[Any], what: str) -> Iterator[Any]:
    from rich.progress import track

    yield from track(list(items), what)


def write_csv(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a CSV file into figures/, whole."""
    path = FIGURES / name
    with replacing(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{v:.5g}" if isinstance(v, float) else v for v in row] for row in rows)
    return path


def read_csv(name: str) -> list[dict[str, str]]:
    """Read a CSV file of figures/."""
    with (FIGURES / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save(figure: Figure, name: str) -> None:
    """Write a figure into figures/ as PNG, whole."""
    path = FIGURES / name
    save_figure(figure, path, overwrite=True)
    print(f"drew {path.relative_to(FIGURES.parent)}")


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """Return a page with its tables put between the marks ``<!-- name -->`` and ``<!-- end of name -->``."""
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        marked = f"{begin}\n{table}\n{end}"
        text, count = re.subn(f"{begin}.*?{end}", lambda _, marked=marked: marked, text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page has {count} places for the table {name!r}, not one: mark it with {begin} and {end}")
    return text


def write_tables(page: Path, tables: Mapping[str, str]) -> None:
    """Write tables into a page, whole."""
    write_whole(page, with_tables(page.read_text(encoding="utf-8"), tables).encode())
    print(f"wrote {len(tables)} tables into {page.name}")


def run_jobs(about: str, jobs: Mapping[str, Callable[[], None]]) -> None:
    """Run the jobs that the command line names; all of them if it names none."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("jobs", nargs="*", metavar="NAME", help=", ".join(jobs))
    for name in parser.parse_args().jobs or jobs:
        jobs[name]()


def print_table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as columns of text, numbers to the right."""
    lines = [[str(name) for name in header]] + [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    width = [max(len(line[k]) for line in lines) for k in range(len(header))]
    for line in lines:
        print("  ".join(cell.rjust(w) for cell, w in zip(line, width, strict=True)))
