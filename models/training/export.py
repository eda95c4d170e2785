"""From a checkpoint to ONNX, checked against torch."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from . import network as networks

OPSET = 17
TOLERANCE = 1e-3  # of any output value
OTHER = (96, 160)  # height and width that a network of any size is checked with


class Exported(nn.Module):
    """The network as it ships: BGR samples 0..255 in, scores already sigmoid, box decoding left outside."""

    def __init__(self, network: networks.Network) -> None:
        super().__init__()
        self.network = fused(network)
        _take_samples(self.network.stem[0])

    def forward(self, x: Tensor) -> list[Tensor]:
        kinds = len(networks.CLASSES)
        maps = self.network(x)
        return [torch.cat([torch.sigmoid(level[:, :kinds]), level[:, kinds:]], 1) for level in maps]


def fused(network: networks.Network) -> networks.Network:
    """A copy for inference: one convolution with a bias for each that had a batch normalisation behind it."""
    network = copy.deepcopy(network).eval()
    _fuse(network)
    return network


def _fuse(module: nn.Module) -> None:
    for name, child in module.named_children():
        match list(child.children()):
            case [nn.Conv2d() as conv, nn.BatchNorm2d() as norm]:
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
            case _:
                _fuse(child)


def _take_samples(conv: nn.Module) -> None:
    """Let the first convolution take 0..255 itself: two passes over the input less, a tenth of the time.

    What it pads with is then black instead of grey, which the first row and column of its output see.
    """
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    with torch.no_grad():
        conv.bias -= conv.weight.sum((1, 2, 3)) * (networks.MEAN / networks.SCALE)
        conv.weight /= networks.SCALE


def export(network: networks.Network, file: Path) -> str:
    """Write `file`: input `x` `(b, 3, h, w)`, outputs `p8 p16 p32` `(b, 6, h/s, w/s)`. Returns its SHA-256.

    Raises RuntimeError if ONNX Runtime and torch disagree on it; the file is then gone.
    """
    model = Exported(network.cpu().to(memory_format=torch.contiguous_format)).eval()
    names = [f"p{stride}" for stride in networks.STRIDES]
    axes = {name: {0: "batch", 2: f"{name}_h", 3: f"{name}_w"} for name in names}
    axes["x"] = {0: "batch", 2: "height", 3: "width"}
    return write(model, file, (384, 640), axes)


def write(model: nn.Module, file: Path, size: tuple[int, int], axes: dict[str, dict[int, str]]) -> str:
    """Write `file` of a model that takes `x` `(b, 3, *size)`; `axes` names its outputs and which lengths may differ.

    Returns its SHA-256. Raises RuntimeError as `export` does.
    """
    part = file.with_suffix(".part")
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, *size),),
        str(part),
        input_names=["x"],
        output_names=[name for name in axes if name != "x"],
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )
    try:
        worst = disagreement(model, part, size if len(axes["x"]) == 1 else OTHER)
        if worst > TOLERANCE:
            raise RuntimeError(f"ONNX Runtime and torch differ by {worst:.2g} on {file.name}")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def disagreement(model: nn.Module, file: Path, size: tuple[int, int] = OTHER) -> float:
    """The largest difference between torch and ONNX Runtime on noise of another batch and `size`."""
    import onnxruntime

    noise = np.random.default_rng(0).integers(0, 256, (2, 3, *size)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(torch.from_numpy(noise))
    found = session.run(None, {"x": noise})
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=True))
