"""Read and write files that only this user can write, as their content runs as code."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

from fastconv.files import replacing

_NOFOLLOW, _FOLDER = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_DIRECTORY", 0)
_CHECKED = hasattr(os, "geteuid")
"""Whether to check owners and modes; Windows keeps other users out of a user's folders."""


def read_own(place: Path) -> bytes | None:
    """Return the content of a file, or None if it is missing or not this user's alone.

    Others must neither own nor be able to write the file and its folder; links are not followed. A `RuntimeWarning` names what is
    rejected.
    """
    try:
        if not _CHECKED:
            return place.read_bytes()
        folder = os.open(place.parent, os.O_RDONLY | _FOLDER | _NOFOLLOW)
        try:
            if not _mine(os.fstat(folder), place.parent):
                return None
            file = os.open(place.name, os.O_RDONLY | _NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
        with os.fdopen(file, "rb") as opened:
            return opened.read() if _mine(os.fstat(file), place) else None
    except OSError:
        return None


def write_own(place: Path, data: bytes) -> None:
    """Write a file atomically, for this user only, and create missing folders for this user only.

    Raises
    ------
    OSError
        If it cannot be written, or others own its folder or may write to it, or the folder is a link.
    """
    for folder in reversed((place.parent, *place.parent.parents)):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    if _CHECKED and not _mine(os.lstat(place.parent), place.parent):
        raise PermissionError(f"{place.parent} is not this user's alone")
    with replacing(place) as new:
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600)
        with os.fdopen(file, "wb") as opened:
            opened.write(data)


def _mine(found: os.stat_result, place: Path) -> bool:
    """Return whether this user owns a file or folder and nobody else may write to it; warn if not."""
    if stat.S_ISLNK(found.st_mode):
        wrong = "is a link"
    elif found.st_uid != os.geteuid():
        wrong = f"belongs to user {found.st_uid}"
    elif found.st_mode & 0o022:
        wrong = f"may be written by others (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return True
    warnings.warn(
        f"{place} {wrong}: compiled code is neither read from it nor kept in it; give the cache a folder of mode 700 that is yours",
        RuntimeWarning,
        stacklevel=2,
    )
    return False
