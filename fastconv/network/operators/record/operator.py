"""The record of an operator: definition, compiled form and traits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from fastconv.network.graph.graph import Array, Attribute, Node
from fastconv.network.operators.call import Call, Definition, rounded_once
from fastconv.network.operators.record.place import Compiled
from fastconv.network.operators.window import Planar

Slopes = Callable[[Node, Mapping[str, Array], "int | None"], "tuple[Any, float, float] | None"]
"""``activation(node, constants, channels)`` returns slope below zero, lower and upper bound, or None for other nodes.

`channels` is the length of the second axis of a tensor of rank 4, along which a slope may differ, else None.
"""
Narrow = Literal["rounded", "uniform", "own"]
"""How formats of less than 32 bits are computed: in float32 and rounded once; likewise, with one type for all inputs; or by the
definition, which only moves numbers or rounds by itself."""

Pointwise = Literal["", "elements", "curve", "follower"]
"""Whether each value of the result depends only on values at the same position: of all inputs, broadcast ("elements"); of the first
input, with a result of its type and further inputs as parameters ("curve"); likewise, and the error of a convolution is measured
after it ("follower")."""


@dataclass(frozen=True)
class Weights:
    """How an operator multiplies by constant weights, its second input.

    Attributes
    ----------
    terms : callable
        ``terms(node, weight)`` returns the multiply-adds per output value, or per input value if `per_input`.
    per_input : bool
        Whether terms are per value of the first input.
    channels : callable, optional
        ``channels(node, weight)`` returns the number of output channels.
    scaled : callable, optional
        ``scaled(node, weight, factor)`` returns the weights scaled by a factor per output channel, or None if the shapes do
        not fit. Without it no normalisation is folded.
    bias_broadcasts : bool
        Whether the third input may be a number or a row, not only one number per channel.
    """

    terms: Callable[[Node, Array], int]
    per_input: bool = False
    channels: Callable[[Node, Array], int] | None = None
    scaled: Callable[[Node, Array, Array], Array | None] | None = None
    bias_broadcasts: bool = False


@dataclass(frozen=True)
class Blocks:
    """How an operator runs on the channels-blocked layout.

    Attributes
    ----------
    serves : callable
        ``serves(node, constants)`` returns whether the node may read and write that layout.
    shape : callable, optional
        ``shape(call, shape)`` returns the output's shape in the layout of the model, for an operator that uses the blocked
        layout wherever its readers do. Without it the layer's method decides.
    """

    serves: Callable[[Node, Mapping[str, Array]], bool]
    shape: Callable[[Call, tuple[int, ...]], tuple[int, ...]] | None = None


@dataclass(frozen=True)
class Operator:
    """The definition, compiled form and traits of an operator. An omitted trait claims nothing.

    Attributes
    ----------
    name : str
        Name in the ONNX standard.
    definition : callable
        ``definition(call, *inputs)`` in numpy returns an array or a tuple of arrays, and does not write to its inputs.
    narrow : {"rounded", "uniform", "own"}
        How formats of less than 32 bits are computed, see `run`.
    compiled : callable, optional
        The compiled form, for non-empty floating-point first inputs; it may decline.
    same_bits : bool
        Whether the compiled form gives the bits of the definition, up to the sign of zeros.
    pointwise : {"", "elements", "curve", "follower"}
        Whether each value of the result depends only on values at the same position. Each level includes those before it.
    steady : bool
        Whether onnxruntime rounds a result alike wherever in a tensor it is stored: strips of a network may hold it. onnxruntime
        rounds Elu, for example, in another way in the last values of a row, which do not fill a vector.
    activation : callable, optional
        Slope and bounds of the node as a piecewise linear function, which fuses into the preceding node.
    takes_activation : bool
        Whether an activation fuses into it; its result is then a new array.
    stores : bool
        Whether it represents numbers as a model file stores them; it is computed at load time, in every policy.
    weights : Weights, optional
        How it multiplies by constant weights; its plans are cached.
    plane : callable, optional
        ``plane(call, x, weight, bias)`` checks the inputs and returns the operator as a convolution of padded images, which
        precision policies emulate.
    blocks : Blocks, optional
        How it runs on the channels-blocked layout.
    types : tuple of str
        Names of attributes that are element types.
    retyped : callable, optional
        ``retyped(attributes, kind)`` returns the attributes for an output of type `kind` instead of another float.

    Examples
    --------
    >>> double = Operator("Double", lambda call, x: x + x, narrow="uniform")
    >>> double.run(Call({}, 17), np.array([1.5, 20000], np.float16)).tolist()
    [3.0, 40000.0]
    """

    name: str
    definition: Definition
    _: KW_ONLY
    narrow: Narrow = "rounded"
    compiled: Compiled | None = None
    same_bits: bool = True
    pointwise: Pointwise = ""
    steady: bool = False
    activation: Slopes | None = None
    takes_activation: bool = False
    stores: bool = False
    weights: Weights | None = None
    plane: Callable[[Call, Array, Array, Array | None], Planar] | None = None
    blocks: Blocks | None = None
    types: tuple[str, ...] = ()
    retyped: Callable[[Mapping[str, Attribute], np.dtype[Any]], Mapping[str, Attribute]] | None = None

    @property
    def curve(self) -> bool:
        """Whether it maps each value of the first input to one of the same type."""
        return self.pointwise in ("curve", "follower")

    @property
    def follower(self) -> bool:
        """Whether the error of a convolution is measured after it."""
        return self.pointwise == "follower"

    def run(self, call: Call, *inputs: Array | None) -> Any:
        """Run the definition, with narrow formats in float32 unless `narrow` is "own"."""
        if self.narrow == "own":
            return self.definition(call, *inputs)
        return rounded_once(self.definition, self.narrow == "uniform")(call, *inputs)


def joined(*parts: Iterable[Operator]) -> Mapping[str, Operator]:
    """Return a table of records by name; raise ValueError for a repeated name.

    Examples
    --------
    >>> same = Operator("Same", lambda call, x: x, pointwise="follower")
    >>> joined([same])["Same"].follower
    True
    >>> joined([same], [same])
    Traceback (most recent call last):
    ValueError: the operator Same has two records; keep one
    """
    table: dict[str, Operator] = {}
    for operator in (operator for part in parts for operator in part):
        if operator.name in table:
            raise ValueError(f"the operator {operator.name} has two records; keep one")
        table[operator.name] = operator
    return MappingProxyType(table)
