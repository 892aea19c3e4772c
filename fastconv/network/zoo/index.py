"""Download a source distribution from the package indexes that pip is told to use, by its hash.

Not by pip: to learn the name and version of a source distribution, it runs what the package calls its setup.
"""

from __future__ import annotations

import ast
import base64
import html
import re
import ssl
import subprocess
import sys
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit, urlunsplit
from urllib.request import Request, urlopen

DEFAULT = "https://pypi.org/simple"
_LINK = re.compile(r"""<a\b[^>]*?\bhref\s*=\s*["']([^"']*)["']""", re.IGNORECASE)


def source(name: str, sha256: str, timeout: float = 60) -> bytes:
    """Return the file of a package whose link names a sha256; the caller checks that the file has it.

    Parameters
    ----------
    name : str
        The package.
    sha256 : str
        In hexadecimal digits.
    timeout : float
        Seconds that a connection may be silent.

    Raises
    ------
    OSError
        If no index can be reached, or none links such a file; the message says which were asked.
    """
    settings, said = _settings(), []
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        raise OSError("pip is told to use no index")
    for index in [settings.get("index-url", DEFAULT), *settings.get("extra-index-url", "").split()]:
        page = f"{index.rstrip('/')}/{name}/" + ("index.html" if index.startswith("file:") else "")
        try:
            links = _LINK.findall(_read(page, settings, timeout).decode(errors="replace"))
            for link in (urljoin(page, html.unescape(one)) for one in links):
                if link.endswith(f"#sha256={sha256}"):
                    return _read(link.partition("#")[0], settings, timeout)
            said.append(f"{_public(index)} has no such file")
        except (OSError, ValueError) as error:
            said.append(f"{_public(index)}: {error}")
    raise OSError("; ".join(said))


def _settings() -> dict[str, str]:
    """Return pip's settings: those of the environment before those for downloads, and these before the others."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = [line.partition("=") for line in done.stdout.splitlines()]
    found: dict[str, str] = {}
    for section in ("global.", "download.", ":env:."):
        found |= {key.removeprefix(section): str(ast.literal_eval(value)) for key, _, value in lines if key.startswith(section)}
    return found


def _read(url: str, settings: Mapping[str, str], timeout: float) -> bytes:
    parts = urlsplit(url)
    request = Request(_public(url), headers={"Accept": "text/html", "User-Agent": "fastconv"})
    if parts.username:
        secret = f"{parts.username}:{parts.password or ''}"
        request.add_header("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")
    context = ssl.create_default_context(cafile=settings.get("cert"))
    with urlopen(request, timeout=timeout, context=context) as answer:
        data: bytes = answer.read()
    return data


def _public(url: str) -> str:
    """Return a URL without the name and password that it may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
