"""Origin of measured files: figures/recorded.csv holds the version, CPU, date and command of each."""

from __future__ import annotations

import csv
import os
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

from fastconv.files import replacing
from fastconv.native import machine

FIGURES = Path(__file__).parent.parent / "figures"
COLUMNS = ("file", "version", "cpu", "date", "command")


def recorded() -> dict[str, dict[str, str]]:
    """Return the records by file name; a field is empty if it was not recorded."""
    with (FIGURES / "recorded.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def record(path: Path) -> None:
    """Record that this process measured a file of figures/; ignore files elsewhere."""
    if path.parent.resolve() != FIGURES:
        return
    root = FIGURES.parent
    script = Path(sys.argv[0]).resolve()
    command = " ".join(["python", str(script.relative_to(root) if script.is_relative_to(root) else script.name), *sys.argv[1:]])
    cpu = (
        f"{machine().model} ({machine().cpu}), {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
    )
    rows = recorded()
    rows[path.name] = dict(zip(COLUMNS, (path.name, version("fastconv"), cpu, date.today().isoformat(), command), strict=True))
    with replacing(FIGURES / "recorded.csv") as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))
