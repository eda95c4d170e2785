"""The training code of the second stage, in its short form: a handful of drawn pictures, a few steps, CPU."""

import os
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
torch = pytest.importorskip("torch", reason="torch is not installed (extra `train`)")
pytest.importorskip("onnx", reason="onnx is not installed (extra `train`)")

import onnxruntime  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from models.training import candidates as finding  # noqa: E402
from models.training import close_ups, network, second, second_network  # noqa: E402
from models.training.candidates import Candidates, Look, candidates, judged  # noqa: E402
from models.training.depthwise import Depthwise  # noqa: E402
from models.training.export import disagreement  # noqa: E402
from models.training.pack import Pack, Picture  # noqa: E402
from streamer import models, resources  # noqa: E402
from streamer.detection import Detections  # noqa: E402
from streamer.device.cpu import CpuDevice  # noqa: E402
from streamer.frame import Size  # noqa: E402
from streamer.image.redact import frame_of  # noqa: E402
from tests.test_training import pack_drawn  # noqa: E402

FAST = resources.path("models/training/fast.pt")
LOOKS = (Look("fast", 448), Look("fast", 320, every=3))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_drawn(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def found(packed: Path) -> Candidates:
    return candidates(packed, packed.parent / "candidates.npz", looks=LOOKS)


def _same(one: Candidates, other: Candidates) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Candidates))


def _settings(out: Path) -> second.Settings:
    return second.Settings(out=out, init=FAST, samples=10_000, seed=3, batch=4)


def _stage() -> second_network.SecondStage:
    """With the detector's weights and a head that answers something."""
    torch.manual_seed(0)
    stage = second_network.load(FAST)
    torch.nn.init.normal_(stage.out.weight, std=0.3)
    return stage


def test_the_detectors_mark_what_is_drawn(packed: Path, found: Candidates) -> None:
    assert set(found.scales.tolist()) == {1.0, 1.25}
    assert set(found.pictures[found.scales == 1.0].tolist()) == {0, 3}  # the looks at 320: one in three
    assert found.scores.min() >= finding.SCORE
    plates = found.boxes[(found.labels == 1) & (found.targets == 1)]
    assert len(plates) >= 6
    assert np.abs(plates - (180, 180, 261, 201)).max() < 12
    assert (found.labels[found.targets == 1] == 0).sum() >= 4
    assert (found.truths[(found.labels == 1) & (found.targets == 1)] == (180, 180, 261, 201)).all()
    for index in np.flatnonzero(found.pictures == 0):  # its faces are unknown
        assert found.labels[index] == 1 or found.scores[index] <= finding.UNKNOWN_SCORE


