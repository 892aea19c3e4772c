"""Options of a converted layer, as text for PyTorch operators and saved modules."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastconv.algebra import BilinearAlgorithm
from fastconv.arithmetic import Policy
from fastconv.network.run import Choice, resolved
from fastconv.search.points import policy_data, policy_from


@dataclass(frozen=True)
class How:
    """Options of a converted layer.

    Attributes
    ----------
    algorithm : str, BilinearAlgorithm or a pair of them
        As in `convert`.
    threads : int, optional
        One per available CPU if None.
    policy : str or Policy, optional
        Precision policy to emulate; None for the kernels.
    channel_sum : str
        Order of an emulated convolution's sum over channels.
    frozen : bool
        Whether the weights do not change after the first call.
    """

    algorithm: Choice
    threads: int | None = None
    policy: str | Policy | None = None
    channel_sum: str = "linear"
    frozen: bool = False

    def text(self) -> str:
        """Return the options as JSON.

        Examples
        --------
        >>> text = How("F(4x4,3x3)", threads=2).text()
        >>> text
        '{"algorithm": "F(4x4,3x3)", "threads": 2, "policy": null, "channel_sum": "linear", "frozen": false}'
        >>> how_of(text).algorithm.m
        4
        """
        axes = self.algorithm if isinstance(self.algorithm, tuple) else (self.algorithm,)
        algorithm = [json.loads(axis.to_json()) for axis in axes if isinstance(axis, BilinearAlgorithm)] or self.algorithm
        policy = policy_data(self.policy) if isinstance(self.policy, Policy) else self.policy
        return json.dumps(vars(self) | {"algorithm": algorithm, "policy": policy})


@lru_cache(maxsize=1024)
def how_of(text: str) -> How:
    """Return the options from the text of `How.text`, with the algorithm resolved from its name."""
    data: dict[str, Any] = json.loads(text)
    algorithm, policy = data["algorithm"], data["policy"]
    if isinstance(algorithm, list):
        axes = tuple(BilinearAlgorithm.from_json(json.dumps(axis)) for axis in algorithm)
        algorithm = axes if len(axes) > 1 else axes[0]
    policy = policy_from(policy) if isinstance(policy, list) else policy
    return How(**data | {"algorithm": resolved(algorithm), "policy": policy})
