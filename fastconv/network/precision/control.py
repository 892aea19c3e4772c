"""If, Loop and Scan in numpy: they run the graphs inside a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array, Node, Value

Run = Callable[[str, Sequence[Any]], list[Any]]
"""``run(attribute, inputs)`` runs the graph in an attribute on the inputs that are its own, and returns its outputs."""
_SCAN = 9
"""First opset whose Scan has no axis of batches."""


def is_controlled(node: Node) -> bool:
    """Tell whether `controlled` runs a node."""
    return not node.domain and (node.operator in ("If", "Loop") or node.operator == "Scan" and node.opset >= _SCAN)


def controlled(node: Node, inputs: Sequence[Any], run: Run) -> list[Any]:
    """Run an If, a Loop or a Scan.

    Parameters
    ----------
    node : Node
    inputs : sequence
        Inputs of the operator, None for one that is left out.
    run : callable
        Runs a graph inside the node.

    Returns
    -------
    list
        The outputs.

    Examples
    --------
    >>> from fastconv.network.graph.graph import Graph
    >>> body = Graph("body", (), tuple(Value(name, None, None) for name in ("go", "x", "seen")), {}, ())
    >>> loop = Node("n", "Loop", ("m", "x"), ("y", "all"), {}, 17, graphs={"body": body})
    >>> double = lambda name, inputs: [inputs[1], 2 * inputs[2], inputs[2]]
    >>> controlled(loop, [np.array(3), None, np.array(1.0)], double)
    [np.float64(8.0), array([1., 2., 4.])]
    """
    if node.operator == "If":
        return run("then_branch" if _truth(inputs[0]) else "else_branch", [])
    return _loop(node, inputs, run) if node.operator == "Loop" else _scan(node, inputs, run)


def _truth(value: Any) -> bool:
    return bool(np.asarray(value).reshape(()))


def _loop(node: Node, inputs: Sequence[Any], run: Run) -> list[Any]:
    most, first, *state = inputs
    go, step = first is None or _truth(first), 0
    leaving = node.graphs["body"].outputs[1 + len(state) :]
    seen: list[list[Any]] = [[] for _ in leaving]
    while go and (most is None or step < int(np.asarray(most).reshape(()))):
        again, *found = run("body", [np.array(step, np.int64), np.array(go), *state])
        go, step, state = _truth(again), step + 1, found[: len(state)]
        for rows, row in zip(seen, found[len(state) :], strict=True):
            rows.append(row)
    return [*state, *(_stacked(rows, value, 0) for rows, value in zip(seen, leaving, strict=True))]


def _scan(node: Node, inputs: Sequence[Any], run: Run) -> list[Any]:
    lists = {attribute.name: list(attribute.ints) or attribute.i for attribute in node.proto.attribute if attribute.name != "body"}
    count: Any = lists["num_scan_inputs"]
    state, scanned = list(inputs[:-count]), inputs[-count:]
    leaving = node.graphs["body"].outputs[len(state) :]
    axes, back = lists.get("scan_input_axes") or [0] * count, lists.get("scan_input_directions") or [0] * count
    seen: list[list[Any]] = [[] for _ in leaving]
    length = scanned[0].shape[axes[0]]
    for step in range(length):
        parts = [x.take(length - 1 - step if backwards else step, axis) for x, axis, backwards in zip(scanned, axes, back, strict=True)]
        found = run("body", [*state, *parts])
        state = found[: len(state)]
        for rows, row in zip(seen, found[len(state) :], strict=True):
            rows.append(row)
    axes, back = lists.get("scan_output_axes") or [0] * len(seen), lists.get("scan_output_directions") or [0] * len(seen)
    rows_of = (rows[::-1] if backwards else rows for rows, backwards in zip(seen, back, strict=True))
    return [*state, *(_stacked(rows, value, axis) for rows, value, axis in zip(rows_of, leaving, axes, strict=True))]


def _stacked(rows: list[Any], value: Value, axis: int) -> Array:
    """Return the rows along a new axis; of none, an empty array in the shape that the body declares."""
    if rows:
        return np.stack(rows, axis)
    lengths = [length if isinstance(length, int) else 0 for length in value.shape or ()]
    lengths.insert(axis % (len(lengths) + 1), 0)
    return np.empty(lengths, value.dtype or np.float64)
