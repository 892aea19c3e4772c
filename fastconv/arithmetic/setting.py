"""Settings of evaluation, measurement, prediction and bounds: one validation, one set of defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.arithmetic.policy import Policy, policy_named
from fastconv.arithmetic.sums import channel_sum_named
from fastconv.program import parse_order


@dataclass(frozen=True)
class Setting:
    """Settings for evaluating an algorithm.

    The algorithms, one per axis, determine the dimension: see `fastconv.algebra.axes_of`.

    Attributes
    ----------
    policy : Policy
        Formats of the stages.
    order : str
        Order of summation in the transforms.
    channels : int
        Number of channels in the sum.
    channel_sum : str
        ``"linear"``, ``"pairwise"`` or ``"blocked"``.
    """

    policy: Policy
    order: str = "huffman"
    channels: int = 1
    channel_sum: str = "linear"


def setting_of(policy: str | Policy = "fp32", order: str = "huffman", channels: int = 1, channel_sum: str = "linear") -> Setting:
    """Check the options of a public function and return them as a `Setting`.

    Raises
    ------
    TypeError, ValueError
        For unknown names, wrong types, or a count that is not positive.

    Examples
    --------
    >>> setting_of("bf16", channels=64).channels
    64
    """
    check_count("channels", channels)
    parse_order(order)
    channel_sum_named(channel_sum)
    return Setting(policy_named(policy), order, int(channels), channel_sum)


def check_count(name: str, value: Any) -> None:
    """Reject counts that are not positive integers."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: pass a positive integer")
    if value < 1:
        raise ValueError(f"{name} is {value}: pass a positive integer")
