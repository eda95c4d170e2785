"""Depthwise convolution whose gradients are fast on a CPU: in bfloat16, and on maps of a few cells.

oneDNN has no fast bfloat16 kernel for two of them: the weights of 5 x 5 kernels (20 to 30 times slower than its 3 x 3
one) and the input at stride 2. Both are put together here from calls that are fast; what is computed is the same.

On maps no larger than the kernel its gradients are slow in float32 as well: those of 5 x 5 kernels took half of a step
of the second stage. There a channel's convolution is one matrix, made of its kernel: 3 to 4 times faster.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TILE = 3  # the kernel that has a fast weight gradient


class Depthwise(nn.Conv2d):
    """`nn.Conv2d` with one group per channel; in training on a CPU computed as said above."""

    def forward(self, input: Tensor) -> Tensor:
        if not (input.device.type == "cpu" and self.training):
            return super().forward(input)
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            result: Tensor = _Convolved.apply(input.to(kind), self.weight.to(kind), self.stride[0])
        elif input.shape[-1] == input.shape[-2] <= self.weight.shape[-1]:
            result = _multiplied(input, self.weight, self.stride[0])
        else:
            return super().forward(input)
        return result if self.bias is None else result + self.bias[:, None, None]


def _multiplied(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The convolution of square maps without its bias, in channels-last layout."""
    count, channels, side, _ = x.shape
    taps = _taps(side, weight.shape[-1], stride)
    matrices = (weight.flatten(1) @ taps).view(channels, side * side, -1)
    after = -(-side // stride)
    result = torch.bmm(x.permute(1, 0, 2, 3).reshape(channels, count, side * side), matrices)
    result = result.view(channels, count, after, after).permute(1, 0, 2, 3)
    return result.contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=16)
def _taps(side: int, kernel: int, stride: int) -> Tensor:
    """For each place of the kernel (rows) a 1 where it leads from an input cell to an output cell (columns)."""
    before, after = torch.arange(side), torch.arange(-(-side // stride))
    place = before[:, None] - after[None] * stride + kernel // 2  # of the kernel, along one axis
    along = F.one_hot(place.clamp(0, kernel - 1), kernel) * ((place >= 0) & (place < kernel))[..., None]
    return torch.einsum("ipk,jql->klijpq", along, along).reshape(kernel**2, -1).float()


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
