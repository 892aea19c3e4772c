"""Read tensors of types that numpy lacks. Releases of onnx before 1.19 convert them to float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.network.graph.graph import Array


def narrow_array(tensor: Any, dtype: np.dtype[Any]) -> Array:
    """Return a tensor of bfloat16, or of a type of 8 bits or fewer, as an array.

    Parameters
    ----------
    tensor : onnx.TensorProto
        Its values are in `raw_data`, or in `int32_data` with one word or one packed byte per entry.
    dtype : dtype
        The tensor's type in ml_dtypes.

    Raises
    ------
    ValueError
        If the number of values does not match the shape.

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


def _parts(dtype: np.dtype[Any]) -> int:
    """Return the values per byte; 1 for types of a byte or more."""
    name = dtype.name
    return 4 if name.endswith("int2") else 2 if name.endswith("int4") or name.startswith("float4") else 1
