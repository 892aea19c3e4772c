"""The user's cache folder, and atomic writes."""

from __future__ import annotations

import itertools
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder in which fetched and compiled files are kept.

    A user without a home folder, as in some containers, gets a private folder among the temporary files.

    Raises
    ------
    RuntimeError
        If that folder is open to other users, who could put code there.
    """
    import platformdirs

    try:
        place = Path(platformdirs.user_cache_dir("fastconv", appauthor=False))
    except RuntimeError:  # neither HOME nor an entry in the user database
        return _private_folder()
    return _private_folder() if place.parts[0] == "~" else place


def _private_folder() -> Path:
    """Return a folder for temporary files that only this user can read and write."""
    place = Path(tempfile.gettempdir()) / f"fastconv-{os.getuid()}"
    with suppress(FileExistsError):
        place.mkdir(0o700)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise RuntimeError(f"{place} is not private to this user: set HOME or XDG_CACHE_HOME to your own folder")
    return place


@contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """Yield a temporary name next to a file and rename it at the end: no reader sees a partial file.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "numbers"
    >>> with replacing(place) as new:
    ...     _ = new.write_text("1 2 3")
    ...     place.exists()
    False
    >>> place.read_text(), len(list(place.parent.iterdir()))
    ('1 2 3', 1)
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{place.stem}.{os.getpid()}-{threading.get_ident()}{place.suffix}")
    try:
        yield new
        os.replace(new, place)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def numbered(place: Path) -> Iterator[Path]:
    """Yield the name of a new file: `place`, or the same with the first free number from 2.

    An empty file reserves the name at once, so two processes never get the same. If the block fails, the name is free again.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "figure.png"
    >>> for _ in range(3):
    ...     with numbered(place) as new:
    ...         print(new.name)
    figure.png
    figure-2.png
    figure-3.png
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        new = place if number == 1 else place.with_name(f"{place.stem}-{number}{place.suffix}")
        try:
            new.touch(exist_ok=False)
            break
        except FileExistsError:
            continue
    try:
        yield new
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_whole(place: Path, data: bytes) -> None:
    """Write a file through `replacing`."""
    with replacing(place) as new:
        new.write_bytes(data)
