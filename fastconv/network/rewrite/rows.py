"""The rows of its inputs that a node needs for some rows of its outputs, and the node for those rows alone.

A rule ``rule(node, look, rows, has)`` returns a `Piece`, or None if the node needs the whole image. `has` are the rows of the
first input that there are, once they are known: at least those that the piece read without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from fastconv.network.graph.graph import Array, Node
from fastconv.network.operators.call import Call
from fastconv.network.operators.convolution import transposed_geometry
from fastconv.network.operators.table import OPERATORS, STANDARD
from fastconv.network.operators.tensors.resize import nearest, positions
from fastconv.network.operators.window import CROPPED, window

ROWS = 2
"""The axis of rows of an image (batch, channels, rows, columns)."""

POINTWISE = frozenset(name for name, operator in OPERATORS.items() if operator.pointwise and operator.steady)
"""Operators whose results depend on the values at the same position, and on nothing else, not even on that position."""


EVEN = POINTWISE | {"Concat", "Split", "Softmax", "ArgMax", "ArgMin"}
"""Operators whose results have the rows of their inputs."""


class Rows(NamedTuple):
    """Rows of an image: from `first` to before `last`."""

    first: int
    last: int

    def hull(self, other: Rows | None) -> Rows:
        """Return the smallest range that holds both.

        Examples
        --------
        >>> Rows(3, 5).hull(Rows(0, 1))
        Rows(first=0, last=5)
        """
        return self if other is None else Rows(min(self.first, other.first), max(self.last, other.last))


class Piece(NamedTuple):
    """A node for some rows: the rows that it makes, at least those asked for, and those that it reads of each image."""

    node: Node
    makes: Rows
    reads: Mapping[int, Rows]
    constants: Mapping[str, Array] = {}


@dataclass(frozen=True)
class Look:
    """What rules know of a network.

    Attributes
    ----------
    shapes : mapping
        Shapes of all tensors in the whole network.
    values : mapping
        Constants, and small tensors that follow from shapes.
    tall : frozenset of str
        Images that are cut into strips; all other tensors are whole.
    grids : mapping
        Rows of a tile of each convolution, by layer name: strips begin and end between tiles, or at the end of the image. Zero
        for a convolution that needs the whole image.
    crops : frozenset of str
        Convolutions that may crop their input, by pads below zero: a copy is saved.
    steps : mapping
        Rows of a tile of what computes each image. What only reads values at the same place runs on whole tiles too.
    """

    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, Array]
    tall: frozenset[str]
    grids: Mapping[str, int]
    crops: frozenset[str] = frozenset()
    steps: Mapping[str, int] = field(default_factory=dict)

    def tiled(self, node: Node, rows: Rows) -> Rows:
        """Return the rows of an output, up to the next ends of tiles of its inputs."""
        step, height = step_of(node, self.steps), self.height(node.outputs[0])
        return Rows(rows.first // step * step, min(-(-rows.last // step) * step, height))

    def height(self, name: str) -> int:
        """Return the rows of an image of the whole network."""
        return self.shapes[name][ROWS]


def step_of(node: Node, steps: Mapping[str, int]) -> int:
    """Return the rows of a tile of the inputs of a node."""
    return max((steps.get(name, 1) for name in node.inputs), default=1)


Rule = Callable[[Node, Look, Rows, "Rows | None"], "Piece | None"]


def piece(node: Node, look: Look, rows: Rows, has: Rows | None = None) -> Piece | None:
    """Return the node for some rows of its outputs, or None if it needs the whole image.

    Examples
    --------
    >>> conv = Node("c", "Conv", ("x", "w"), ("y",), {"pads": (1, 1, 1, 1), "group": 1}, 17)
    >>> shapes = {"x": (1, 1, 100, 9), "w": (1, 1, 3, 3), "y": (1, 1, 100, 9)}
    >>> look = Look(shapes, {"w": np.ones((1, 1, 3, 3))}, frozenset(["x"]), {"c": 4})
    >>> cut = piece(conv, look, Rows(10, 20))
    >>> cut.makes, cut.reads[0], cut.node.attributes["pads"]
    (Rows(first=8, last=20), Rows(first=7, last=21), (0, 1, 0, 1))
    """
    rule = RULES.get(node.operator)
    images = all(len(look.shapes.get(name, ())) == 4 for name in node.outputs if name)
    if rule is None or not images or node.domain not in STANDARD or node.body or not _is_uniform(node, look):
        return None
    return rule(node, look, rows, has)


def _is_uniform(node: Node, look: Look) -> bool:
    """Tell whether the operands of fused nodes are the same for all rows."""
    names = {name for part in node.fused for name in part.inputs if name in look.values and name not in node.inputs}
    return all(_has_one_row(look.values[name].shape) for name in names)


def _has_one_row(shape: tuple[int, ...]) -> bool:
    return len(shape) < 2 or shape[-2] == 1


def _pointwise(node: Node, look: Look, rows: Rows, has: Rows | None) -> Piece | None:
    height = look.height(node.outputs[0])
    fit = all(look.height(n) == height if n in look.tall else n in look.shapes and _has_one_row(look.shapes[n]) for n in node.inputs if n)
    if not fit or len([name for name in node.outputs if name]) > 1:
        return None
    rows = look.tiled(node, rows)
    return Piece(node, rows, {k: rows for k, name in enumerate(node.inputs) if name in look.tall})


def _along(default: int, since: int = 0) -> Rule:
    """Return the rule of an operator along one axis, which must be another than that of rows."""

    def rule(node: Node, look: Look, rows: Rows, has: Rows | None) -> Piece | None:
        axis, heights = int(node.attributes.get("axis", default)) % 4, {look.height(name) for name in node.outputs if name}  # type: ignore[arg-type]
        images = [name in look.tall for name in node.inputs if name and len(look.shapes.get(name, ())) != 1]
        if axis == ROWS or not all(images) or node.opset < since or not node.attributes.get("keepdims", 1) or len(heights) != 1:
            return None
        rows = look.tiled(node, rows)
        return Piece(node, rows, {k: rows for k, name in enumerate(node.inputs) if name in look.tall})

    return rule


def _windowed(node: Node, look: Look, rows: Rows, has: Rows | None) -> Piece | None:
    kernel = look.shapes[node.inputs[1]][2:] if node.operator == "Conv" else node.attributes.get("kernel_shape", ())
    others = [name for k, name in enumerate(node.inputs) if k in (1, 2) and name in look.tall]
    grid = look.grids.get(node.name, 1)
    if node.attributes.get("ceil_mode", 0) or len([name for name in node.outputs if name]) > 1 or others or not grid:
        return None
    height, width = look.shapes[node.inputs[0]][2:]
    view = window(Call(node.attributes, node.opset), (height, width), kernel)  # type: ignore[arg-type]
    step, before, reach = view.strides[0], view.begin[0], view.dilations[0] * (view.kernel[0] - 1) + 1
    if grid == view.kernel[0] == step == 1 and not before and not view.end[0]:
        rows = look.tiled(node, rows)
    # A window entirely in the padding makes the strip longer: there is no image without rows.
    low = min(rows.first, (height - 1 + before) // step)
    high = max(rows.last, -(-(1 + before - reach) // step) + 1)
    makes = Rows(low // grid * grid, min(-(-high // grid) * grid, view.out[0]))
    first, last = makes.first * step - before, (makes.last - 1) * step - before + reach
    if makes.last == view.out[0]:  # a tile reads on to the end, past the last window
        last = height + view.end[0]
    reads = Rows(max(first, 0), min(last, height))
    cropped = {CROPPED: 1} if has not in (None, reads) and node.name in look.crops else {}
    reads = has if cropped and has is not None else reads
    pads = (reads.first - first, view.begin[1], last - reads.last, view.end[1])
    attributes = {name: value for name, value in node.attributes.items() if name != "auto_pad"} | {"pads": pads} | cropped
    shortcut = {3: makes} if len(node.inputs) > 3 else {}
    return Piece(replace(node, attributes=attributes), makes, {0: reads, **shortcut})


def _transposed(node: Node, look: Look, rows: Rows, has: Rows | None) -> Piece | None:
    if any(name in look.tall for name in node.inputs[1:]):
        return None
    height, width = look.shapes[node.inputs[0]][2:]
    view = transposed_geometry(Call(node.attributes, node.opset), (height, width), look.shapes[node.inputs[1]][2:])
    step, reach = view.strides[0], view.dilations[0] * (view.kernel[0] - 1) + 1
    begin, end = rows.first + view.begin[0], rows.last + view.begin[0]  # before the crop
    low = min(max(0, min(-((reach - 1 - begin) // step), begin // step)), height - 1)
    high = max(min((end - 1) // step + 1, height), low + 1)
    before = begin - low * step
    after = (high - low - 1) * step + reach - before - (rows.last - rows.first)
    if min(before, *view.begin) < 0:
        return None
    pads, beyond = (before, view.begin[1], max(after, 0), max(view.end[1], 0)), (max(-after, 0), max(-view.end[1], 0))
    dropped = ("auto_pad", "output_shape", "output_padding")
    attributes = {name: value for name, value in node.attributes.items() if name not in dropped} | {"pads": pads}
    attributes |= {"output_padding": beyond} if any(beyond) else {}
    return Piece(replace(node, attributes=attributes), rows, {0: Rows(low, high)})


def _given(node: Node, look: Look, at: int, attribute: str) -> list[int] | None:
    """Return integers that an input or, in old operator sets, an attribute gives; None if there are none."""
    if len(node.inputs) > at and node.inputs[at]:
        value: Any = look.values.get(node.inputs[at])
    else:
        value = node.attributes.get(attribute)
    return None if value is None else [int(v) for v in np.asarray(value).reshape(-1)]


def _with_inputs(node: Node, given: Mapping[int, tuple[str, Array]], makes: Rows, reads: Rows) -> Piece:
    """Return the piece of a node some of whose inputs are other constants."""
    names = {at: f"{what} of {node.name}, rows {makes.first} to {makes.last}" for at, (what, _) in given.items()}
    inputs = tuple(
        names.get(at, node.inputs[at] if at < len(node.inputs) else "") for at in range(max(len(node.inputs), *(k + 1 for k in given)))
    )
    return Piece(replace(node, inputs=inputs), makes, {0: reads}, {names[at]: array for at, (_, array) in given.items()})


def _sliced(node: Node, look: Look, rows: Rows, has: Rows | None) -> Piece | None:
    starts, ends = _given(node, look, 1, "starts"), _given(node, look, 2, "ends")
    if (
        node.inputs[0] not in look.tall
        or starts is None
        or ends is None
        or node.inputs[3:4]
        and node.inputs[3]
        and node.inputs[3] not in look.values
    ):
        return None
    axes = [axis % 4 for axis in _given(node, look, 3, "axes") or range(len(starts))]
    if ROWS not in axes:
        return Piece(node, rows, {0: rows})
    at, height = axes.index(ROWS), look.height(node.inputs[0])
    steps = _given(node, look, 4, "steps") or [1] * len(axes)
    if node.opset < 10 or steps[at] < 1:
        return None
    begin = min(max(starts[at] + height if starts[at] < 0 else starts[at], 0), height)
    first, last = begin + rows.first * steps[at], begin + (rows.last - 1) * steps[at] + 1
    reads = has or Rows(first, last)
    starts[at], ends[at] = first - reads.first, last - reads.first
    return _with_inputs(node, {1: ("starts", np.array(starts)), 2: ("ends", np.array(ends))}, rows, reads)


def _padded(node: Node, look: Look, rows: Rows, has: Rows | None) -> Piece | None:
    pads, mode = _given(node, look, 1, "pads"), node.attributes.get("mode", "constant")
    if node.inputs[0] not in look.tall or pads is None or len(pads) != 8 or node.inputs[3:] or mode not in ("constant", "edge", "reflect"):
        return None
    before, after, height = pads[ROWS], pads[4 + ROWS], look.height(node.inputs[0])
    if node.opset < 11 or min(before, after) < 0:
        return None
    top, bottom = max(0, before - rows.first), max(0, rows.last - before - height)
    low, high = min(max(0, rows.first - before), height - 1), max(min(height, rows.last - before), 1)
    if mode == "reflect":  # which repeats the rows next to the first and the last
        low, high = min(low, height - 1 - bottom if bottom else low), max(high, top + 1 if top else high)
    pads[ROWS], pads[4 + ROWS] = top, bottom
    makes = Rows(low + before - top, high + before + bottom)
    return _with_inputs(node, {1: ("pads", np.array(pads))}, makes, Rows(low, high))


def _resized(node: Node, look: Look, rows: Rows, has: Rows | None) -> Piece | None:
    height, length = look.height(node.inputs[0]), look.height(node.outputs[0])
    factor, rest = divmod(length, height)
    mode, upsample = node.attributes.get("mode", "nearest"), node.operator == "Upsample"
    where = str(node.attributes.get("coordinate_transformation_mode", "asymmetric" if upsample or node.opset < 11 else "half_pixel"))
    given = [k for k in range(1, len(node.inputs)) if node.inputs[k] and look.shapes.get(node.inputs[k]) != (0,)]
    if rest or node.inputs[0] not in look.tall or "axes" in node.attributes or any(node.inputs[k] not in look.values for k in given):
        return None
    sizes = len(node.inputs) > 3 and 3 in given
    if not sizes:
        scales = [np.asarray(look.values[node.inputs[k]]) for k in given] or [np.asarray(node.attributes.get("scales", ()))]
        if scales[-1].size != 4 or scales[-1][ROWS] != factor:
            return None
    if any(node.attributes.get(name, 0) for name in ("antialias", "exclude_outside")) or where == "tf_crop_and_resize":
        return None
    if mode == "nearest":
        if "align" in where:
            return None
        found = nearest(
            positions(where, length, height, factor, (0, 1)),
            str(node.attributes.get("nearest_mode", "floor" if upsample or node.opset < 11 else "round_prefer_floor")),
        )
        if not np.array_equal(np.clip(found, 0, height - 1), np.arange(length) // factor):
            return None
        reach = 0
    elif mode == "cubic" and where in ("half_pixel", "pytorch_half_pixel", "asymmetric") and not factor & (factor - 1):
        reach = 2  # positions are exact for powers of two alone
    else:
        return None
    reads = Rows(max(rows.first // factor - reach, 0), min((rows.last - 1) // factor + 1 + reach, height))
    makes = Rows(reads.first * factor, reads.last * factor)
    if not sizes:
        return Piece(node, makes, {0: reads})
    wanted = np.array(look.values[node.inputs[3]])
    wanted[ROWS] = makes.last - makes.first
    return _with_inputs(node, {3: ("sizes", wanted)}, makes, reads)


def _to_space(node: Node, look: Look, rows: Rows, has: Rows | None) -> Piece | None:
    size = int(node.attributes["blocksize"])  # type: ignore[arg-type]
    reads = Rows(rows.first // size, -(-rows.last // size))
    return Piece(node, Rows(reads.first * size, reads.last * size), {0: reads})


def _to_depth(node: Node, look: Look, rows: Rows, has: Rows | None) -> Piece | None:
    size = int(node.attributes["blocksize"])  # type: ignore[arg-type]
    return Piece(node, rows, {0: Rows(rows.first * size, rows.last * size)})


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(POINTWISE, _pointwise),
    **dict.fromkeys(("Conv", "MaxPool"), _windowed),
    "ArgMax": _along(0),
    "ArgMin": _along(0),
    "Concat": _along(1),
    "ConvTranspose": _transposed,
    "DepthToSpace": _to_space,
    "Pad": _padded,
    "Resize": _resized,
    "Slice": _sliced,
    "Softmax": _along(-1, since=13),
    "SpaceToDepth": _to_depth,
    "Split": _along(0),
    "Upsample": _resized,
}
"""The rule of each operator that runs on strips. onnxruntime rounds average pools and linear interpolation in another way in blocks
of channels than in the layout of the model, and strips change which of them it takes."""
