"""Import optional packages."""

from __future__ import annotations

import importlib
from typing import Any


def imported(module: str, package: str, extra: str) -> Any:
    """Return a module of a package that an extra of fastconv installs.

    Raises
    ------
    RuntimeError
        If it is not installed; the message names the extra.

    Examples
    --------
    >>> imported("no_such.module", "such", "demo")
    Traceback (most recent call last):
    RuntimeError: this needs such, which is not installed: pip install "fastconv[demo]"
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise RuntimeError(f'this needs {package}, which is not installed: pip install "fastconv[{extra}]"') from None
