"""Video on the GPU: whether NVDEC and NVENC work, found out by trying, and frames that never leave it.

# Note [GPU pictures]
A picture that NVDEC decoded lies in a surface of the decoder, as a reference frame does: `own` takes our copy of its
planes, GPU to GPU. NVENC is told of one address and one pitch and takes what lies behind luma for chroma, and as much
of both as it was opened for, whatever the picture says: two planes from two places, or a smaller picture, would put
somebody else's memory, perhaps a raw picture, into the video. So it gets a copy of the masked planes in one block
(`Lender.surface`), of its own size and no other, which is not written again until FFmpeg lets go of it. All sides use
the primary CUDA context, as `streamer.device.cuda_driver` does. What NVENC is given is complete, so it works in a
stream of its own: in ours, all that follows would wait until it has encoded.
"""

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.frame import CudaContext

from streamer.config import OutputPolicy
from streamer.device.base import VideoMemory
from streamer.errors import InputError, OutputError, StreamerError
from streamer.frame import Color, Frame, Size
from streamer.media.encoders import NVENC, RECIPES, Shape, gpu_options, set_up
from streamer.media.picture import Timing, color_of, frame_from_picture, is_mirrored, stamp, turn_of

_SIDE = 256  # pixels of the pictures that are tried; NVENC refuses very small ones
_UNKNOWN = Color()
_NEARLY, _ROUGHLY = 1.0, 24.0  # mean difference of samples: from two decoders, and encoded at any quality
_FIRST = Timing(0, 0, Fraction(1))
ON_CORES = "decoded on the cores"
CUT = "pictures that are cut at the left or the top"
FAILURES = (av.error.FFmpegError, OSError, RuntimeError, ValueError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether something works here, and what it said."""

    works: bool
    reason: str


def try_decoding(codec: str = "h264", memory: VideoMemory | None = None) -> Answer:
    """Decode a short clip of our own on NVDEC; with `memory`, into that, and compare with what the cores make of it."""
    try:
        clip = _clip({"h264": "libx264", "hevc": "libx265"}[codec])
        with av.open(clip, "r", hwaccel=on_gpu()) as container:
            picture = next(container.decode(video=0))
        if picture.format.name != "cuda":
            return Answer(False, f"NVDEC left {codec} to the CPU ({picture.format.name})")
        clip.seek(0)
        if memory is not None and _differs(picture, clip, memory):
            return Answer(False, f"NVDEC decodes {codec} otherwise than the cores")
    except (*FAILURES, StreamerError, StopIteration, KeyError) as error:
        return Answer(False, f"NVDEC does not decode {codec} here ({words(error)})")
    return Answer(True, f"NVDEC decodes {codec}")


def try_encoding(codec: str = "h264", memory: VideoMemory | None = None) -> Answer:
    """Encode a picture with NVENC, from `memory` if given; chips such as A100, H100 and H200 have none."""
    try:
        context = av.VideoCodecContext.create(NVENC[codec].encoder, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width = context.height = _SIDE
        context.pix_fmt = "nv12" if memory is None else NVENC[codec].pixel_format
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        if memory is not None:
            try_picture(context, GpuPictures(memory, Size(_SIDE, _SIDE)))
        else:
            picture = av.VideoFrame(_SIDE, _SIDE, "nv12")
            picture.pts = 0
            if not [*context.encode(picture), *context.encode(None)]:
                raise OutputError("it made nothing")
    except (*FAILURES, StreamerError, KeyError) as error:
        return Answer(False, f"NVENC does not encode {codec} here ({words(error)})")
    return Answer(True, f"NVENC encodes {codec}{'' if memory is None else ' from the memory of the GPU'}")


def try_file(path: Path, memory: VideoMemory) -> Answer:
    """Whether NVDEC decodes the first picture of this very file as the cores do, into what `frame_on_gpu` takes."""
    try:
        with open_on_gpu(path) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                return Answer(False, f"{ON_CORES}: NVDEC is not for it (no video stream)")
            picture = next(container.decode(stream))
            problem = CUT if is_cut(picture, stream.codec_context) else _misfit(picture, None)
            if problem is None and _differs(picture, f"file:{path}", memory):
                problem = "its first picture comes out otherwise than on the cores"
    except (*FAILURES, StreamerError, StopIteration) as error:
        return Answer(False, f"{ON_CORES}: NVDEC does not take it ({words(error)})")
    if problem is not None:
        return Answer(False, f"{ON_CORES}: NVDEC is not for it ({problem})")
    return Answer(True, "decoded by NVDEC")


def _differs(picture: av.VideoFrame, file: str | io.BytesIO, memory: VideoMemory) -> bool:
    """Whether our copy of the file's first picture, decoded by NVDEC, is another than the cores'; H.264, HEVC and VP9
    come out the same to the bit, older codecs nearly.
    """
    with av.open(file, "r", metadata_errors="replace") as container:
        reference = next(container.decode(container.streams.best("video")))
        assert isinstance(reference, av.VideoFrame)
        wanted = frame_from_picture(reference, _FIRST)
    return _away(frame_on_gpu(picture, _FIRST, memory), wanted) > _NEARLY


def _away(ours: Frame, wanted: Frame) -> float:
    """Mean difference of the samples of the plane that differs more; infinite for one of another size."""
    pairs = [(np.asarray(ours.luma), wanted.luma), (np.asarray(ours.chroma), wanted.chroma)]
    if any(one.shape != other.shape for one, other in pairs):
        return float("inf")
    return max(float(np.abs(one.astype(np.int16) - other).mean()) for one, other in pairs)


def open_on_gpu(path: Path) -> av.container.InputContainer:
    """A file whose video is decoded by NVDEC into GPU memory; see `frame_on_gpu`.

    Raises InputError with what NVDEC says: it takes some codecs, sizes and formats and not others. Whether it takes
    this stream may show only at its first picture.
    """
    try:
        container = av.open(f"file:{path}", metadata_errors="replace", hwaccel=on_gpu())
    except FAILURES as error:
        raise InputError(f"NVDEC does not take it ({words(error)}); decode on the CPU: {path}") from error
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.codec_context.thread_count = 1  # each thread takes surfaces of NVDEC's, which has 32
    return container


class LiveDecoding:
    """Who decodes a live stream, over all its connections: NVDEC until it refuses or fails once, then the cores.

    A chip that failed is not asked again: the stream would go from one covered stretch to the next.
    """

    def __init__(self, memory: VideoMemory | None = None) -> None:
        """With `memory`, NVDEC is tried; `reason` says in one line who decodes and why."""
        answer = try_decoding(memory=memory) if memory is not None else None
        self.memory = memory if answer is not None and answer.works else None
        self.reason = ON_CORES
        if answer is not None:
            self.reason = "decoded by NVDEC" if answer.works else f"{ON_CORES}: {answer.reason}"

    def give_up(self, why: BaseException | str) -> None:
        """From the next connection on the cores decode."""
        self.memory = None
        said = why if isinstance(why, str) else words(why)
        self.reason = f"{ON_CORES}: NVDEC does not take it ({said})"


def suits(picture: av.VideoFrame, size: Size | None) -> bool:
    """Whether `frame_on_gpu` takes the picture of a stream of that size (None: any)."""
    return _misfit(picture, size) is None


def is_cut(picture: av.VideoFrame, context: av.VideoCodecContext) -> bool:
    """Whether the first picture of a stream shows what that cuts off: at the left and the top FFmpeg leaves it in
    pictures of a GPU.
    """
    return (picture.width, picture.height) != (context.width, context.height)


def _misfit(picture: av.VideoFrame, size: Size | None) -> str | None:
    samples = picture.sw_format
    if picture.format.name != "cuda" or samples is None or samples.name != "nv12":
        return f"{samples.name if samples else picture.format.name} samples"
    if picture.width % 2 or picture.height % 2:
        return f"an odd size, {picture.width} x {picture.height}"
    if turn_of(picture) or is_mirrored(picture):
        return "a rotated picture"
    if size is not None and size != Size(picture.width, picture.height):
        return "another size than before"
    return None


def frame_on_gpu(picture: av.VideoFrame, timing: Timing, memory: VideoMemory) -> Frame:
    """Our copy, on the GPU, of a picture that NVDEC decoded. See Note [GPU pictures].

    Raises InputError for a picture that does not suit: it takes the way through the CPU. Raises DeviceError.
    """
    problem = _misfit(picture, None)
    if problem is not None:
        raise InputError(f"a picture that is not for this way ({problem})")
    size = Size(picture.width, picture.height)
    luma, chroma = (memory.own(plane) for plane in picture.planes)
    return Frame(
        luma, chroma, size, timing.index, timing.pts, timing.time_base, color_of(picture), timing.duration
    )


class GpuPictures:
    """Masked frames as pictures for one NVENC encoder of that size. Keep it as long as the encoder."""

    def __init__(self, memory: VideoMemory, size: Size) -> None:
        """Raises DeviceError."""
        self._size = size.even
        self._lender = memory.lender()
        self._context = CudaContext(0, primary_ctx=True, cuda_stream=self._lender.stream)

    def picture_on_gpu(self, frame: Frame) -> av.VideoFrame:
        """A copy of the frame where NVENC finds it, wherever it lies. See Note [GPU pictures].

        Raises OutputError for a frame of another size, DeviceError if the GPU fails.
        """
        if frame.planes_size != self._size:
            raise OutputError(
                f"a picture of {frame.size.width} x {frame.size.height} for an encoder of another size"
            )
        surface = self._lender.surface(frame)
        picture = av.VideoFrame.from_dlpack(surface, format="nv12", cuda_context=self._context)
        stamp(picture, frame)
        return picture


def try_encoder(codec: str, policy: OutputPolicy, shape: Shape, memory: VideoMemory) -> Answer:
    """Whether NVENC encodes pictures of this very shape from GPU memory, tried with one that is decoded again."""
    problem = _not_for_nvenc(codec, policy, shape)
    if problem is None:
        try:
            context = av.VideoCodecContext.create(NVENC[codec].encoder, "w")
            assert isinstance(context, av.VideoCodecContext)
            set_up(context, codec, shape, NVENC[codec].pixel_format)
            context.options = gpu_options(codec, policy)
            try_picture(context, GpuPictures(memory, shape.size), shape.color)
        except (*FAILURES, StreamerError) as error:
            problem = words(error)
    if problem is not None:
        return Answer(False, f"encoded on the cores by {RECIPES[codec].encoder}: no NVENC ({problem})")
    return Answer(True, f"encoded by NVENC ({NVENC[codec].encoder})")


def _not_for_nvenc(codec: str, policy: OutputPolicy, shape: Shape) -> str | None:
    if codec not in NVENC:
        return f"it knows no {codec}"
    if policy.preset is not None:
        return f'the preset "{policy.preset}" is one of the cores\' encoder'
    if shape.top_field_first is not None:
        return "the pictures are interlaced"
    return None if shape.size == shape.size.even else "the size is odd"


def try_picture(context: av.VideoCodecContext, pictures: GpuPictures, color: Color = _UNKNOWN) -> None:
    """Let an NVENC encoder, which opens with its first picture, encode one of ours; it is of no use afterwards.

    Raises OutputError, also if another picture came out, or one of FAILURES or what `picture_on_gpu` raises.
    """
    size = Size(context.width, context.height)
    shades = np.linspace(16, 235, size.height, dtype=np.uint8)
    luma = np.repeat(shades[:, np.newaxis], size.width, axis=1)
    chroma = np.full((size.height // 2, size.width // 2, 2), (80, 180), np.uint8)
    frame = Frame(luma, chroma, size, 0, 0, Fraction(context.time_base or 1), color)
    packets = [*context.encode(pictures.picture_on_gpu(frame)), *context.encode(None)]
    codec = context.codec.canonical_name
    decoder = av.VideoCodecContext.create({"av1": "libdav1d"}.get(codec, codec), "r")
    assert isinstance(decoder, av.VideoCodecContext)
    made = [picture for packet in (*packets, None) for picture in decoder.decode(packet)]
    if not made:
        raise OutputError("it made nothing")
    if _away(frame_from_picture(made[0], _FIRST), frame) > _ROUGHLY:
        raise OutputError("it made another picture")


def on_gpu() -> HWAccel:
    """What PyAV opens a stream with so that NVDEC decodes it and its pictures stay on the GPU."""
    return HWAccel("cuda", allow_software_fallback=False, is_hw_owned=True)


def _clip(encoder: str) -> io.BytesIO:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream(encoder, rate=25)
        stream.width = stream.height = _SIDE
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast"}
        shades = np.add.outer(np.arange(_SIDE * 3 // 2), np.arange(_SIDE)).astype(np.uint8)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shades, "yuv420p")))
        container.mux(stream.encode(None))
    file.seek(0)
    return file


def words(error: BaseException) -> str:
    """What an error says, in one line."""
    cause = error.__cause__ if isinstance(error, InputError) and error.__cause__ is not None else error
    words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(str(words).split())
