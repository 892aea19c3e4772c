"""Number formats on arrays: rounding, precision policies, channel sums."""

from fastconv.arithmetic.arrays import apply, array_reading
from fastconv.arithmetic.policy import POLICIES, Policy, policy_named
from fastconv.arithmetic.rounding import carrier, fused, round_to, two_product, two_sum
from fastconv.arithmetic.setting import Setting, check_count, setting_of
from fastconv.arithmetic.sums import BLOCK, CHANNEL_SUMS, channel_sum_named

__all__ = [
    "BLOCK",
    "CHANNEL_SUMS",
    "POLICIES",
    "Policy",
    "Setting",
    "apply",
    "array_reading",
    "carrier",
    "channel_sum_named",
    "check_count",
    "fused",
    "policy_named",
    "round_to",
    "setting_of",
    "two_product",
    "two_sum",
]
