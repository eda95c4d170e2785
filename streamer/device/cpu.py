"""The CPU device: NumPy and OpenCV on planes in main memory, networks through ONNX Runtime."""

import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from streamer.config import Runtime, Style
from streamer.device import redaction
from streamer.device.base import GREY, Letterbox, Session, Tensor, halvings, shown_size, yuv_to_bgr
from streamer.device.heap import keep_freed_memory
from streamer.device.openvino import OpenvinoSession
from streamer.errors import ModelError, RedactionError
from streamer.frame import Frame, Plane
from streamer.masking import MaskPlan, lay_out
from streamer.models import ModelSpec


class CpuDevice:
    """The Device of machines without a GPU; safe to use from several threads."""

    name = "cpu"
    video = None

    def __init__(self, threads: int = 1, runtime: Runtime = "onnxruntime") -> None:
        """`threads` is how many cores one run of a network may use."""
        keep_freed_memory()
        self._threads = threads
        self._runtime = runtime
        self._inputs = _Inputs()

    def own(self, plane: Any) -> Plane:
        """A contiguous copy of an array of uint8."""
        return np.array(plane, np.uint8, order="C", copy=True)

    def view(self, frame: Frame, box: Letterbox, spec: ModelSpec) -> Tensor:
        """The detector's input: each plane is scaled down first, colours are made at the view's size.

        Planes are halved by means of 2 x 2 while the scale allows, then interpolated linearly; samples are
        rounded to 8 bits after each step, as they are in `kernels/view.cu`.
        """
        x0, y0, x1, y1 = box.window
        width, height = shown_size(box)
        luma = _scaled(frame.luma[y0:y1, x0:x1], width, height)
        chroma = _scaled(frame.chroma[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2], width, height)
        picture = cv2.transform(_merged(luma, chroma), yuv_to_bgr(frame.color))
        tensor = self._inputs.take((1, 3, box.size.height, box.size.width))
        _fill_grey(tensor[0], width, height, spec)
        for plane, channel in zip(cv2.split(picture), (2, 1, 0) if spec.rgb else (0, 1, 2), strict=True):
            part = tensor[0, channel, :height, :width]
            part[:] = plane
            if spec.scale != 1 or spec.offset:
                part *= np.float32(spec.scale)
                part += np.float32(spec.offset)
        return tensor

    def views(self, frames: Sequence[Frame], box: Letterbox, spec: ModelSpec) -> Tensor:
        """The inputs of several frames, one behind the other."""
        return np.concatenate([self.view(frame, box, spec) for frame in frames])

    def crops(self, frame: Frame, boxes: Sequence[Letterbox], spec: ModelSpec) -> Tensor:
        """Each made as `view` makes one, colours of all in one go."""
        size, count = boxes[0].size, len(boxes)
        luma = np.zeros((count, size.height, size.width), np.uint8)
        chroma = np.zeros((count, size.height, size.width, 2), np.uint8)
        shown = [shown_size(box) for box in boxes]
        for at, (box, (width, height)) in enumerate(zip(boxes, shown, strict=True)):
            x0, y0, x1, y1 = box.window
            luma[at, :height, :width] = _scaled(frame.luma[y0:y1, x0:x1], width, height)
            part = frame.chroma[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2]
            chroma[at, :height, :width] = _scaled(part, width, height)
        rows = _merged(luma.reshape(-1, size.width), chroma.reshape(-1, size.width, 2))
        tensor = np.empty((count, 3, size.height, size.width), np.float32)
        pictures = np.asarray(cv2.transform(rows, yuv_to_bgr(frame.color)), np.uint8)
        _put(tensor, pictures.reshape(count, size.height, size.width, 3), spec)
        for part, (width, height) in zip(tensor, shown, strict=True):
            _fill_grey(part, width, height, spec)
        return tensor

    def turned(self, views: Tensor, quarters: int) -> Tensor:
        """A contiguous copy of the views, turned."""
        return np.ascontiguousarray(np.rot90(views, quarters, (2, 3)))

    def thumbnail(self, frame: Frame, width: int) -> NDArray[np.uint8]:
        """A small luma picture; rows are skipped where it is less than a quarter as wide as the frame."""
        rows, columns = frame.luma.shape
        if columns <= width:
            return np.array(frame.luma)
        height = max(1, round(rows * width / columns))
        source = frame.luma[::2] if columns >= 4 * width else frame.luma
        return _scaled(source, width, height)

    def most_views(self, side: int) -> int:
        """One: a batch of n takes n times as long."""
        return 1

    def runs_at_once(self) -> int:
        """One for each core that a run may use; with OpenVINO one, whose requests keep what they last answered."""
        return 1 if self._runtime == "openvino" else self._threads

    def load(self, spec: ModelSpec, side: int) -> Session:
        """A session of the chosen runtime on the model's file, for views of any size."""
        if self._runtime == "openvino":
            return OpenvinoSession(spec, self._threads)
        return OnnxSession(spec, self._threads)

    def redact(self, frame: Frame, plan: MaskPlan, style: Style) -> None:
        """Mask the plan's regions in place. Raises RedactionError, then the planes may be half done."""
        if not len(plan):
            return
        try:
            layout = lay_out(plan, frame.planes_size)
            redaction.paint(frame.luma, redaction.LUMA, layout, style)
            redaction.paint(_rows(frame), redaction.CHROMA, layout, style)
        except (ValueError, IndexError, MemoryError, cv2.error) as error:
            raise RedactionError(f"frame {frame.index} could not be masked: {error}") from error

    def cover(self, frame: Frame) -> None:
        """Paint the whole picture in one colour: nothing of it is left."""
        frame.luma[:] = redaction.LUMA.solid
        frame.chroma[:] = redaction.CHROMA.solid


