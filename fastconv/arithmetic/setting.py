"""How an algorithm is evaluated, measured, predicted and bounded: one validation and one set of defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.arithmetic.policy import Policy, policy_named
from fastconv.arithmetic.sums import channel_sum_named
from fastconv.program import parse_order


@dataclass(frozen=True)
class Setting:
    """How an algorithm is evaluated.

    The dimension is that of the algorithms, one along each axis: see `fastconv.algebra.axes_of`.

    Attributes
    ----------
    policy : Policy
        Formats of the stages.
    order : str
        Order of summation in the transforms.
    channels : int
        Channels summed over.
    channel_sum : str
        ``"linear"``, ``"pairwise"`` or ``"blocked"``.
    """

    policy: Policy
    order: str = "huffman"
    channels: int = 1
    channel_sum: str = "linear"


def setting_of(policy: str | Policy = "fp32", order: str = "huffman", channels: int = 1, channel_sum: str = "linear") -> Setting:
    """Check the options of a function of algorithms.

    Raises
    ------
    TypeError, ValueError
        For unknown names, wrong kinds, or a count that is not positive.

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
    """Refuse counts that are no positive integers."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: pass a positive integer")
    if value < 1:
        raise ValueError(f"{name} is {value}: pass a positive integer")
