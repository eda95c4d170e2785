"""The CUDA device: planes on the GPU, kernels of ours, networks through TensorRT.

# Note [Mirrored frames]
Frames from a software decoder have their planes in main memory. Such a frame is uploaded once, when it is looked at
first; it is masked on the GPU, and the result is downloaded into its planes. Frames of a hardware decoder never
leave the GPU. Every other user of a frame sees the difference only in where the planes lie.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer import resources
from streamer.config import Style
from streamer.device import cuda_layout as layout
from streamer.device.base import (
    GREY,
    SOLID_CHROMA,
    SOLID_LUMA,
    Letterbox,
    Session,
    Tensor,
    halvings,
    shown_size,
    yuv_to_bgr,
)
from streamer.device.cuda_driver import Driver
from streamer.device.cuda_lender import CudaLender
from streamer.device.cuda_memory import (
    DevicePlane,
    DeviceTensor,
    Memory,
    Pool,
    new_plane,
    views_at_once,
)
from streamer.device.dlpack import CUDA, CUDA_MANAGED, shared
from streamer.errors import DeviceError, RedactionError
from streamer.frame import Color, Frame, Plane, Size
from streamer.masking import MaskPlan
from streamer.models import ModelSpec

_STYLES = {Style.MOSAIC: 0, Style.BLUR: 1, Style.SOLID: 2}
_TILE = (16, 16)  # threads of a block of `paint` and `cover`, each for 4 x 2 luma pixels
_SUM = (16, 8)  # threads of a block of `sum_cells`
_VIEW = (32, 8)  # threads of a block of `view` and `thumbnail`, each for one pixel


@dataclass(frozen=True, slots=True, eq=False)
class _Planes:
    luma: DevicePlane
    chroma: DevicePlane


class CudaDevice:
    """The Device of one NVIDIA GPU. Several threads may use it: whatever they start is done in one order."""

    def __init__(
        self, driver: Driver, load: Callable[[Driver, Pool, ModelSpec, int], Session], *, half: bool = False
    ) -> None:
        """`load` makes sessions (cuda_trt.load); `half` makes views in float16. Raises DeviceError."""
        self.name = "cuda:0"
        self.driver = driver
        self.pool = Pool(driver)
        self._load = load
        self._half = half
        self._mirrors: dict[int, _Planes] = {}  # by id of a luma plane in main memory: Note [Mirrored frames]
        self._side_streams: list[Any] = []  # of encoders that are gone
        with driver.current():
            driver.load(resources.path("kernels/streamer.fatbin").read_bytes())

    @property
    def video(self) -> "CudaDevice":
        """NVDEC and NVENC work in this memory; media.hardware finds out whether they are there."""
        return self

    def lender(self) -> CudaLender:
        """What hands frames to one NVENC encoder."""
        with self.driver.current():
            stream = self._side_streams.pop() if self._side_streams else self.driver.side_stream()
        lender = CudaLender(self.pool, int(stream.handle), self.copy_into)
        weakref.finalize(
            lender, self._side_streams.append, stream
        ).atexit = False  # its encoder may still close
        return lender

    def copy_into(self, surface: tuple[DevicePlane, DevicePlane], frame: Frame) -> None:
        """Copy a frame's planes from where they lie; complete on return. Call inside of `driver.current()`.

        Never from a mirror, which may be older than what covers the frame.
        """
        for ours, theirs in zip(surface, (frame.luma, frame.chroma), strict=True):
            if isinstance(theirs, DevicePlane):
                self._copied(ours, theirs.address, theirs.pitch)
            else:
                self._sent_to(ours, theirs)
        self.driver.synchronize()

    def own(self, plane: Any) -> Plane:
        """A copy on the GPU of an array of uint8, or of GPU memory that offers DLPack."""
        with self.driver.current():
            if isinstance(plane, np.ndarray):
                ours = self._uploaded(plane)
                self.driver.synchronize()  # its owner may change it once we return
                return ours
            source = shared(plane)
            if source.device_type not in (CUDA, CUDA_MANAGED, self.driver.device_type):
                raise DeviceError(
                    f"a decoder's plane lies on a device of another kind ({source.device_type})"
                )
            ours = new_plane(self.pool, source.shape)
            self._copied(ours, source.address, source.strides[0])
            self.driver.synchronize()  # the decoder may write there again once we return
            return ours

    def view(self, frame: Frame, box: Letterbox, spec: ModelSpec) -> Tensor:
        """The detector's input (1, 3, h, w) on the GPU."""
        return self.views([frame], box, spec)

    def views(self, frames: Sequence[Frame], box: Letterbox, spec: ModelSpec) -> DeviceTensor:
        """One input (b, 3, h, w) made of frames of equal size and colour, in one launch that may still be under way."""
        with self.driver.current():
            sources = _sources([self._planes(frame) for frame in frames], [box.window] * len(frames))
            args = np.zeros(1, layout.VIEW_ARGS)[0]
            args["laid"], args["drawn"] = _laid(box), _drawn(box.size, frames[0].color, spec)
            return self._shown("view", sources, args)

    def crops(self, frame: Frame, boxes: Sequence[Letterbox], spec: ModelSpec) -> DeviceTensor:
        """Parts of one frame (b, 3, h, w), in one launch that may still be under way."""
        with self.driver.current():
            table = np.zeros(len(boxes), layout.CROP)
            table["source"] = _sources([self._planes(frame)] * len(boxes), [box.window for box in boxes])
            table["laid"] = [_laid(box) for box in boxes]
            args = np.zeros(1, layout.CROP_ARGS)[0]
            args["drawn"] = _drawn(boxes[0].size, frame.color, spec)
            return self._shown("crop", table, args)

    def _shown(self, kernel: str, table: NDArray[np.void], args: np.void) -> DeviceTensor:
        """What a kernel makes of the pictures in its table, whose address and the tensor's are put into `args`."""
        width, height = int(args["drawn"]["width"]), int(args["drawn"]["height"])
        sent = self._sent(table)
        kind = np.dtype(np.float16 if self._half else np.float32)
        tensor = DeviceTensor(self.pool, (len(table), 3, height, width), kind)
        args["table"], args["tensor"] = sent.address, tensor.address
        grid = _grid(width, height, _VIEW, len(table))
        self.driver.launch(f"{kernel}_f16" if self._half else f"{kernel}_f32", grid, (*_VIEW, 1), args)
        return tensor  # what is started next waits for it, and so does whoever gets the table's memory

    def turned(self, views: DeviceTensor, quarters: int) -> DeviceTensor:
        """The views turned on the GPU, in one launch that may still be under way."""
        count, channels, height, width = views.shape
        if quarters % 2:
            height, width = width, height
        with self.driver.current():
            tensor = DeviceTensor(self.pool, (count, channels, height, width), views.dtype)
            args = np.zeros(1, layout.TURN_ARGS)[0]
            args["tensor"], args["turned"], args["quarters"] = views.address, tensor.address, quarters
            args["width"], args["height"] = width, height
            grid = _grid(width, height, _VIEW, count * channels)
            self.driver.launch("turn_f16" if self._half else "turn_f32", grid, (*_VIEW, 1), args)
        return tensor

    def thumbnail(self, frame: Frame, width: int) -> NDArray[np.uint8]:
        """A small luma picture on the host, made as the CPU makes it."""
        with self.driver.current():
            luma = self._planes(frame).luma
            rows, columns = luma.shape
            if columns <= width:
                return np.asarray(luma)
            height = max(1, round(rows * width / columns))
            skip = 2 if columns >= 4 * width else 1
            small = self.pool.take(width * height)
            args = np.zeros(1, layout.THUMBNAIL_ARGS)[0]
            args["luma"], args["small"], args["pitch"] = luma.address, small.address, luma.pitch * skip
            args["size"] = halvings(columns, -(-rows // skip), width, height)
            args["width"], args["height"] = width, height
            self.driver.launch("thumbnail", _grid(width, height, _VIEW, 1), (*_VIEW, 1), args)
            host = self.pool.host((height, width))
            self.driver.download(host, small.address, width)
            return host

    def most_views(self, side: int) -> int:
        """As many as the engines are built for."""
        return views_at_once(side)

    def runs_at_once(self) -> int:
        """One, which others join."""
        return 1

    def load(self, spec: ModelSpec, side: int) -> Session:
        """A TensorRT session, with an engine of its own for each `side`."""
        with self.driver.current():
            return self._load(self.driver, self.pool, spec, side)

    def redact(self, frame: Frame, plan: MaskPlan, style: Style) -> None:
        """Mask one frame; complete on return."""
        self.redact_all([frame], [plan], style)

    def redact_all(self, frames: Sequence[Frame], plans: Sequence[MaskPlan], style: Style) -> None:
        """Mask frames of any sizes in one go, three launches for all of them; complete on return.

        Raises RedactionError or DeviceError, after which the frames may be half done.
        """
        busy = [at for at, plan in enumerate(plans) if len(plan)]
        if not busy:
            return
        frames = [frames[at] for at in busy]
        sizes = [frame.planes_size for frame in frames]
        try:
            tables = layout.tables([plans[at] for at in busy], sizes)
        except ValueError as error:
            raise RedactionError(f"frame {frames[0].index} could not be masked: {error}") from error
        with self.driver.current():
            planes = [self._planes(frame) for frame in frames]
            surfaces = _surfaces(frames, planes, tables)
            self._paint(surfaces, tables, style)
            for frame, each in zip(frames, planes, strict=True):
                self._hand_back(frame, each)
            self.driver.synchronize()

    def cover(self, frame: Frame) -> None:
        """Paint the whole picture in one colour; complete on return."""
        if isinstance(frame.luma, np.ndarray):
            self._mirrors.pop(id(frame.luma), None)
            frame.luma[:], frame.chroma[:] = SOLID_LUMA, SOLID_CHROMA
            return
        with self.driver.current():
            table = self._sent(_surfaces([frame], [self._planes(frame)], None))
            args = np.zeros(1, layout.COVER_ARGS)[0]
            args["surfaces"], args["luma"], args["chroma"] = table.address, SOLID_LUMA, SOLID_CHROMA
            size = frame.planes_size
            grid = _grid(-(-size.width // 4), size.height // 2, _TILE, 1)
            self.driver.launch("cover", grid, (*_TILE, 1), args)
            self.driver.synchronize()

    def _paint(self, surfaces: NDArray[np.void], tables: layout.Tables, style: Style) -> None:
        surface_table, grid_table = self._sent(surfaces), self._sent(tables.grids)
        region_table = self._sent(tables.regions)
        means = self.pool.take(16 * max(1, tables.cells))
        if style is not Style.SOLID and tables.blocks:
            sums = self.pool.take(24 * tables.cells)
            self.driver.zero(sums.address, sums.size)
            args = np.zeros(1, layout.SUM_ARGS)[0]
            args["surfaces"], args["grids"] = surface_table.address, grid_table.address
            args["sums"], args["grids_count"] = sums.address, len(tables.grids)
            self.driver.launch("sum_cells", (tables.blocks, 1, 1), (*_SUM, 1), args)
            args = np.zeros(1, layout.ROUND_ARGS)[0]
            args["surfaces"], args["grids"] = surface_table.address, grid_table.address
            args["sums"], args["means"] = sums.address, means.address
            args["grids_count"], args["cells"] = len(tables.grids), tables.cells
            self.driver.launch("round_cells", (-(-tables.cells // 128), 1, 1), (128, 1, 1), args)
        args = np.zeros(1, layout.PAINT_ARGS)[0]
        args["surfaces"], args["grids"] = surface_table.address, grid_table.address
        args["regions"], args["means"], args["style"] = region_table.address, means.address, _STYLES[style]
        args["solid_luma"], args["solid_chroma"] = SOLID_LUMA, SOLID_CHROMA
        width, height = int(surfaces["width"].max()), int(surfaces["height"].max())
        grid = _grid(-(-width // 4), height // 2, _TILE, len(surfaces))
        self.driver.launch("paint", grid, (*_TILE, 1), args)

    def _planes(self, frame: Frame) -> _Planes:
        if isinstance(frame.luma, DevicePlane):
            return _Planes(frame.luma, frame.chroma)
        found = self._mirrors.get(id(frame.luma))
        if found is None:
            found = _Planes(self._uploaded(frame.luma), self._uploaded(frame.chroma))
            self._mirrors[id(frame.luma)] = found
            weakref.finalize(frame.luma, self._mirrors.pop, id(frame.luma), None).atexit = False
        return found

    def _hand_back(self, frame: Frame, planes: _Planes) -> None:
        if isinstance(frame.luma, DevicePlane):
            return
        for host, ours in ((frame.luma, planes.luma), (frame.chroma, planes.chroma)):
            rows = host.reshape(len(host), -1)
            if not np.shares_memory(rows, host) or not host.flags.writeable:
                raise RedactionError(f"frame {frame.index} could not be masked: its planes cannot be written")
            self.driver.download(rows, ours.address, ours.pitch)

    def _uploaded(self, plane: NDArray[np.uint8]) -> DevicePlane:
        ours = new_plane(self.pool, plane.shape)
        self._sent_to(ours, plane)
        return ours

    def _sent_to(self, ours: DevicePlane, plane: NDArray[np.uint8]) -> None:
        rows = np.ascontiguousarray(plane, np.uint8).reshape(len(plane), -1)
        self.driver.upload(ours.address, ours.pitch, rows)

    def _copied(self, ours: DevicePlane, address: int, pitch: int) -> None:
        self.driver.copy(ours.address, ours.pitch, address, pitch, ours.row_bytes, ours.shape[0])

    def _sent(self, table: NDArray[np.void]) -> Memory:
        """A table on the GPU."""
        host = table.reshape(1, -1).view(np.uint8)
        memory = self.pool.take(max(16, host.shape[1]))
        if host.shape[1]:
            self.driver.upload(memory.address, host.shape[1], host)
        return memory


def _surfaces(
    frames: Sequence[Frame], planes: Sequence[_Planes], tables: layout.Tables | None
) -> NDArray[np.void]:
    surfaces = np.zeros(len(frames), layout.SURFACE)
    for row, frame, each in zip(surfaces, frames, planes, strict=True):
        if (each.luma.pitch | each.chroma.pitch | each.luma.address | each.chroma.address) % 4:
            raise RedactionError(f"frame {frame.index} could not be masked: its rows are not aligned")
        row["luma"] = row["luma_out"] = each.luma.address
        row["chroma"] = row["chroma_out"] = each.chroma.address
        row["luma_pitch"] = row["luma_out_pitch"] = each.luma.pitch
        row["chroma_pitch"] = row["chroma_out_pitch"] = each.chroma.pitch
        row["width"], row["height"] = frame.planes_size.width, frame.planes_size.height
    if tables is not None:
        surfaces["first_region"], surfaces["regions"] = tables.first_region, tables.counts
    return surfaces


def _sources(planes: Sequence[_Planes], windows: Sequence[tuple[int, int, int, int]]) -> NDArray[np.void]:
    sources = np.zeros(len(planes), layout.SOURCE)
    for row, each, (x0, y0, _, _) in zip(sources, planes, windows, strict=True):
        row["luma"] = each.luma.address + y0 * each.luma.pitch + x0
        row["chroma"] = each.chroma.address + y0 // 2 * each.chroma.pitch + x0
        row["luma_pitch"], row["chroma_pitch"] = each.luma.pitch, each.chroma.pitch
    return sources


def _laid(box: Letterbox) -> tuple[Any, ...]:  # layout.LAID
    x0, y0, x1, y1 = box.window
    width, height = shown_size(box)
    luma = halvings(x1 - x0, y1 - y0, width, height)
    return luma, halvings((x1 - x0) // 2, (y1 - y0) // 2, width, height), width, height


def _drawn(size: Size, color: Color, spec: ModelSpec) -> tuple[Any, ...]:  # layout.DRAWN
    grey = GREY * spec.scale + spec.offset
    return size.width, size.height, spec.rgb, spec.scale, grey, yuv_to_bgr(color).reshape(-1), spec.offset


def _grid(width: int, height: int, block: tuple[int, int], layers: int) -> tuple[int, int, int]:
    return (-(-width // block[0]), -(-height // block[1]), layers)
