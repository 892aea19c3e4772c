"""The progress bar of long work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int, str, str], None]]:
    """Show a bar with elapsed and remaining time on standard error, if that is a terminal.

    Yields the function that updates it: ``tell(done, total, share, label)``, with a `share` such as "3/7 runs" and a `total` of 0
    while it is unknown.
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
