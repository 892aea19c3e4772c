"""The command line: `fastconv VERB`."""

from fastconv.cli.main import main

__all__ = ["main"]