def test_candidates_are_found_once(
    packed: Path, found: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _same(found, candidates(packed, tmp_path / "again.npz", looks=LOOKS, workers=2))
    monkeypatch.setattr(finding, "_each", lambda *_: pytest.fail("looked again"))
    assert _same(found, candidates(packed, packed.parent / "candidates.npz", looks=LOOKS))
    with pytest.raises(pytest.fail.Exception):
        candidates(packed, packed.parent / "candidates.npz", looks=LOOKS, every=2)


def test_a_second_stage_does_not_judge_its_own_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[models.ModelSpec] = []
    whole = replace(models.find("fast"), second=object())
    monkeypatch.setattr(models, "find", lambda _: whole)
    monkeypatch.setattr(finding, "Detector", lambda spec, *_: taken.append(spec))
    finding._detector.cache_clear()
    finding._detector(LOOKS[0])
    finding._detector.cache_clear()
    assert taken == [replace(whole, second=None)]


def test_what_is_unclear_is_no_candidate() -> None:
    real = np.array([[0, 10, 10, 30, 30]], np.float32)
    picture = Picture("drawn", 0, 100, 100, real, np.array([[0, 50, 50, 90, 90]], np.float32), frozenset({0}))
    boxes = {
        (10, 10, 30, 30): 1.0,
        (10, 10, 30, 18): 0.5,  # IoU 0.4
        (10, 10, 30, 15): 0.0,
        (60, 60, 70, 70): None,  # in what is ignored
        (5, 60, 20, 75): 0.0,
    }
    count = len(boxes)
    seen = np.array(list(boxes), np.float32)
    faces = Detections(seen, np.full(count, 0.5, np.float32), np.zeros(count, np.uint8))
    kept = judged(7, picture, faces, 0.5)
    assert kept.targets.tolist() == pytest.approx([t for t in boxes.values() if t is not None])
    assert kept.truths[0].tolist() == real[0, 1:].tolist()
    assert set(kept.pictures) == {7}
    plates = Detections(seen[:2], np.array([0.2, 0.3], np.float32), np.ones(2, np.uint8))
    kept = judged(7, picture, plates, 0.5)  # plates are not labelled: a sure one may be one
    assert kept.scores.tolist() == pytest.approx([0.2])
    assert kept.targets.tolist() == [0]


def test_what_the_detector_thought() -> None:
    one = judged(
        0,
        Picture("", 0, 99, 99, np.zeros((0, 5), np.float32), np.zeros((0, 5), np.float32), frozenset({0, 1})),
        Detections(
            np.array([[0, 0, 32, 32]], np.float32), np.full(1, 0.5, np.float32), np.zeros(1, np.uint8)
        ),
        0.5,
    )
    assert one.prior().tolist() == [[0, 0]]
    assert replace(one, scales=np.ones(1, np.float32)).prior().tolist() == [[0, 0.5]]


@pytest.mark.parametrize(
    "box", [(100, 80, 124, 110), (300, 200, 640, 479), (-20, 5, 60, 50), (700, 500, 720, 530)]
)
def test_a_close_up_is_what_the_product_sees(box: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(0)
    rough = rng.integers(40, 220, (9, 12, 3), np.uint8)  # smooth, since chroma has half the pixels
    image = np.asarray(cv2.resize(rough, (639, 479), interpolation=cv2.INTER_CUBIC), np.uint8)  # odd sides
    corners = np.array(box, np.float32)
    ours = close_ups.close_up(image, corners, 0)
    longest = max(box[2] - box[0], box[3] - box[1])
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    view = close_ups.window(middle, longest * close_ups.CONTEXT[0], Size(639, 479))
    theirs = CpuDevice().view(frame_of(np.ascontiguousarray(image[:, :, ::-1])), view, models.find("fast"))
    apart = np.abs(ours.image.transpose(2, 0, 1).astype(np.float32) - theirs[0])
    assert apart.max() <= 6
    assert apart.mean() < 1.2
    x0, y0, x1, y1 = view.window
    assert not any(edge % 2 for edge in view.window)
    assert 64 / view.scale == pytest.approx(max(8, longest * close_ups.CONTEXT[0]), abs=1.01)
    assert 0 <= x0 < x1 <= 640
    assert 0 <= y0 < y1 <= 480


def test_a_target_is_the_inverse_of_the_decoding() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    for label, box in ((0, (3, 5, 60, 80)), (1, (200, 150, 290, 180))):
        marked, real = np.array(box, np.float32), np.array(box, np.float32) + np.float32([2, -3, 5, 1])
        one = close_ups.close_up(image, marked, label)
        side = max(box[2] - box[0], box[3] - box[1]) * close_ups.CONTEXT[label]
        view = close_ups.window(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), side, Size(300, 200))
        corners = close_ups.decoded(one.target(real), label)[None].astype(np.float32)
        assert view.frame_from_view(corners)[0] == pytest.approx(real, abs=1e-3)


def test_targets_follow_the_pixels_however_a_close_up_is_cut() -> None:
    image = np.full((300, 400, 3), 90, np.uint8)
    image[140:160, 180:240] = 255
    plate, rng = np.array([180, 140, 240, 160], np.float32), np.random.default_rng(1)
    kinds = set()
    for _ in range(60):
        one = close_ups.close_up(image, plate + np.float32([4, -3, 9, 2]), 1, rng)
        x0, y0, x1, y1 = close_ups.decoded(one.target(plate), 1)
        rows, columns = (one.image[..., 0] > 172).nonzero()
        assert columns.mean() + 0.5 == pytest.approx((x0 + x1) / 2, abs=0.6)
        assert rows.mean() + 0.5 == pytest.approx((y0 + y1) / 2, abs=0.6)
        assert len(rows) == pytest.approx((x1 - x0) * (y1 - y0), rel=0.12)
        kinds.add((one.mirrored, one.angle != 0))
    assert len(kinds) == 4


def test_sure_faces_may_wear_something(
    packed: Path, found: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(close_ups, "worsened", lambda image, _: image.astype(np.float32))
    faces, shown = close_ups.Batches(packed, _of(found, found.labels == 0), 3, 1), []
    for share in (0.0, 1.0):
        monkeypatch.setattr(close_ups, "DISGUISED", share)
        shown.append([faces[step] for step in range(12)])
    changed = 0
    for plain, dressed in zip(*shown, strict=True):
        assert torch.equal(plain.boxes, dressed.boxes)
        differs = not torch.equal(plain.images, dressed.images)
        assert not differs or float(plain.targets) > close_ups.SURE
        changed += differs
    assert changed > 5


def test_worse_pictures_stay_pictures() -> None:
    rng, image = np.random.default_rng(0), np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    worse = [close_ups.worsened(image, rng) for _ in range(60)]
    assert all(one.shape == image.shape and one.dtype == np.float32 for one in worse)
    assert min(one.min() for one in worse) >= 0
    assert max(one.max() for one in worse) <= 255
    assert sum(np.array_equal(one, image) for one in worse) in range(3, 30)


def test_a_batch_depends_on_seed_and_step_alone(packed: Path, found: Candidates) -> None:
    forward, other = (close_ups.Batches(packed, found, 3, 8) for _ in range(2))
    _, first, again = forward[0], forward[1], other[1]
    for f in fields(close_ups.Batch):
        assert torch.equal(getattr(first, f.name), getattr(again, f.name)), f.name
    assert not torch.equal(first.images, forward[2].images)
    assert not torch.equal(first.images, close_ups.Batches(packed, found, 4, 8)[1].images)
    with pytest.raises(ValueError, match="no candidates"):
        close_ups.Batches(packed, _of(found, found.scores > 2), 3, 8)


def _of(found: Candidates, kept: np.ndarray) -> Candidates:
    return Candidates(**{f.name: getattr(found, f.name)[kept] for f in fields(Candidates)})


def test_each_kind_is_drawn_as_often_as_its_share_says(packed: Path, found: Candidates) -> None:
    drawn = close_ups.Batches(packed, found, 3, 4096)
    chosen = np.searchsorted(drawn._cumulative, np.random.default_rng(0).random(4096))
    kinds = [(int(found.labels[k]), int(found.targets[k] > 0.5)) for k in chosen]
    there = {
        (int(label), int(target > 0.5)) for label, target in zip(found.labels, found.targets, strict=True)
    }
    total = sum(close_ups.SHARES[label][real] for label, real in there)
    for label, real in there:
        share = close_ups.SHARES[label][real] / total
        assert kinds.count((label, real)) / 4096 == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize(
    ("kernel", "side", "stride"), [(5, 4, 1), (5, 4, 2), (5, 2, 1), (3, 2, 1), (3, 3, 2)]
)
def test_small_maps_are_convolved_as_by_torch(kernel: int, side: int, stride: int) -> None:
    torch.manual_seed(0)
    ours = Depthwise(6, 6, kernel, stride, kernel // 2, groups=6, bias=True)
    x = torch.randn(3, 6, side, side, requires_grad=True)
    found = []
    for way in (ours, lambda x: F.conv2d(x, ours.weight, ours.bias, stride, kernel // 2, 1, 6)):
        y = way(x)
        spread = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        found.append([y, *torch.autograd.grad((y * spread).sum(), [x, ours.weight, ours.bias])])
    assert found[0][0].grad_fn.name() != found[1][0].grad_fn.name()  # it was another way
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_it_starts_as_the_detector_that_ships() -> None:
    stage, own = second_network.load(FAST), network.build("fast").eval()
    own.load_state_dict(torch.load(FAST, weights_only=True)["mean"])
    picture = torch.randn(2, 3, 64, 64)
    for a, b in zip(stage.net(picture), own(picture), strict=True):
        assert torch.allclose(a, b, atol=1e-3)
    learned = {name for name, parameter in stage.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("net.stem.") for name in learned)
    assert {name.split(".")[0] for name in learned} == {"net", "r", "fc", "out", "box", "w"}
    logits, _ = stage.eval()(picture, torch.tensor([[1.0, 5.0], [-2.0, 7.0]]))
    assert logits.tolist() == [[1, 1], [-2, -2]]  # nothing but what the detector thought
    with pytest.raises(ValueError, match="accurate"):
        second_network.load(resources.path("models/training/accurate.pt"))


def test_a_state_or_a_checkpoint_is_exported_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = _stage()
    stage.w.data[0, 1] = 0.25
    state = stage.state_dict()
    assert {
        "net.stem.0.weight",
        "net.stages.2.0.depthwise.bias",
        "r.2.weight",
        "fc.weight",
        "w",
    } <= state.keys()
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        expected = stage.eval()(network.normalise(torch.from_numpy(images)), torch.zeros(5, 2))
    for number, saved in enumerate((state, {"model": "fast", "mean": state, "seen": 9})):
        file, out = tmp_path / f"{number}.pt", tmp_path / str(number)
        torch.save(saved, file)
        second.main(["--out", str(out), "--init", str(file), "--samples", "0"])
        assert "weights = { face = [1, 1.0, 0.25, 0], plate = [1, 1.0, 0.0, 0] }" in capsys.readouterr().out
        session = onnxruntime.InferenceSession(
            out / "streamer_second.onnx", providers=["CPUExecutionProvider"]
        )
        assert [(o.name, o.shape) for o in session.get_outputs()] == [
            ("score", ["batch", 2]),
            ("box", ["batch", 8]),
        ]
        for ours, theirs in zip(session.run(None, {"x": images}), expected, strict=True):
            assert np.abs(ours - theirs.numpy()).max() < 1e-4


def test_only_ordinary_convolutions_are_exported(tmp_path: Path) -> None:
    import onnx

    second_network.export(_stage().train(), tmp_path / "own.onnx")
    graph = onnx.load(tmp_path / "own.onnx")
    assert [entry.version for entry in graph.opset_import] == [17]
    kinds = {node.op_type for node in graph.graph.node}
    assert "Conv" in kinds
    assert not kinds & {"MatMul", "Dropout", "BatchNormalization", "Einsum"}


def test_a_resumed_run_equals_an_uninterrupted_one(packed: Path, found: Candidates, tmp_path: Path) -> None:
    whole = second.train(replace(_settings(tmp_path / "whole"), stop_after_steps=5), packed, found)
    parts = _settings(tmp_path / "parts")
    second.train(replace(parts, stop_after_steps=2), packed, found)
    resumed = second.train(replace(parts, stop_after_steps=5, resume=True, workers=1), packed, found)
    assert (resumed.step, resumed.seen) == (whole.step, whole.seen) == (5, 20)
    for one, other in ((whole.stage, resumed.stage), (whole.mean, resumed.mean)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    with pytest.raises(ValueError, match="seed"):
        second.train(replace(parts, seed=4, resume=True), packed, found)


def test_a_batch_seen_often_is_learned(
    packed: Path, found: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second, "_WARMUP_STEPS", 1)
    trainer = second.Trainer(replace(_settings(tmp_path), samples=1_000_000))
    stem = trainer.stage.net.stem[0].weight.clone()
    batch = close_ups.Batches(packed, found, 3, 16)[0]
    costs = [sum(float(cost) for cost in trainer.learn(batch)) for _ in range(30)]
    assert costs[-1] < 0.5 * costs[0]
    assert torch.equal(stem, trainer.stage.net.stem[0].weight)


def test_from_the_data_to_the_network(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    line = ["--data", str(packed.parent), "--out", str(tmp_path), "--pack", str(packed), "--every", "3"]
    second.main([*line, "--samples", "24", "--batch", "8", "--workers", "0"])
    said = capsys.readouterr().out
    assert "candidates, 24 samples" in said
    assert "weights = { face = [1, " in said
    second.main([*line, "--samples", "40", "--batch", "8", "--workers", "0", "--resume"])
    assert torch.load(tmp_path / "second.pt", weights_only=True)["step"] == 5
    session = onnxruntime.InferenceSession(
        tmp_path / "streamer_second.onnx", providers=["CPUExecutionProvider"]
    )
    images = np.stack([Pack(packed).image(p)[:64, :64].transpose(2, 0, 1) for p in Pack(packed).pictures])
    score, box = session.run(None, {"x": images.astype(np.float32)})
    assert score.shape == (6, 2)
    assert box.shape == (6, 8)
    assert np.isfinite(score).all()


def test_the_shipped_second_stage_is_what_its_checkpoint_says() -> None:
    stage = second_network.load(resources.path("models/training/second.pt"))
    shipped = models.find("fast").second
    assert shipped is not None
    away = disagreement(second_network.Exported(stage).eval(), shipped.spec.weights, (64, 64))
    assert away < 1e-3
