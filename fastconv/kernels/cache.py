"""The user's cache folder, and files in it that are whole or not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder in which fetched and compiled files are kept."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("fastconv", appauthor=False))


def write_whole(place: Path, data: bytes) -> None:
    """Write to a temporary name beside the target, then rename: a reader never sees half a file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
        try:
            file.write(data)
            file.close()
            os.replace(file.name, place)
        except BaseException:
            os.unlink(file.name)
            raise
