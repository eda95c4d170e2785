"""The network: faces and plates in one pass, in two sizes of one family.

A strided convolution stem, depthwise-separable residual stages at strides 4, 8, 16 and 32, a top-down
feature pyramid, and per level a small head with six channels: logits of face and plate, centre offset dx
dy, log w, log h (all in units of the stride).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .depthwise import Depthwise

CLASSES = ("face", "plate")
STRIDES = (8, 16, 32)
NECK = 64  # channels of the pyramid; the teacher's feature maps have as many
MEAN, SCALE = 127.5, 64.0  # of the samples 0..255 that the network is fed
_PRIOR_LOGIT = -4.6  # a score of 0.01: at the start nearly everything is background


@dataclass(frozen=True)
class Size:
    """One member of the family."""

    channels: tuple[int, ...]  # after stride 2, 4, 8, 16, 32
    blocks: tuple[int, ...]  # residual blocks at stride 4, 8, 16, 32
    neck: int = NECK
    head_blocks: int = 2
    kernel: int = 5  # of the depthwise convolutions at strides 16 and 32


SIZES = {
    "fast": Size(channels=(16, 32, 64, 96, 128), blocks=(1, 5, 6, 4)),
    "accurate": Size(channels=(32, 64, 128, 192, 256), blocks=(1, 5, 6, 4), neck=128),
}


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    kind = Depthwise if groups == inputs == outputs and kernel > 1 else nn.Conv2d
    conv = kind(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03))


class Block(nn.Module):
    """Depthwise convolution, pointwise convolution; residual where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = _conv(inputs, inputs, kernel, stride, groups=inputs)
        self.pointwise = _conv(inputs, outputs, 1)
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(x))
        return F.relu_(y.add_(x) if self.residual else y)  # normalisation's gradient needs none of the two

    def be_identity(self) -> None:
        """Let the block pass its (non-negative) input unchanged until training moves it."""
        nn.init.zeros_(self.pointwise[1].weight)
        nn.init.zeros_(self.pointwise[1].bias)


def _stage(inputs: int, outputs: int, blocks: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        Block(inputs, outputs, kernel, stride=2), *(Block(outputs, outputs, kernel) for _ in range(blocks))
    )


class Network(nn.Module):
    """Maps normalised BGR `(b, 3, h, w)`, sides multiples of 32, to three maps `(b, 6, h/s, w/s)`."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        half, quarter, *deep = size.channels
        self.stem = nn.Sequential(
            *(_conv(3, half, 3, 2), nn.ReLU(inplace=True), _conv(half, quarter, 3, 2), nn.ReLU(inplace=True)),
            *(Block(quarter, quarter) for _ in range(size.blocks[0])),
        )
        kernels = (3, size.kernel, size.kernel)
        self.stages = nn.ModuleList(
            _stage(inputs, outputs, blocks, kernel)
            for (inputs, outputs), blocks, kernel in zip(
                pairwise((quarter, *deep)), size.blocks[1:], kernels, strict=True
            )
        )
        self.lateral = nn.ModuleList(
            nn.Sequential(_conv(c, size.neck, 1), nn.ReLU(inplace=True)) for c in deep
        )
        self.smooth = nn.ModuleList(Block(size.neck, size.neck) for _ in deep[1:])
        self.heads = nn.ModuleList(
            nn.Sequential(*(Block(size.neck, size.neck) for _ in range(size.head_blocks))) for _ in deep
        )
        self.predict = nn.ModuleList(nn.Conv2d(size.neck, len(CLASSES) + 4, 1) for _ in deep)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                fan = "fan_out" if module.groups == 1 else "fan_in"
                nn.init.kaiming_normal_(module.weight, mode=fan, nonlinearity="relu")
        for predict in self.predict:
            nn.init.normal_(predict.weight, std=0.01)
            bias = [_PRIOR_LOGIT] * len(CLASSES) + [0.0, 0.0, 1.0, 1.0]
            predict.bias.data.copy_(torch.tensor(bias))

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """The feature maps `(b, neck, h/s, w/s)` that the heads read, strides 8, 16, 32."""
        x = self.stem(x)
        maps = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        for level in (1, 0):
            upper = F.interpolate(maps[level + 1], scale_factor=2.0, mode="nearest")
            maps[level] = self.smooth[level](maps[level] + upper)
        return maps

    def read(self, maps: list[Tensor]) -> list[Tensor]:
        """The six output channels per level, from `pyramid`'s maps."""
        return [
            predict(head(level)) for level, head, predict in zip(maps, self.heads, self.predict, strict=True)
        ]

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.read(self.pyramid(x))


def build(name: str) -> Network:
    """A network of the family with random weights."""
    return Network(SIZES[name])


def normalise(image: Tensor) -> Tensor:
    """BGR samples 0..255 to the range that the network is fed; copies."""
    return (image.float() - MEAN) / SCALE


def load_grown(network: Network, state: dict[str, Tensor]) -> list[str]:
    """Load weights of an equal, shallower or narrower network; names the new residual blocks, which start as identity.

    The grown network computes exactly what the smaller one did: new channels are computed from the first step on,
    but nothing of the old ones reads them until training moves its weights (after Net2Net, arXiv:1511.05641).
    """
    own = network.state_dict()
    for name, old in state.items():
        if name not in own or any(had > has for had, has in zip(old.shape, own[name].shape, strict=True)):
            raise ValueError(f"the weights are of a larger network: {name}")
        if old.ndim > 1:
            own[name][: old.shape[0], old.shape[1] :] = 0
        own[name][tuple(slice(length) for length in old.shape)] = old
    missing = own.keys() - state.keys()
    grown = []
    for name, module in network.named_modules():
        if isinstance(module, Block) and any(key.startswith(name + ".") for key in missing):
            module.be_identity()
            grown.append(name)
    strangers = [key for key in missing if not any(key.startswith(name + ".") for name in grown)]
    if strangers:
        raise ValueError(f"the weights lack {strangers[0]}")
    return grown
