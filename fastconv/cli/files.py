"""Files of the command line: inputs that are read, figures that are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastconv.files import replacing


def feeds_of(net: Any, path: Path | None) -> dict[str, Any]:
    """Read the model's inputs from a file of numpy's."""
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
        raise ValueError(f"{path} is no array of numpy's ({' '.join(str(e).split())[:80]}): give the input as .npy or .npz") from None
    if isinstance(loaded, np.ndarray):
        if len(names) != 1:
            raise ValueError(f"the model takes {', '.join(names)}: give an .npz with arrays of these names")
        return {names[0]: loaded}
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def check_writable(folder: Path) -> None:
    """Fail before the work, not after it."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise ValueError(f"cannot write into {folder} ({e.strerror}): give another folder with --output") from None


def save_figure(figure: Any, target: Path) -> None:
    """Write the figure as PNG, whole."""
    with replacing(target) as new:
        figure.savefig(new, format="png", dpi=150)
