"""Depthwise convolution whose gradients are fast on a CPU in bfloat16.

oneDNN has no fast bfloat16 kernel for two of them: the weights of 5 x 5 kernels (20 to 30 times slower than its 3 x 3
one) and the input at stride 2. Both are put together here from calls that are fast; what is computed is the same.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TILE = 3  # the kernel that has a fast weight gradient


class Depthwise(nn.Conv2d):
    """`nn.Conv2d` with one group per channel; under autocast on a CPU with the gradients below."""

    def forward(self, input: Tensor) -> Tensor:
        if not (input.device.type == "cpu" and torch.is_autocast_enabled("cpu") and self.training):
            return super().forward(input)
        kind = torch.get_autocast_dtype("cpu")
        result: Tensor = _Convolved.apply(input.to(kind), self.weight.to(kind), self.stride[0])
        return result


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        return _to_input(gradient, weight, x, ctx.stride), _to_weight(gradient, x, weight, ctx.stride), None


def _to_input(gradient: Tensor, weight: Tensor, x: Tensor, stride: int) -> Tensor:
    """The gradient spread to the input's grid, then convolved with the turned kernel."""
    if stride > 1:
        spread = torch.zeros_like(x, memory_format=torch.channels_last)
        spread[:, :, ::stride, ::stride] = gradient
        gradient = spread
    return F.conv2d(gradient, weight.flip(2, 3), None, 1, weight.shape[-1] // 2, 1, x.shape[1])


def _to_weight(gradient: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The kernel's gradient in overlapping 3 x 3 tiles, each from the input moved by the tile's place."""
    side = weight.shape[-1]
    rim = side // 2
    padded = F.pad(x, (rim, rim, rim, rim)) if side > _TILE else x
    places = range(0, side - _TILE + 1, _TILE - 1)
    result = torch.empty_like(weight)
    tile = weight[:, :, :_TILE, :_TILE].contiguous()
    inner = 0 if side > _TILE else rim
    reach = [stride * (length - 1) + _TILE for length in gradient.shape[-2:]]
    for top in places:
        for left in places:
            part = padded
            if side > _TILE:
                part = padded[:, :, top : top + reach[0], left : left + reach[1]]
                part = part.contiguous(memory_format=torch.channels_last)
            result[:, :, top : top + _TILE, left : left + _TILE] = torch.ops.aten.convolution_backward(
                gradient,
                part,
                tile,
                None,
                [stride] * 2,
                [inner] * 2,
                [1, 1],
                False,
                [0, 0],
                x.shape[1],
                [False, True, False],
            )[1]
    return result
