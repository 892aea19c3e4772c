"""Files of the command line: inputs that are read, figures that are written."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fastconv.files import numbered, replacing

DPI = 150
"""Resolution of figures."""


RANDOM = "random"
"""The value of --input for random numbers."""


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add the options for the inputs of a model file."""
    parser.add_argument("--input", help="input of a model file: .npy for one array, .npz for arrays by name, or 'random'")
    parser.add_argument("--lengths", help="open lengths of random inputs, or whole shapes, as in 'H=224;W=224' or 'x=1,3,224,224'")
    parser.add_argument("--seed", type=int, default=0, help="seed of random inputs")


def inputs_of(net: Any, args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Return the inputs of a model file, and a note on random ones."""
    if args.input != RANDOM:
        if args.lengths is not None:
            raise ValueError(f"--lengths is {args.lengths}, but the inputs are not random: add --input random, or leave it out")
        return feeds_of(net, args.input), ""
    feeds = net.random_inputs(_lengths(args.lengths or ""), images=args.images or 1, seed=args.seed)
    shapes = ", ".join(f"{name} ({', '.join(map(str, array.shape))})" for name, array in feeds.items())
    return feeds, f"random inputs of seed {args.seed}: {shapes}"


def check_own_images(args: argparse.Namespace) -> None:
    """Reject options for the inputs of a model file, for a known network."""
    for option in ("input", "lengths"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option} goes with a model file: the known networks bring their own images")


def _lengths(text: str) -> dict[str, int | tuple[int, ...]]:
    """Read lengths by name, and shapes by the names of inputs."""
    found: dict[str, int | tuple[int, ...]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, equals, value = part.rpartition("=")
        numbers = [number.strip() for number in value.split(",")]
        if not equals or not all(number.isdigit() for number in numbers):
            raise ValueError(f"--lengths has {part!r}: write lengths as in 'H=224;W=224', or a shape as in 'x=1,3,224,224'")
        found[name.strip()] = int(value) if len(numbers) == 1 else tuple(map(int, numbers))
    return found


def feeds_of(net: Any, path: str | None) -> dict[str, Any]:
    """Read the model's inputs from a .npy or .npz file."""
    import zipfile

    import numpy as np

    names = [value.name for value in net.inputs]
    if path is None:
        raise ValueError(f"the model takes {', '.join(names)}: give --input x.npy, x.npz with arrays of these names, or --input random")
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
