"""Resolve each If of an ONNX graph whose condition is constant."""

from __future__ import annotations

from typing import Any

_MOST = 64
"""Most nested branches; a damaged model may nest without end."""


def settled(graph: Any) -> Any:
    """Return a graph with each If of constant condition replaced by its branch.

    Parameters
    ----------
    graph : onnx.GraphProto
        It is not changed.

    Returns
    -------
    onnx.GraphProto
        The same graph if there is no such If.

    Examples
    --------
    >>> from onnx import TensorProto, helper
    >>> known = helper.make_tensor("c", TensorProto.BOOL, [], [False])
    >>> branches = {}
    >>> for name, operator in (("then_branch", "Relu"), ("else_branch", "Neg")):
    ...     node = helper.make_node(operator, ["x"], ["inside"])
    ...     branches[name] = helper.make_graph([node], name, [], [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)])
    >>> both = helper.make_graph([helper.make_node("If", ["c"], ["y"], **branches)], "g", [], [], [known])
    >>> [(node.op_type, list(node.output)) for node in settled(both).node]
    [('Neg', ['y'])]
    """
    import onnx

    for _ in range(_MOST):
        known = _conditions(graph)
        if not any(node.op_type == "If" and node.input[:1] and node.input[0] in known for node in graph.node):
            return graph
        made = onnx.GraphProto()
        made.CopyFrom(graph)
        del made.node[:]
        for node in graph.node:
            if node.op_type == "If" and node.input[:1] and node.input[0] in known:
                _take(made, node, "then_branch" if known[node.input[0]] else "else_branch")
            else:
                made.node.append(node)
        graph = made
    raise ValueError(f"the model has more than {_MOST} constant branches inside one another")


def _conditions(graph: Any) -> dict[str, bool]:
    """Return the boolean constants with one element, by name."""
    import onnx

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
            tensors |= dict(zip(node.output, values, strict=False))
    return {
        name: bool(onnx.numpy_helper.to_array(tensor).reshape(-1)[0])
        for name, tensor in tensors.items()
        if tensor.data_type == onnx.TensorProto.BOOL and list(tensor.dims) in ([], [1]) and not tensor.external_data
    }


def _take(graph: Any, node: Any, name: str) -> None:
    """Add the nodes and constants of a branch to the graph, with the If's output names."""
    from onnx import helper

    branch = next((attribute.g for attribute in node.attribute if attribute.name == name), None)
    if branch is None or len(branch.output) != len(node.output):
        raise ValueError(f"node {node.name or node.output[0]!r} (If): the branch {name} does not give {len(node.output)} outputs")
    made = {output for inner in branch.node for output in inner.output}
    names = {value.name: given for value, given in zip(branch.output, node.output, strict=True) if value.name in made and given}
    graph.initializer.extend(branch.initializer)
    for inner in branch.node:
        added = graph.node.add()
        added.CopyFrom(inner)
        for ends in (added.input, added.output):
            ends[:] = [names.get(end, end) for end in ends]
    for value, given in zip(branch.output, node.output, strict=True):
        if given and names.get(value.name) != given:  # a tensor from outside, or one that is output twice
            graph.node.append(helper.make_node("Identity", [names.get(value.name, value.name)], [given]))
