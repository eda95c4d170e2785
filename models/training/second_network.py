"""The second stage: a small network that looks again, and closely, at what a detector marked.

It is a detector of the family, with its weights (batch normalisations folded, the stem frozen), on the close-up of
one candidate. A head of its own reads what each level's head saw and would have answered, and gives a logit and a box
for each class. What the detector thought of the candidate is added to the logits last, with two weights for each
class: the product knows it, the exported network does not.

Parameters have these names: `net` the detector, `r` what narrows each level, `fc` the hidden layer, `out` and `box` the
answers, `w` the weights of what the detector thought.
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import network as networks
from .close_ups import SIDE
from .export import fused, write

BASE = "fast"
HIDDEN = 96
NARROW = (16, 32, 64)  # channels that each level is narrowed to
_ANSWER_SHARE = 0.3  # the detector's own answers are scaled by this, and limited
_MOST_ANSWER = 4.0


class SecondStage(nn.Module):
    """Normalised BGR close-ups `(b, 3, 64, 64)` and `prior` `(b, 2)` to logits `(b, 2)` and boxes `(b, 8)`.

    A box is dx dy log w log h for each class: centre from the close-up's centre, in units of 64 / context pixels.
    """

    def __init__(self, detector: networks.Network, dropout: float = 0.0) -> None:
        """`detector` lends its weights; its batch normalisations are folded."""
        super().__init__()
        kinds, neck = len(networks.CLASSES), detector.predict[0].in_channels
        assert isinstance(neck, int)
        self.net = fused(detector)
        self.net.stem.requires_grad_(False)
        self.r = nn.ModuleList(nn.Conv2d(neck, width, 1) for width in NARROW)
        self.dropout = dropout
        cells = [(SIDE // stride) ** 2 for stride in networks.STRIDES]
        read = sum((width + kinds + 4) * count for width, count in zip(NARROW, cells, strict=True))
        self.fc = nn.Linear(read, HIDDEN)
        self.out = nn.Linear(HIDDEN, kinds)
        self.box = nn.Linear(HIDDEN, 4 * kinds)
        self.w = nn.Parameter(torch.tensor([[1.0, 0.0]] * kinds))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and boxes from the close-up alone."""
        seen = []
        levels = zip(self.r, self.net.heads, self.net.predict, self.net.pyramid(x), strict=True)
        for narrow, head, predict, level in levels:
            features = head(level)
            answers = (predict(features) * _ANSWER_SHARE).clamp(-_MOST_ANSWER, _MOST_ANSWER)
            seen += [F.relu(narrow(features)).flatten(1), answers.flatten(1)]
        hidden = F.relu(self.fc(F.dropout(torch.cat(seen, 1), self.dropout, self.training)))
        return self.out(hidden), self.box(hidden)

    def forward(self, x: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        logits, boxes = self.look(x)
        return logits + prior @ self.w.T, boxes


def load(file: Path, dropout: float = 0.0) -> SecondStage:
    """A second stage that starts from a file of one of three kinds.

    A detector's checkpoint: its weights under a new head. A second stage's checkpoint (`model`, `mean`, `seen`), or
    its bare state: that one. Raises ValueError for another detector than `BASE`.
    """
    saved = torch.load(file, map_location="cpu", weights_only=True)
    if saved.get("model", BASE) != BASE:
        raise ValueError(f"a second stage is made of {BASE}, not of {saved['model']}: {file}")
    state = saved.get("mean", saved)
    detector = networks.build(BASE)
    if not any(name.startswith("net.") for name in state):
        detector.load_state_dict(state)
        return SecondStage(detector, dropout)
    stage = SecondStage(detector, dropout)
    stage.load_state_dict(state)
    return stage


class Exported(nn.Module):
    """The second stage as it ships: BGR samples 0..255 in, logits without what the detector thought.

    Of the normalisation only the scale is folded: so small a picture is mostly rim, and what the first convolution
    pads with must stay grey.
    """

    def __init__(self, stage: SecondStage) -> None:
        super().__init__()
        self.stage = copy.deepcopy(stage).eval()
        first = self.stage.net.stem[0]
        assert isinstance(first, nn.Conv2d)
        with torch.no_grad():
            first.weight /= networks.SCALE

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.stage.look(x - networks.MEAN)


def export(stage: SecondStage, file: Path) -> str:
    """Write `file`: input `x` `(b, 3, 64, 64)`, outputs `score` `(b, 2)` and `box` `(b, 8)`. Returns its SHA-256.

    Raises RuntimeError if ONNX Runtime and torch disagree on it; the file is then gone.
    """
    model = Exported(stage.cpu()).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return write(model.eval(), file, (SIDE, SIDE), {name: {0: "batch"} for name in ("x", "score", "box")})


def manifest_line(stage: SecondStage) -> str:
    """The weights of log-odds and size, as the manifest states them.

    They give odds of close-ups as they were drawn in training, one in two an object: for scores that are shares of real
    boxes, scale them and add what a logistic fit on labelled pictures says.

    >>> manifest_line(SecondStage(networks.build("fast")))
    'weights = { face = [1, 1.0, 0.0, 0], plate = [1, 1.0, 0.0, 0] }'
    """
    rows = zip(networks.CLASSES, stage.w.detach().cpu().tolist(), strict=True)
    parts = (f"{kind} = [1, {round(first, 6)}, {round(size, 6)}, 0]" for kind, (first, size) in rows)
    return "weights = { " + ", ".join(parts) + " }"
