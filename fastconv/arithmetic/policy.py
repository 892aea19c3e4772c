"""Precision policies: the number format of each stage of a layer."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fastconv.exact import FORMATS, Format, format_named


@dataclass(frozen=True)
class Policy:
    """Formats of the stages of a fast convolution; give names or `Format` objects.

    Attributes
    ----------
    kernel, input : Format
        Format of the transforms G w and BT x.
    product : Format
        Format of the element-wise product.
    accumulate : Format
        Format of the sums over channels.
    output : Format
        Format of the output transform and of its result.
    operands : Format, optional
        Format in which transformed tensors are stored and multiplied; that of `product` by default.
    data : Format, optional
        Format of the layer's input and weights; that of `operands` by default.
    constants : Format, optional
        Format of the matrix entries; by default that of their stage.

    Examples
    --------
    >>> Policy("fp32", "fp32", "fp32", "fp32", "fp32", operands="fp16").data.name
    'fp16'
    """

    kernel: Format
    input: Format
    product: Format
    accumulate: Format
    output: Format
    operands: Format = None  # type: ignore[assignment]
    data: Format = None  # type: ignore[assignment]
    constants: Format | None = None

    def __init__(
        self,
        kernel: str | Format,
        input: str | Format,
        product: str | Format,
        accumulate: str | Format,
        output: str | Format,
        operands: str | Format | None = None,
        data: str | Format | None = None,
        constants: str | Format | None = None,
    ) -> None:
        operands = operands or product
        given = {
            "kernel": kernel,
            "input": input,
            "product": product,
            "accumulate": accumulate,
            "output": output,
            "operands": operands,
            "data": data or operands,
            "constants": constants,
        }
        for name, value in given.items():
            object.__setattr__(self, name, None if value is None else format_named(value))

    def __str__(self) -> str:
        return policy_name(self) or ", ".join(f"{f.name} {v.name}" for f in fields(self) if (v := getattr(self, f.name)))


def _stored(name: str, data: str) -> Policy:
    return Policy("fp32", "fp32", "fp32", "fp32", "fp32", operands=name, data=data)


POLICIES: dict[str, Policy] = {
    **{name: Policy(name, name, name, name, name) for name in FORMATS},
    "mixed": Policy("fp64", "fp64", "fp32", "fp32", "fp64", constants="fp32"),
    "fp16-fp32": _stored("fp16", "fp16"),
    "bf16-fp32": _stored("bf16", "bf16"),
    "tf32-fp32": _stored("tf32", "fp32"),
}
"""Policies by name.

- A format's name: every stage uses it.
- ``"mixed"``: transforms in fp64 from fp32 matrices, products and their sums in fp32 (Barabasz et al. 2020, section 5.4).
- ``"fp16-fp32"`` and similar, as in matrix units: transformed tensors are stored in the first format, all is computed in fp32.
"""


def policy_named(policy: str | Policy) -> Policy:
    """Return the policy of that name, or the policy itself.

    Raises
    ------
    ValueError
        Lists the known policies.

    Examples
    --------
    >>> policy_named("mixed").kernel.name
    'fp64'
    """
    if isinstance(policy, Policy):
        return policy
    found = POLICIES.get(policy) if isinstance(policy, str) else None
    if found is None:
        raise ValueError(f"unknown policy {policy!r}: the policies are {', '.join(POLICIES)}, or a Policy of your own")
    return found


def policy_name(policy: Policy) -> str | None:
    """Return the name of a policy, None if it has none."""
    return next((name for name, p in POLICIES.items() if p == policy), None)
