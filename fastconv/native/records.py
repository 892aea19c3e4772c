"""Records: what compiled code is told, integers by name.

Compiled code reads ``d.name``, a fixed offset, several times faster than an index of an array. Who describes a job to it gives the
same names, so no value can be left out or change places with another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def record(*names: str) -> np.dtype[Any]:
    """Return the layout of a record: 64-bit integers by name, in this order."""
    return np.dtype([(name, np.int64) for name in names])


def described(layout: np.dtype[Any], **values: int) -> npt.NDArray[Any]:
    """Return a record as an array without axes; ``array["name"]`` reads and writes a value.

    Parameters
    ----------
    layout : dtype
        The record, see `record`.
    **values : int
        One for each of its names.

    Raises
    ------
    TypeError
        If a name is missing or is none of the record.

    Examples
    --------
    >>> described(record("rows", "columns"), columns=3, rows=2)
    array((2, 3), dtype=[('rows', '<i8'), ('columns', '<i8')])
    """
    return np.array(ordered(layout, values), layout)


def ordered(layout: np.dtype[Any], values: Mapping[str, int]) -> tuple[int, ...]:
    """Return the values of a record in the order of its names; a name too few or too many raises as in `described`."""
    names: tuple[str, ...] = layout.names or ()
    if len(values) != len(names) or not all(name in values for name in names):
        missing, unknown = sorted({*names} - {*values}), sorted({*values} - {*names})
        raise TypeError(f"a record lacks {missing} and has no {unknown}: pass one value for each of {', '.join(names)}")
    return tuple(values[name] for name in names)
