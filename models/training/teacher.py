"""YuNet as a teacher of faces: how sure it is of each labelled face, faces nobody labelled, and its feature
maps.

The teacher (libfacedetection.train, Apache-2.0) looks at the undegraded picture. Only its answers are
used; none of its weights enter ours. The feature loss is the Pearson form of PKD (arXiv:2207.02039), read
through a linear layer that is thrown away.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .network import STRIDES

CHANNELS = 64  # of its feature maps
_FEATURES = ("287", "291", "295")  # names of its feature maps at strides 8, 16, 32
_SEEN_SCORE = 0.05
_SAME_IOU = 0.4  # a teacher's box on a labelled face
_UNLABELLED_SCORE = 0.45  # from here on an unmatched face is not held to be background
_FAR_IOU = 0.2


@dataclass(frozen=True)
class Lesson:
    """What the teacher says about a batch."""

    confidence: NDArray[np.float32]  # (t,) its best score on each labelled box, 0 for plates
    doubtful: NDArray[np.float32]  # (m, 6) image, class, corners: likely faces without a label
    features: list[NDArray[np.float32]]  # per level (b, CHANNELS, h, w)
    scores: list[NDArray[np.float32]]  # per level (b, 1, h, w)


class Teacher:
    """A session of the YuNet ONNX file with its feature maps among the outputs."""

    def __init__(self, weights: Path) -> None:
        import onnx
        import onnxruntime

        model = onnx.load(str(weights))
        kept = [output for output in model.graph.output if not output.name.startswith("kps")]
        kept += [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in _FEATURES]
        del model.graph.output[:]
        model.graph.output.extend(kept)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def teach(self, images: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Lesson:
        """The lesson for `images` `(b, side, side, 3)` BGR whose labels are `boxes` `(t, 6)`."""
        names = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox") for stride in STRIDES]
        feed = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
        outputs = self._session.run([*names, *_FEATURES], {"input": feed})
        batch, side = images.shape[:2]
        scores, found, maps = [], [], []
        for level, stride in enumerate(STRIDES):
            shown, there, raw = (outputs[3 * kind + level].reshape(batch, -1) for kind in range(3))
            score = np.sqrt(shown * there)
            cells = side // stride
            scores.append(score)
            maps.append(score.reshape(batch, 1, cells, cells))
            found.append(_corners(raw.reshape(batch, -1, 4), cells, stride))
        confidence, doubtful = _match(np.concatenate(scores, 1), np.concatenate(found, 1), boxes)
        return Lesson(confidence, doubtful, outputs[9:], maps)


def _corners(raw: NDArray[np.float32], cells: int, stride: int) -> NDArray[np.float32]:
    y, x = np.mgrid[:cells, :cells]
    middle = (np.stack([x, y], -1).reshape(1, -1, 2) + raw[..., :2]) * stride
    half = np.exp(raw[..., 2:]) * stride / 2
    return np.concatenate([middle - half, middle + half], -1).astype(np.float32)


def _iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = size.clip(0).prod(-1)
    areas = (a[:, 2:] - a[:, :2]).prod(-1)[:, None] + (b[:, 2:] - b[:, :2]).prod(-1)[None]
    return shared / (areas - shared + 1e-6)


def _match(
    scores: NDArray[np.float32], found: NDArray[np.float32], boxes: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    confidence = np.zeros(len(boxes), np.float32)
    doubtful = [np.zeros((0, 6), np.float32)]
    for image in range(len(scores)):
        seen = scores[image] > _SEEN_SCORE
        if not seen.any():
            continue
        score, corners = scores[image][seen], found[image][seen]
        overlap = np.zeros(len(score), np.float32)
        faces = np.flatnonzero((boxes[:, 0] == image) & (boxes[:, 1] == 0))
        if len(faces):
            fit = _iou(boxes[faces, 2:], corners)
            confidence[faces] = np.where(fit > _SAME_IOU, score[None], 0).max(1)
            overlap = fit.max(0)
        stray = corners[(score > _UNLABELLED_SCORE) & (overlap < _FAR_IOU)]
        doubtful.append(np.concatenate([np.tile([[image, 0]], (len(stray), 1)), stray], 1, dtype=np.float32))
    return confidence, np.concatenate(doubtful)


def feature_loss(student: Tensor, taught: Tensor, weights: Tensor) -> Tensor:
    """One minus the correlation of maps `(b, c, h, w)`, weighted by `(b, 1, h, w)`; dead channels aside."""
    weights = weights / weights.sum()
    axes = (0, 2, 3)
    student = student - (student * weights).sum(axes, keepdim=True)
    taught = taught - (taught * weights).sum(axes, keepdim=True)
    variance = (taught.square() * weights).sum(axes)
    scale = (student.square() * weights).sum(axes) * variance
    correlation = (student * taught * weights).sum(axes) / (scale + 1e-8).sqrt()
    living = (variance > 1e-6).float()
    return ((1 - correlation) * living).sum() / living.sum().clamp(min=1)
