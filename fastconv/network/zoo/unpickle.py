"""Read pickles safely: only a few names that they may call exist."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any


# This uses the unpickler in Python: one large index in a file makes the memory of the C version grow without limit.
class Unpickler(pickle._Unpickler):
    """An unpickler that accepts only the given names.

    Parameters
    ----------
    stream : binary file
    known : mapping
        Module and name to the replacement.
    what : str
        Content to read, for the message that rejects the rest.
    """

    def __init__(self, stream: IO[bytes], known: Mapping[tuple[str, str], Any], what: str) -> None:
        super().__init__(stream)
        self._known, self._what = known, what

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a name, for `pickle`."""
        if (module, name) not in self._known:
            raise ValueError(f"the file asks for {module}.{name}; only {self._what} are read")
        return self._known[module, name]


@contextmanager
def refused_unless(what: str) -> Iterator[None]:
    """Convert any exception of a damaged pickle to a ValueError "not `what`: why"."""
    try:
        yield
    except Exception as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"not {what}: {text}") from error
