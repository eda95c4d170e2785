"""Every place where pixels or packets can leave the program, by name. A new one must say here why it leaks nothing.

The table is compared with the source both ways: a new exit fails, and so does an entry whose exit is gone.
"""

import ast
from pathlib import Path

import pytest

from streamer.errors import RedactionError
from streamer.frame import Size
from streamer.media.live_encoder import EncoderSpec, LiveEncoder
from streamer.proof.scene import frames

PACKAGE = Path(__file__).resolve().parents[1] / "streamer"
EXITS = frozenset(
    {
        "picture_from_frame", "picture_on_gpu",
        "from_dlpack", "from_ndarray", "to_ndarray", "to_image", "imwrite", "imencode", "imshow",
        "tofile", "tobytes", "mux", "mux_one", "luma", "chroma", "Encoded", "Redacted", "Clean",
        "sendto", "sendmsg", "sendall", "_send_rtp", "Payloads", "Remuxer", "packet",
    }
)  # fmt: skip
OWN_PICTURES = {
    "demo.py",
    "proof/clips.py",
    "proof/judge.py",
    "proof/scene.py",
    "proof/camera.py",
}  # draw and read clips of their own, never a user's

KNOWN = {
    # receipts are made here and nowhere else
    "anonymizer.py:cover": {"Redacted"},
    "anonymizer.py:_Gate.end": {"Clean"},
    "anonymizer.py:_Gate._redacted": {"Redacted"},
    # pixels are worked on in place, or become the detector's input; nothing is handed on
    "media/source.py:_is_transparent": {"to_ndarray"},  # becomes one yes or no
    "device/cpu.py:CpuDevice.view": {"luma", "chroma"},
    "device/cpu.py:CpuDevice.thumbnail": {"luma"},
    "device/cpu.py:CpuDevice.redact": {"luma"},
    "device/cpu.py:CpuDevice.cover": {"luma", "chroma"},
    "device/cpu.py:_rows": {"chroma"},
    "device/cpu.py:CpuDevice.crops": {"luma", "chroma"},  # for the second stage, which is a network, too
    "device/cuda.py:_sources": {
        "luma",
        "chroma",
    },  # their addresses, for the kernels that make views and crops
    "device/cuda.py:CudaDevice.thumbnail": {"luma"},
    "device/cuda.py:CudaDevice.cover": {"luma", "chroma"},
    "device/cuda.py:CudaDevice.copy_into": {"luma", "chroma"},  # on the GPU, for CudaLender
    "device/cuda_lender.py:CudaLender.surface": {"luma"},  # a copy on the GPU, for picture_on_gpu
    "device/cuda.py:CudaDevice._planes": {"luma", "chroma"},
    "device/cuda.py:CudaDevice._hand_back": {"luma", "chroma"},  # into the frame they came from
    "device/cuda.py:_surfaces": {"luma", "chroma"},
    "device/cuda_bench.py:_resident": {"luma", "chroma"},  # onto the GPU
    "resident_bench.py:_clip": {"luma", "chroma"},  # the same
    "device/__init__.py:_prove_masks": {"luma", "chroma"},  # a picture of its own
    "device/__init__.py:_owned": {"luma", "chroma"},  # the same, brought to the device that is proved
    "device/cuda_driver.py:PycudaDriver.launch": {"tobytes"},  # of a kernel's arguments, for the GPU
    # a frame as an encoder's picture: the callers take Redacted only
    "media/picture.py:picture_from_frame": {"luma", "chroma", "from_dlpack"},
    "media/hardware.py:GpuPictures.picture_on_gpu": {"from_dlpack"},
    "media/hardware.py:try_picture": {"picture_on_gpu"},  # black, to try the encoder
    "media/hardware.py:_clip": {"mux", "from_ndarray"},  # a clip of our own, in memory
    "media/hardware.py:_away": {"luma", "chroma"},  # becomes a difference
    "media/picture.py:_samples_into": {"tobytes"},
    "media/picture.py:vectors_of": {"to_ndarray"},  # motion vectors, no samples
    # files: FileSink.write refuses whatever is neither Redacted nor Clean
    "media/sink.py:FileSink._encoded": {"picture_from_frame", "picture_on_gpu"},
    "media/sink.py:FileSink._mux": {"mux_one"},
    "media/sink.py:FileSink.write": {"packet"},  # of sound
    "media/source.py:FileSource._look": {"packet"},  # the size of sound
    "media/splice.py:SplicedVideo.encode": {"picture_from_frame"},
    # live: the encoder refuses whatever is not Redacted, Egress whatever is not Encoded
    "media/live_encoder.py:LiveEncoder.encode": {"Encoded"},
    "media/live_encoder.py:LiveEncoder._packets": {"picture_from_frame", "picture_on_gpu"},  # of encode
    "media/remux.py:Remuxer._flush": {"mux_one"},  # owners: HLS, recordings and push, which are Outlets
    "media/egress.py:Encoded.key": {"packet"},  # whether it is a key picture
    "media/hls.py:Hls._add": {"Remuxer", "packet"},  # of send
    "media/continuity.py:Continuity.continued": {"tobytes"},  # of a segment that Hls wrote
    "media/record.py:Recorder._write_segment": {"Remuxer", "packet"},
    "media/push.py:Push._talk": {"packet"},  # to the process of the push target, through a pipe
    "media/push_process.py:main": {"Remuxer"},  # fed by Push alone
    # live, to viewers: a Room is an Outlet, makes Payloads of what Egress gave it, and a Leg sends Payloads alone
    "media/webrtc.py:Room._payloads": {"Payloads", "packet"},
    "media/webrtc.py:Room._spread_sound": {"Payloads", "packet"},
    # sound: samples of an audio stream, let out with the receipt of a picture (Note [Sound])
    "media/remux.py:Remuxer.write_sound": {"mux_one"},
    "media/sound.py:SoundReader.read": {"to_ndarray"},
    "media/sound.py:SoundEncoder._block": {"from_ndarray", "Encoded"},
    "media/fanout.py:Leg._send_again": {"_send_rtp"},  # of what it has sent
    "media/fanout.py:Wire.send": {"sendto"},  # owner: Leg
    "media/fanout.py:Wire._send_block": {"sendto", "sendmsg"},
    "image/fetch.py:_Line.sendall": {"sendall"},  # a request for a picture, which comes in
    # what was asked to be checked or measured
    "proof/verify.py:_look": {"luma"},  # compared in memory
    "proof/verify.py:_write_still": {
        "luma",
        "imencode",
        "tobytes",
    },  # of the output, with what was found masked once more
    "bench.py:_transcode": {
        "mux"
    },  # the user's own file for comparison, in a private folder, deleted at once
    # one still image: written from the redacted picture
    "image/picture.py:_write_png": {"imencode", "tobytes"},
    "server/numbers.py:_read": {"tobytes"},  # of a request's text: what comes in
    "server/numbers.py:listed": {"tobytes"},  # of a file that was written from the redacted picture
}


