"""Muon (K. Jordan, 2024) for the convolution matrices, AdamW for everything else, and a running mean of the
weights.
"""

from typing import Any

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
_MUON_DECAY = 0.05


def _orthogonal(gradient: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix of each `(..., rows, columns)`, by five Newton-Schulz steps."""
    x = gradient / (gradient.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


def _turns(gradients: list[Tensor]) -> list[Tensor]:
    """`_orthogonal` of each. On a GPU all of one shape at once: a launch costs more than so small a product."""
    if gradients[0].device.type == "cpu":
        return [_orthogonal(gradient) for gradient in gradients]
    alike: dict[torch.Size, list[int]] = {}
    for place, gradient in enumerate(gradients):
        alike.setdefault(gradient.shape, []).append(place)
    turns = list(gradients)
    for places in alike.values():
        together = _orthogonal(torch.stack([gradients[place] for place in places]))
        for place, turn in zip(places, together.unbind(), strict=True):
            turns[place] = turn
    return turns


class Optimizer:
    """Steps all parameters of `modules`; both learning rates are scaled by one factor per step."""

    def __init__(self, network: nn.Module, extra: nn.Module, *, lr: float, muon_lr: float) -> None:
        self._muon_lr, self._lr = muon_lr, lr
        self.parameters = [*network.parameters(), *extra.parameters()]
        self._matrices = [
            p for n, p in network.named_parameters() if p.ndim == 4 and p.shape[1] > 1 and "predict" not in n
        ]
        theirs = {id(p) for p in self._matrices}
        rest = [p for p in self.parameters if id(p) not in theirs]
        self._adam = torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim == 4], "weight_decay": 0.02},
                {"params": [p for p in rest if p.ndim != 4], "weight_decay": 0.0},
            ],
            lr=lr,
            betas=(0.9, 0.99),
        )
        self._momenta = [torch.zeros_like(p) for p in self._matrices]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One step at `factor` times the learning rates."""
        for group in self._adam.param_groups:
            group["lr"] = self._lr * factor
        self._adam.step()
        rate = self._muon_lr * factor
        gradients = [p.grad for p in self._matrices if p.grad is not None]
        torch._foreach_lerp_(self._momenta, gradients, 1 - _MOMENTUM)
        ahead = torch._foreach_lerp(gradients, self._momenta, _MOMENTUM)
        turns = _turns([gradient.flatten(1) for gradient in ahead])
        torch._foreach_mul_(self._matrices, 1 - rate * _MUON_DECAY)
        for p, turn in zip(self._matrices, turns, strict=True):
            p.add_(turn.view_as(p), alpha=-rate * max(1.0, p.shape[0] / p[0].numel()) ** 0.5)

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self._adam.state_dict(), "momenta": self._momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adam.load_state_dict(state["adam"])
        for own, saved in zip(self._momenta, state["momenta"], strict=True):
            own.copy_(saved)


@torch.no_grad()
def follow(mean: nn.Module, network: nn.Module, step: int) -> None:
    """Move `mean` towards `network`: an exponential mean over about 1,000 steps, fewer at the start."""
    keep = min(0.999, (1 + step) / (20 + step))
    pairs = list(zip(mean.state_dict().values(), network.state_dict().values(), strict=True))
    real = [pair for pair in pairs if pair[0].dtype.is_floating_point]
    torch._foreach_lerp_([slow for slow, _ in real], [fast for _, fast in real], 1 - keep)
    for slow, fast in pairs:
        if not slow.dtype.is_floating_point:
            slow.copy_(fast)
