"""The progress bar of long work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int, str, str], None]]:
    """Show a bar with the time that work took and will take, on standard error where that is a terminal.

    Yields what updates it: ``tell(done, total, share, label)``, with a `share` such as "3/7 runs" and a `total` of 0 as long as
    it is not known.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield lambda done, total, share, label: None
        return
    columns = (
        BarColumn(20),
        TextColumn("{task.fields[share]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, share="")

        def tell(done: int, total: int, share: str, label: str) -> None:
            bar.update(task, completed=done, total=total or None, share=share, description=f"{what}: {label}" if label else what)

        yield tell
