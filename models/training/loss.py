"""Which anchor answers for which box, and what it costs to be wrong.

Assignment is task-aligned (TOOD, arXiv:2108.07755): of the anchors near a box's centre, on the levels
made for its size, the nine whose score and box fit best. Classification is the quality focal loss (GFL,
arXiv:2006.04388), box regression EIoU (arXiv:2101.08158). A class that an image does not label costs
nothing where `ignored` boxes lie.
"""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .network import CLASSES, STRIDES

_SMALLEST = (0.0, 28.0, 72.0)  # px, root of the area, per level
_LARGEST = (56.0, 144.0, 1e5)
_CANDIDATES = 9  # anchors per box
_FOCUS = 1.5  # exponent of the quality focal loss
_LEAST_QUALITY = 0.15  # IoU credited to a box whose anchors still miss it
_LEAST_CONFIDENCE = 0.35  # a labelled face that the teacher misses still counts this much
FACE = CLASSES.index("face")


@dataclass(frozen=True)
class Targets:
    """The boxes of a batch; a row is `image, class, x0, y0, x1, y1`."""

    boxes: Tensor  # (t, 6)
    ignored: Tensor  # (m, 6)
    confidence: Tensor | None = None  # (t,) a teacher's score of each box, 0 where it saw none; faces only


@dataclass(frozen=True)
class Loss:
    """Sums over a batch, to be divided by `positives`."""

    scores: Tensor
    boxes: Tensor
    positives: Tensor  # sum of the target qualities
    mean_iou: Tensor  # of the assigned anchors, to watch


