"""Files of the command line: inputs that are read, figures that are written."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fastconv.files import numbered, replacing

DPI = 150
"""Resolution of figures."""


def feeds_of(net: Any, path: Path | None) -> dict[str, Any]:
    """Read the model's inputs from a .npy or .npz file."""
    import zipfile

    import numpy as np

    names = [value.name for value in net.inputs]
    if path is None:
        raise ValueError(f"the model takes {', '.join(names)}: give --input x.npy, or x.npz with arrays of these names")
    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: give the input as .npy or .npz") from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as e:
        raise ValueError(f"{path} is not a numpy array ({' '.join(str(e).split())[:80]}): give the input as .npy or .npz") from None
    if isinstance(loaded, np.ndarray):
        if len(names) != 1:
            raise ValueError(f"the model takes {', '.join(names)}: give an .npz with arrays of these names")
        return {names[0]: loaded}
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def check_writable(folder: Path) -> None:
    """Raise ValueError if a folder is not writable, before the work starts."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise ValueError(f"cannot write into {folder} ({e.strerror}): give another folder with --output") from None


def add_figure(parser: argparse.ArgumentParser) -> None:
    """Add the options for the figure file."""
    parser.add_argument("--output", type=Path, default=Path("."), help="folder for the figure (the current one by default)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the figure of an earlier run; by default the new one gets a number"
    )


def figure_path(args: argparse.Namespace, what: str, title: str) -> Path:
    """Return the path of a network's figure; raise ValueError if its folder is not writable."""
    check_writable(args.output)
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in title)
    folder: Path = args.output
    return folder / f"fastconv-{what}-{name}.png"


def save_figure(figure: Any, target: Path, overwrite: bool = False) -> Path:
    """Write the figure as PNG, atomically, and return its path: the target, or a numbered name if that exists."""
    with nullcontext(target) if overwrite else numbered(target) as place, replacing(place) as new:
        figure.savefig(new, format="png", dpi=DPI)
    return place
