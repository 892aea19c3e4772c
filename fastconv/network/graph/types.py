"""Element types of ONNX as numpy types, tensors of the types that numpy lacks, and the schemas of operators."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.network.graph.graph import Array

NARROW = {16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4"}
NARROW |= {23: "float4_e2m1fn", 24: "float8_e8m0fnu", 25: "uint2", 26: "int2"}
"""ONNX element types that numpy lacks, by ml_dtypes' names. Releases of onnx before 1.19 call them float32."""
_CODES = {name: code for code, name in NARROW.items()}


def code_of(dtype: np.dtype[Any]) -> int:
    """Return the ONNX element type of a numpy type; an object is a string.

    Examples
    --------
    >>> code_of(np.dtype(np.float32)), code_of(np.dtype(object))
    (1, 8)
    """
    import onnx

    return _CODES[dtype.name] if dtype.name in _CODES else int(onnx.helper.np_dtype_to_tensor_dtype(dtype))


def dtype_of(code: int) -> np.dtype[Any]:
    """Return the numpy type of an ONNX element type, object for text; ValueError for an unknown code."""
    import onnx

    if code in NARROW:
        import ml_dtypes

        if not hasattr(ml_dtypes, NARROW[code]):
            raise ValueError(f"tensors of {NARROW[code]} are not supported by the installed ml_dtypes; a newer release has the type")
        narrow: np.dtype[Any] = np.dtype(getattr(ml_dtypes, NARROW[code]))
        return narrow
    try:
        dtype: np.dtype[Any] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(code)))
    except KeyError:
        raise ValueError(f"{code} is not a type of tensor elements") from None
    return dtype


def narrow_array(tensor: Any, dtype: np.dtype[Any]) -> Array:
    """Return a tensor of bfloat16, or of a type of 8 bits or fewer, as an array.

    Parameters
    ----------
    tensor : onnx.TensorProto
        Its values are in `raw_data`, or in `int32_data` with one word or one packed byte per entry.
    dtype : dtype
        The type of ml_dtypes that the tensor has.

    Raises
    ------
    ValueError
        If the number of values is not that of the shape.

    Examples
    --------
    >>> import ml_dtypes
    >>> from onnx import TensorProto
    >>> tensor = TensorProto(data_type=TensorProto.INT4, dims=[3], raw_data=bytes([0x21, 0x0F]))
    >>> narrow_array(tensor, np.dtype(ml_dtypes.int4)).tolist()
    [1, 2, -1]
    """
    words = np.dtype(f"<u{dtype.itemsize}")
    packed = np.frombuffer(tensor.raw_data, words) if tensor.HasField("raw_data") else np.array(tensor.int32_data, np.int32).astype(words)
    size, parts = int(np.prod(tensor.dims)), _parts(dtype)
    if packed.size != -(-size // parts):
        raise ValueError(f"{packed.size} words for {size} values")
    if parts > 1:  # the first value is in the lowest bits
        bits = 8 // parts
        packed = (packed[:, None] >> np.arange(0, 8, bits, dtype=np.uint8) & (1 << bits) - 1).astype(words).reshape(-1)[:size]
    return packed.astype(words.newbyteorder("=")).view(dtype).reshape(tuple(tensor.dims))


def packed(array: Array) -> bytes:
    """Return the bytes that ONNX stores for an array of such a type; the inverse of `narrow_array`.

    Examples
    --------
    >>> import ml_dtypes
    >>> packed(np.array([1, 2, -1], ml_dtypes.int4)).hex()
    '210f'
    """
    parts, codes = _parts(array.dtype), np.ascontiguousarray(array).reshape(-1).view(f"<u{array.dtype.itemsize}")
    if parts == 1:
        return codes.tobytes()
    bits = 8 // parts
    rows = np.pad(codes & (1 << bits) - 1, (0, -codes.size % parts)).reshape(-1, parts)
    words: Array = np.bitwise_or.reduce(rows << np.arange(0, 8, bits, dtype=np.uint8), axis=1)
    return words.astype(np.uint8).tobytes()


class Schema(NamedTuple):
    """What the standard says of an operator: onnx's own record, and its attributes by name, of which onnx makes copies."""

    record: Any
    attributes: Mapping[str, Any]


@cache
def schema_of(operator: str, opset: int, domain: str = "") -> Schema:
    """Return what the standard says of an operator.

    Raises
    ------
    onnx.defs.SchemaError
        If it does not know the operator.

    Examples
    --------
    >>> sorted(schema_of("Softmax", 17).attributes)
    ['axis']
    """
    import onnx

    record = onnx.defs.get_schema(operator, opset, domain)
    return Schema(record, dict(record.attributes))


def is_packed(dtype: np.dtype[Any]) -> bool:
    """Tell whether ONNX stores several numbers of a type in a byte."""
    return _parts(dtype) > 1


def _parts(dtype: np.dtype[Any]) -> int:
    """Return the values in a byte; 1 for types of a byte or more."""
    name = dtype.name
    return 4 if name.endswith("int2") else 2 if name.endswith("int4") or name.startswith("float4") else 1
