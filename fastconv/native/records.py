"""Records: what compiled code is told, integers by name.

Compiled code reads ``d.name``, a fixed offset, several times faster than an index of an array. Who describes a job to it gives the
same names, so no value can be left out or change places with another.
"""

from __future__ import annotations

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
    names = layout.names or ()
    if missing := sorted({*names} - {*values}):
        raise TypeError(f"the record lacks {', '.join(missing)}: pass one value for each of {', '.join(names)}")
    if unknown := sorted({*values} - {*names}):
        raise TypeError(f"the record has no {', '.join(unknown)}: pass one value for each of {', '.join(names)}")
    return np.array(tuple(values[name] for name in names), layout)
