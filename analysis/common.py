"""Shared by the scripts: paths of figures, atomic writes, tables, a progress bar."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.transforms import Bbox
from recorded import FIGURES, record

from fastconv.cli.files import DPI, save_figure
from fastconv.files import replacing
from fastconv.plot.style import COLOURS, DASHES, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def style(k: int) -> dict[str, Any]:
    """Return the style of the k-th line, distinct from others also in grey."""
    return {"color": COLOURS[k % 7], "marker": MARKERS[k % 7], "ls": DASHES[k % 7], "mfc": "white", "ms": 5, "lw": 1.5}


def progress(items: Iterable[Any], what: str) -> Iterator[Any]:
    from rich.progress import track

    yield from track(list(items), what)


def write_csv(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]], measured: bool = True) -> Path:
    """Write a CSV file into figures/ atomically, and record the time if it was `measured`."""
    path = FIGURES / name
    with replacing(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{v:.5g}" if isinstance(v, float) else v for v in row] for row in rows)
    if measured:
        record(path)
    return path


def read_csv(name: str) -> list[dict[str, str]]:
    """Read a CSV file of figures/."""
    with (FIGURES / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save(figure: Figure, name: str) -> None:
    """Write a figure into figures/ as PNG, atomically."""
    path = FIGURES / name
    save_figure(figure, path, overwrite=True)
    print(f"drew {path.relative_to(FIGURES.parent)}")


def place_labels(ax: Axes, labels: Sequence[tuple[float, float, str, str]], fontsize: float = 7) -> None:
    """Write ``(x, y, text, colour)`` next to each point, where they cover neither points, lines nor each other.

    Call it when limits, scales and everything else of the figure are set.
    """
    figure: Any = ax.figure
    figure.set_dpi(DPI)
    figure.draw_without_rendering()  # the layout decides where points are
    transform = ax.transData
    taken = [Bbox.from_bounds(px - 6, py - 6, 12, 12) for px, py in transform.transform([(x, y) for x, y, _, _ in labels])]
    lines = [line.get_transform().transform_path(line.get_path()) for line in ax.lines if line.get_linestyle() != "None"]
    for x, y, text, colour in labels:
        best = None
        for distance in (5, 9, 14, 20, 28):
            for angle in (0, 180, 90, 270, 45, 135, 225, 315):
                dx, dy = distance * math.cos(math.radians(angle)), distance * math.sin(math.radians(angle))
                ha = "left" if dx > 1 else "right" if dx < -1 else "center"
                va = "bottom" if dy > 1 else "top" if dy < -1 else "center"
                note = ax.annotate(text, (x, y), (dx, dy), textcoords="offset points", fontsize=fontsize, color=colour, ha=ha, va=va)
                box = note.get_window_extent()
                outside = not ax.bbox.contains(box.x0, box.y0) or not ax.bbox.contains(box.x1, box.y1)
                cost = 9 * outside + 3 * box.count_overlaps(taken) + sum(path.intersects_bbox(box, filled=False) for path in lines)
                cost += distance / 100
                if best is None or cost < best[0]:
                    if best is not None:
                        best[1].remove()
                    best = cost, note, box
                else:
                    note.remove()
        assert best is not None
        taken.append(best[2])


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


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
