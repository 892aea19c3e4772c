"""Names of the precision policies of networks, and the scaling of the balanced ones."""

from __future__ import annotations

from dataclasses import dataclass

from fastconv.arithmetic import Policy, policy_named


@dataclass(frozen=True)
class Scales:
    """Exponents of two that scale the input and the kernels; the output is unscaled."""

    input: int = 0
    kernel: int = 0


BALANCED = "-balanced"
"""Suffix of a policy's name for balanced rows and scaled layers."""


def split_policy(policy: str | Policy) -> tuple[Policy, bool]:
    """Return the policy of a name, and whether the name ends in "-balanced".

    Raises
    ------
    ValueError
        For an unknown name, or a policy whose data do not fit in float32.

    Examples
    --------
    >>> split_policy("fp16-balanced")[1], split_policy("mixed")[1]
    (True, False)
    """
    balanced = isinstance(policy, str) and policy.endswith(BALANCED)
    found = policy_named(policy.removesuffix(BALANCED) if isinstance(policy, str) else policy)
    if found.data.p > 24:
        raise ValueError(f"the policy {policy} keeps data in {found.data.name}: networks are emulated on float32, use a narrower one")
    return found, balanced
