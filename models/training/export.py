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
    """A copy for inference, its batch normalisations folded into the convolutions before them."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for at in range(len(module) - 1):
            conv, norm = module[at], module[at + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[at], module[at + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return network


def _take_samples(first: nn.Module) -> None:
    """Let the first convolution take 0..255 itself: two passes over the input less, a tenth of the time.

    What it pads with is then black instead of grey, which the first row and column of its output see.
    """
    assert isinstance(first, nn.Sequential)
    conv = first[0]
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
    part = file.with_suffix(".part")
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, 384, 640),),
        str(part),
        input_names=["x"],
        output_names=names,
        dynamic_axes={"x": {0: "batch", 2: "height", 3: "width"}, **axes},
        opset_version=OPSET,
        dynamo=False,
    )
    try:
        worst = disagreement(model, part)
        if worst > TOLERANCE:
            raise RuntimeError(f"ONNX Runtime and torch differ by {worst:.2g} on {file.name}")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def disagreement(model: nn.Module, file: Path) -> float:
    """The largest difference between torch and ONNX Runtime on noise of another batch and size."""
    import onnxruntime

    noise = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 160)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(torch.from_numpy(noise))
    found = session.run(None, {"x": noise})
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=True))
