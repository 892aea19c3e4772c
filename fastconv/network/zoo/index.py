"""Download a source distribution by its hash from the package indexes of pip's configuration.

This does not use pip: to get the name and version of a source distribution, pip runs the package's build code.
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
    """Return the file of a package whose link has a sha256; the caller checks the hash of the file.

    Parameters
    ----------
    name : str
        Name of the package.
    sha256 : str
        Hash in hexadecimal digits.
    timeout : float
        Timeout of a connection, in seconds.

    Raises
    ------
    OSError
        If no index is reachable or links such a file; the message names the indexes.
    """
    settings, said = _settings(), []
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        raise OSError("pip is configured with no-index")
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
    """Return pip's settings: environment over download over global."""
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
    """Return a URL without user name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
