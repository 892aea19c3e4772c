"""Read pickles without letting them run anything: a pickle may call any function that it can name, and here it can name few."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any


# The unpickler in Python, not the one in C, whose memory a file can make grow without limit by one large index.
class Unpickler(pickle._Unpickler):
    """An unpickler that knows some names, and nothing else.

    Parameters
    ----------
    stream : binary file
    known : mapping
        Module and name to what stands for it.
    what : str
        What is read, for the message that refuses the rest.
    """

    def __init__(self, stream: IO[bytes], known: Mapping[tuple[str, str], Any], what: str) -> None:
        super().__init__(stream)
        self._known, self._what = known, what

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name, called by `pickle`."""
        if (module, name) not in self._known:
            raise ValueError(f"the file asks for {module}.{name}; only {self._what} are read")
        return self._known[module, name]


@contextmanager
def refused_unless(what: str) -> Iterator[None]:
    """Make a ValueError, "not `what`: why", of all that a damaged pickle raises, which is nearly everything."""
    try:
        yield
    except Exception as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"not {what}: {text}") from error