def exits_of(source: str) -> dict[str, set[str]]:
    """The functions of a module that touch an exit, and which."""
    found: dict[str, set[str]] = {}

    def visit(node: ast.AST, scope: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            inside = scope
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inside = (*scope, child.name)
            name = child.attr if isinstance(child, ast.Attribute) else None
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Name):
                name = child.func.id
            if name in EXITS:
                found.setdefault(".".join(scope), set()).add(str(name))
            visit(child, inside)

    visit(ast.parse(source), ())
    return found


def test_every_exit_is_known() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        if module not in OWN_PICTURES:
            found |= {
                f"{module}:{where}": names for where, names in exits_of(path.read_text("utf-8")).items()
            }
    new = {where: names - KNOWN.get(where, set()) for where, names in found.items()}
    assert {where: names for where, names in new.items() if names} == {}, (
        "pixels can leave here: say why they may"
    )
    assert {where: names for where, names in KNOWN.items() if not names <= found.get(where, set())} == {}


def outlets_of(source: str) -> set[str]:
    """The classes of a module that live pictures are sent to."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                takes = (
                    [one.annotation for one in part.args.args] if isinstance(part, ast.FunctionDef) else []
                )
                if any(isinstance(one, ast.Name) and one.id == "Encoded" for one in takes):
                    found.add(node.name)
    return found


def test_every_place_that_takes_live_pictures_is_known() -> None:
    found = {
        f"{path.relative_to(PACKAGE).as_posix()}:{name}"
        for path in PACKAGE.rglob("*.py")
        for name in outlets_of(path.read_text("utf-8"))
    }
    assert found == {
        "media/egress.py:Outlet",  # the protocol
        "media/egress.py:Egress",
        "media/egress.py:KeyframeGate",
        "media/egress.py:PacketQueue",
        "media/hls.py:Hls",
        "media/push.py:Push",
        "media/record.py:Recorder",
        "media/webrtc.py:Room",
        "media/webrtc.py:Viewer",  # of a Room
        "live/stream.py:LiveStream",  # to its Egress
        "proof/scene.py:Judge",
        "proof/live_faults.py:_Stalled",
    }


def test_a_new_exit_would_be_noticed() -> None:
    source = "class Debug:\n    def dump(self, frame):\n        cv2.imwrite('x.png', frame.luma)\n"
    assert exits_of(source) == {"Debug.dump": {"imwrite", "luma"}}


def test_the_live_encoder_refuses_a_raw_frame() -> None:
    encoder = LiveEncoder(EncoderSpec(Size(320, 192), 25))
    with pytest.raises(RedactionError, match="not a redacted frame"):
        encoder.encode(next(frames(1)), 0)  # type: ignore[arg-type]
