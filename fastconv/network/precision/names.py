"""Names of the precision policies of networks, and the scaling that some of them ask for."""

from __future__ import annotations

from dataclasses import dataclass

from fastconv.arithmetic import Policy, policy_named


@dataclass(frozen=True)
class Scales:
    """Exponents of two: the input is multiplied by ``2**input``, the kernels by ``2**kernel``, the output by the inverse."""

    input: int = 0
    kernel: int = 0


BALANCED = "-balanced"
"""What the name of a policy ends with where rows are balanced and layers scaled."""


def split_policy(policy: str | Policy) -> tuple[Policy, bool]:
    """Return the policy of a name, and whether the name asks for balanced rows and scaled layers.

    Raises
    ------
    ValueError
        For an unknown name, or a policy whose data are not held by float32.

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
