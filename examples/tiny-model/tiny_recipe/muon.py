"""Muon in float32: momentum whose steps are made orthogonal, for all matrices of one shape at once.

The optimizer of the same name in torch.optim works in bfloat16, which is slow where the processor has no unit for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM, WEIGHT_DECAY = 0.95, 0.05
QUINTIC = (3.4445, -4.7750, 2.0315)  # pulls all singular values towards one
ROUNDS = 5
LIKE_ADAM = 0.2  # the root mean square of a step, in rates: that of AdamW


class Muon(torch.optim.Optimizer):
    """For matrices only; `rate` is comparable to that of AdamW."""

    def __init__(self, matrices: Iterable[nn.Parameter], rate: float) -> None:
        super().__init__(matrices, {"lr": rate})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # none is ever given
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                alike[tuple(sorted(matrix.shape))].append(matrix)
            for matrices in alike.values():
                steps = orthogonal(torch.stack([wide(self.direction(matrix)) for matrix in matrices]))
                for matrix, step in zip(matrices, steps, strict=True):
                    size = LIKE_ADAM * max(matrix.shape) ** 0.5
                    matrix.mul_(1 - group["lr"] * WEIGHT_DECAY)
                    matrix.add_(step if matrix.shape == step.shape else step.T, alpha=-group["lr"] * size)

    def direction(self, matrix: nn.Parameter) -> Tensor:
        """The gradient with Nesterov momentum."""
        assert matrix.grad is not None
        momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
        momentum.lerp_(matrix.grad, 1 - MOMENTUM)
        return torch.lerp(matrix.grad, momentum, MOMENTUM)


def wide(matrix: Tensor) -> Tensor:
    """The matrix, or its transpose if that is wider."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def orthogonal(x: Tensor) -> Tensor:
    """The nearest orthogonal matrices (about), by Newton-Schulz iteration; `x` is matrices x rows x columns."""
    a, b, c = QUINTIC
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
