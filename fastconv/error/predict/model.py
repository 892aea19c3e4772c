"""Predict the error of an algorithm from its programs, without trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.algebra import BilinearAlgorithm, axes_of
from fastconv.arithmetic import Policy, Setting, setting_of
from fastconv.error.measure.evaluate import Axes
from fastconv.error.predict.moments import MOMENTS, Moments
from fastconv.error.predict.variances import Model
from fastconv.exact import rounded, to_text
from fastconv.tables import Shown, Table

Array = npt.NDArray[Any]

LARGEST = 0.25
"""Relative error up to which errors are small compared with the results, as the closed form assumes."""


@dataclass(frozen=True)
class Prediction(Shown):
    """The predicted error.

    Attributes
    ----------
    rms, mean_abs : float
        Root mean square and mean of ``|y - y_ref|``, over inputs and outputs.
    relative_l2 : float
        `rms` over the root mean square of the exact result.
    shares : dict
        Share of each source in ``rms**2``: the stages ``"kernel"``, ``"input"``, ``"product"``, ``"sum"`` (over
        channels), ``"output"``, and ``"constants"``, the matrix entries that the format does not hold.
    rms_of_outputs : tuple
        Root mean square of each output, row by row.
    small : bool
        Whether the errors are small compared with the results: `relative_l2` is at most 1/4. Above that the prediction is an
        upper estimate: in formats of three or four bits with many channels up to 50 % too large, more if all digits are lost.
    """

    rms: float
    mean_abs: float
    relative_l2: float
    shares: dict[str, float] = field(hash=False)
    rms_of_outputs: tuple[float, ...] = field(repr=False)

    @property
    def small(self) -> bool:
        """Whether the errors are small compared with the results."""
        return self.relative_l2 <= LARGEST

    def tables(self) -> tuple[Table, ...]:
        """Return the errors, and the share of each source in their square."""
        names = ("rms", "mean_abs", "relative_l2")
        errors = tuple((name, f"{getattr(self, name):.4g}") for name in names)
        notes = () if self.small else ("the errors are as large as the results: the prediction is an upper estimate",)
        return Table(("", "predicted"), errors, notes=notes), Table(
            ("source", "share"), tuple((name, f"{share:.1%}") for name, share in self.shares.items())
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()} | {"small": self.small}


def predict_error(
    alg: Axes,
    dims: int | None = None,
    policy: str | Policy = "fp32",
    order: str = "huffman",
    channels: int = 1,
    channel_sum: str = "linear",
    inputs: str | Moments = "uniform",
) -> Prediction:
    """Predict the error of an algorithm on random tiles, in closed form.

    Parameters
    ----------
    alg : BilinearAlgorithm, str or pair of BilinearAlgorithm
        F(m, r) along all axes; a name; or one along the height and one along the width.
    dims : {1, 2}, optional
        Dimension: that of the name or the pair, one for one algorithm.
    policy : str or Policy
        Formats of the stages.
    order : str
        Order of summation in the transforms, as for `measure_error`.
    channels : int
        Channels summed over.
    channel_sum : str
        ``"linear"``, ``"pairwise"`` or ``"blocked"``.
    inputs : str or Moments
        ``"uniform"``, ``"normal"``, or the moments of your own inputs.

    Returns
    -------
    Prediction

    Raises
    ------
    TypeError, ValueError
        For wrong types, unknown names, counts that are not positive, or matrix entries beyond the range of a format.

    Notes
    -----
    Each rounding of each distinct value of the three programs adds an error of known mean square
    (see `fastconv.error.predict.rounding`). It reaches the outputs through the exact linear map that follows. The
    matrices determine the correlation of that map's random coefficients: transformed inputs for an error in G w, kernels
    for one in BT x. Rounded matrix entries have the same error each time, so they perturb the whole bilinear map. Overflow
    is not predicted. Errors are assumed small compared with the rounded values: see `Prediction.small`.

    Examples
    --------
    >>> from fastconv import toom_cook
    >>> prediction = predict_error(toom_cook(2, 3, [0, 1, -1, "inf"]))
    >>> 2.7e-8 < prediction.mean_abs < 3.1e-8
    True
    """
    axes, setting = axes_of(alg, dims), setting_of(policy, order, channels, channel_sum)
    for one in axes:
        check_range(one, setting.policy)
    if isinstance(inputs, str) and inputs in MOMENTS:
        moments = MOMENTS[inputs]
    elif isinstance(inputs, Moments):
        moments = inputs
    else:
        raise ValueError(f"inputs is {inputs!r}: pass one of {', '.join(MOMENTS)}, or your own Moments")
    model = Model(axes, setting, moments)
    found = model.variances()
    shape, mean = model.shape(found), float(found.total.mean())
    return Prediction(
        rms=math.sqrt(mean),
        mean_abs=math.sqrt(2 / math.pi) * float((np.sqrt(found.total) * shape).mean()),
        relative_l2=model.relative(mean),
        shares={name: float(part.mean()) / mean if mean else 0.0 for name, part in found.parts.items()},
        rms_of_outputs=tuple(np.sqrt(found.total).ravel().tolist()),
    )


def relative_error(axes: Sequence[BilinearAlgorithm], setting: Setting, moments: Moments) -> float:
    """Return ``predict_error(...).relative_l2`` alone, which skips the slow shape of the distribution."""
    model = Model(axes, setting, moments)
    return model.relative(float(model.variances().total.mean()))


def check_range(alg: BilinearAlgorithm, policy: Policy) -> None:
    """Reject an algorithm with matrix entries beyond the range of a format."""
    for name, matrix, fmt in (("AT", alg.AT, policy.output), ("G", alg.G, policy.kernel), ("BT", alg.BT, policy.input)):
        held = policy.constants or fmt
        for i, row in enumerate(matrix):
            for j, e in enumerate(row):
                if not math.isfinite(rounded(e, held)):
                    entry, largest = f"{name}[{i}][{j}] = {to_text(e)}", float(held.largest)
                    raise ValueError(
                        f"{entry} is beyond the largest number of {held.name}, {largest:g}: scale the algorithm, or use a wider format"
                    )