@cache
def _anchors(shapes: tuple[tuple[int, int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres `(n, 2)` in pixels and strides `(n,)` of all cells of all levels."""
    centres, strides = [], []
    for (height, width), stride in zip(shapes, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((height * width,), float(stride)))
    return torch.cat(centres).to(device), torch.cat(strides).to(device)


@cache
def _sizes(device: torch.device) -> tuple[Tensor, Tensor]:
    """The smallest and the largest box of each level, kept on the device: sending them would wait for it."""
    return torch.tensor(_SMALLEST, device=device), torch.tensor(_LARGEST, device=device)


def decode(raw: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Boxes `(..., n, 4)` as corners in pixels from dx, dy, log w, log h."""
    middle = centres + raw[..., :2] * strides[:, None]
    half = torch.exp(raw[..., 2:].clamp(-4, 5)) * strides[:, None] / 2
    return torch.cat([middle - half, middle + half], -1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of paired boxes `(..., 4)`."""
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    shared = size.prod(-1)
    return shared / ((a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared + 1e-7)


def _eiou_loss(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    overlap = iou(a, b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) ** 2).sum(-1) / 4
    sizes = ((a[..., 2:] - a[..., :2]) - (b[..., 2:] - b[..., :2])) ** 2 / (hull**2 + 1e-7)
    return 1 - overlap + apart / ((hull**2).sum(-1) + 1e-7) + sizes.sum(-1), overlap


def _candidates(boxes: Tensor, centres: Tensor, strides: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (box, anchor) that may match, and their distance in strides, squared."""
    levels = torch.log2(strides / STRIDES[0]).long()
    size = boxes[:, 2:] - boxes[:, :2]
    root = size.prod(-1).sqrt()[:, None]
    smallest, largest = _sizes(root.device)
    fits = (root >= smallest[levels]) & (root < largest[levels])
    apart = (centres[None] - ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]).abs()
    reach = torch.minimum(
        torch.maximum(size[:, None] / 2, strides[None, :, None]), 2.5 * strides[None, :, None]
    )
    box, anchor = (fits & (apart < reach).all(-1)).nonzero(as_tuple=True)
    return box, anchor, ((apart[box, anchor] / strides[anchor, None]) ** 2).sum(-1)


@torch.no_grad()
def _assign(
    targets: Targets, logits: Tensor, found: Tensor, centres: Tensor, strides: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Matched pairs (box, anchor) and their target quality; an anchor answers for one box at most."""
    image, kind, boxes = targets.boxes[:, 0].long(), targets.boxes[:, 1].long(), targets.boxes[:, 2:]
    box, anchor, distance = _candidates(boxes, centres, strides)
    score = logits[image[box], anchor, kind[box]].sigmoid()
    fit = iou(found[image[box], anchor], boxes[box])
    alignment = torch.zeros(len(boxes), len(centres), device=logits.device)
    alignment[box, anchor] = score.sqrt() * (fit + 1e-3) ** 4 * torch.exp(-0.15 * distance)
    least = alignment.topk(_CANDIDATES, 1).values[:, -1:]
    box, anchor = ((alignment > 0) & (alignment >= least)).nonzero(as_tuple=True)
    aligned = alignment[box, anchor]
    place = image[box] * len(centres) + anchor
    best = torch.zeros(logits.shape[0] * len(centres), device=logits.device)
    best = best.scatter_reduce(0, place, aligned, "amax")
    won = aligned >= best[place]
    box, anchor, aligned = box[won], anchor[won], aligned[won]
    fit = iou(found[image[box], anchor], boxes[box])
    zeros = torch.zeros(len(boxes), device=logits.device)
    top_aligned = zeros.scatter_reduce(0, box, aligned, "amax")
    worth = zeros.scatter_reduce(0, box, fit, "amax").clamp(min=_LEAST_QUALITY).sqrt()
    if targets.confidence is not None:
        taught = (worth + targets.confidence.clamp(min=_LEAST_CONFIDENCE)) / 2
        worth = torch.where(kind == FACE, taught, worth)
    quality = (aligned / (top_aligned[box] + 1e-12)).sqrt() * worth[box]
    return box, anchor, quality.clamp(0, 1)


def _weights(ignored: Tensor, centres: Tensor, batch: int) -> Tensor:
    """1, or 0 for a class at anchors inside one of its ignored boxes; `(b, n, classes)`."""
    weights = torch.ones(batch, len(centres), len(CLASSES), device=centres.device)
    inside = ((centres >= ignored[:, None, 2:4]) & (centres <= ignored[:, None, 4:6])).all(-1)
    row, anchor = inside.nonzero(as_tuple=True)
    weights[ignored[row, 0].long(), anchor, ignored[row, 1].long()] = 0
    return weights


def detection_loss(outputs: list[Tensor], targets: Targets) -> Loss:
    """The loss of the network's three output maps against a batch's boxes."""
    shapes = tuple((o.shape[-2], o.shape[-1]) for o in outputs)
    centres, strides = _anchors(shapes, outputs[0].device)
    flat = torch.cat([o.float().flatten(2).transpose(1, 2) for o in outputs], 1)
    logits, found = flat[..., : len(CLASSES)], decode(flat[..., len(CLASSES) :], centres, strides)
    wanted = torch.zeros_like(logits)
    weights = _weights(targets.ignored, centres, len(flat))
    box_loss, positives, mean_iou = flat.sum() * 0, flat.new_zeros(()), flat.new_zeros(())
    if len(targets.boxes):
        box, anchor, quality = _assign(targets, logits.detach(), found.detach(), centres, strides)
        image, kind = targets.boxes[box, 0].long(), targets.boxes[box, 1].long()
        wanted[image, anchor, kind] = quality
        weights[image, anchor, kind] = 1
        cost, overlap = _eiou_loss(found[image, anchor], targets.boxes[box, 2:])
        box_loss, positives = (cost * quality).sum(), quality.sum()
        mean_iou = overlap.detach().sum() / max(1, len(overlap))
    focus = (wanted - logits.detach().sigmoid()).abs() ** _FOCUS
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return Loss((entropy * focus * weights).sum(), box_loss, positives, mean_iou)
