"""Records: named integers that describe a job to compiled code.

Compiled code reads ``d.name`` at a fixed offset, several times faster than an array index. The caller passes values by the same
names, so none can be missing or swapped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def record(*names: str) -> np.dtype[Any]:
    """Return the dtype of a record: 64-bit integers by name, in this order."""
    return np.dtype([(name, np.int64) for name in names])


def described(layout: np.dtype[Any], **values: int) -> npt.NDArray[Any]:
    """Return a filled record as a 0-d array; ``array["name"]`` reads and writes a value.

    Parameters
    ----------
    layout : dtype
        The record, see `record`.
    **values : int
        One value for each name.

    Raises
    ------
    TypeError
        If a name is missing or unknown.

    Examples
    --------
    >>> described(record("rows", "columns"), columns=3, rows=2)
    array((2, 3), dtype=[('rows', '<i8'), ('columns', '<i8')])
    """
    names = layout.names or ()
    if missing := sorted({*names} - {*values}):
        raise TypeError(f"the record lacks {', '.join(missing)}: pass one value for each of {', '.join(names)}")
    if unknown := sorted({*values} - {*names}):
        raise TypeError(f"the record has no {', '.join(unknown)}: pass one value for each of {', '.join(names)}")
    return np.array(tuple(values[name] for name in names), layout)