class OnnxSession:
    """A network in ONNX Runtime, without spinning: an encoder needs the other cores."""

    def __init__(self, spec: ModelSpec, threads: int = 1) -> None:
        """Raises ModelError if ONNX Runtime refuses the file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # a plan for each size would take 12 MiB and save no time
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(spec.weights), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no base class
            reason = str(error).splitlines()[0]
            raise ModelError(f'"{spec.name}" cannot be loaded ({reason}): {spec.weights}') from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: Tensor) -> Sequence[NDArray[np.float32]]:
        """Outputs in the model's order; new arrays at each call. Raises ModelError."""
        try:
            return list(self._session.run(None, {self._input: batch}))
        except Exception as error:  # ONNX Runtime's errors have no base class
            raise ModelError(f"the network failed: {str(error).splitlines()[0]}") from error


def _put(tensor: NDArray[np.float32], pictures: NDArray[np.uint8], spec: ModelSpec) -> None:
    """BGR pictures (n, h, w, 3) into a tensor (n, 3, h, w), as the network wants its samples."""
    for channel in range(3):
        plane = tensor[:, 2 - channel if spec.rgb else channel]
        plane[:] = pictures[..., channel]
        if spec.scale != 1 or spec.offset:
            plane *= np.float32(spec.scale)
            plane += np.float32(spec.offset)


def _fill_grey(view: NDArray[np.float32], width: int, height: int, spec: ModelSpec) -> None:
    """What a view (3, h, w) holds outside of (width, height)."""
    view[:, height:] = view[:, :, width:] = GREY * spec.scale + spec.offset


def _scaled(plane: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    level, columns, rows = halvings(plane.shape[1], plane.shape[0], width, height)
    for step in range(level - 1, -1, -1):
        whole = plane[: rows << (step + 1), : columns << (step + 1)]
        size = (columns << step, rows << step)
        plane = np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint8)
    if (columns, rows) != (width, height):
        plane = np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return plane


def _merged(luma: NDArray[np.uint8], chroma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    pairs = np.ascontiguousarray(chroma).view("<u2")[:, :, 0]
    first, second = np.empty(luma.shape, np.uint8), np.empty(luma.shape, np.uint8)
    np.bitwise_and(pairs, 255, out=first, casting="unsafe")  # several times faster than strided copies
    np.right_shift(pairs, 8, out=second, casting="unsafe")
    return np.asarray(cv2.merge([luma, first, second]), np.uint8)


class _Inputs:
    """Arrays for detector inputs, used again once nobody holds them: fresh pages cost more than colours."""

    def __init__(self) -> None:
        self._arrays: deque[NDArray[np.float32]] = deque([np.empty(0, np.float32)], maxlen=8)
        _, self._alone = self._oldest()

    def take(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array of that shape with any content; it is the caller's for as long as the caller holds it."""
        for _ in range(len(self._arrays)):
            try:
                array, holders = self._oldest()
            except IndexError:  # another thread has them
                break
            self._arrays.append(array)
            if holders == self._alone and array.shape == shape:
                return array
        array = np.empty(shape, np.float32)
        self._arrays.append(array)
        return array

    def _oldest(self) -> tuple[NDArray[np.float32], int]:  # out of the pool, and how many hold it
        array = self._arrays.popleft()
        return array, sys.getrefcount(array)


def _rows(frame: Frame) -> NDArray[np.uint8]:  # the chroma plane as a matrix of rows, without a copy
    rows: NDArray[np.uint8] = frame.chroma.view()
    if not rows.flags.c_contiguous:
        raise ValueError("the chroma plane is not contiguous")
    return rows.reshape(rows.shape[0], -1)
