"""The training code, in its short form: a handful of drawn pictures, a few steps, CPU."""

import json
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
torch = pytest.importorskip("torch", reason="torch is not installed (extra `train`)")
pytest.importorskip("onnx", reason="onnx is not installed (extra `train`)")

from models.training import (  # noqa: E402
    augment,
    batches,
    degrade,
    disguise,
    drawn,
    loop,
    loss,
    network,
    optimizer,
    paste,
    processes,
    quarters,
)
from models.training.augment import Sampler  # noqa: E402
from models.training.export import Exported, disagreement, export, fused  # noqa: E402
from models.training.pack import Pack, pack  # noqa: E402
from models.training.processes import train_together  # noqa: E402
from models.training.teacher import Lesson  # noqa: E402
from streamer import resources  # noqa: E402


def draw_pictures(folder: Path, count: int) -> None:
    """`count` grey pictures, each with a face and a plate, in the format of the data folder."""
    rng = np.random.default_rng(1)
    rows = []
    (folder / "train").mkdir(parents=True)
    for number in range(count):
        image = np.full((240, 320, 3), int(rng.integers(40, 200)), np.uint8)
        x, y = (int(v) for v in rng.integers(60, 120, 2))
        cv2.circle(image, (x, y), 30, (150, 180, 220), -1)
        cv2.circle(image, (x - 10, y - 8), 4, (0, 0, 0), -1)
        cv2.circle(image, (x + 10, y - 8), 4, (0, 0, 0), -1)
        cv2.rectangle(image, (180, 180), (260, 200), (255, 255, 255), -1)
        name = f"train/{number}.png"
        cv2.imwrite(str(folder / name), image)
        face = {"class": "face", "box": [x - 30, y - 30, 60, 60]}
        plate = {"class": "plate", "box": [180, 180, 81, 21]}
        row = {"file": name, "width": 320, "height": 240, "source": "drawn", "labelled": ["face", "plate"]}
        rows.append(row | {"objects": [face, plate]})
    rows[0] |= {"labelled": ["plate"], "objects": [rows[0]["objects"][1]]}
    rows[0]["teacher"] = [{"class": "face", "box": [1, 2, 30, 40], "score": 0.6}]
    (folder / "train.json").write_text(json.dumps(rows), encoding="utf-8")


def pack_drawn(data: Path) -> Path:
    """A pack of six drawn pictures, in `data`."""
    draw_pictures(data, 6)
    pack(data, data / "pack", workers=1)
    return data / "pack"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_drawn(tmp_path_factory.mktemp("data"))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops alone: nothing added, nothing turned."""
    for name in ("FACES", "PLATES", "DRAWN", "SIGNS", "REPLACED"):
        monkeypatch.setattr(paste, name, 0.0)
    monkeypatch.setattr(augment, "TURNED", {paste.FACE: 0.0, paste.PLATE: 0.0})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    size = network.Size(channels=(8, 8, 16, 16, 16), blocks=(0, 1, 1, 1), head_blocks=1)
    monkeypatch.setitem(network.SIZES, "fast", size)
    monkeypatch.setattr(batches, "SIDES", (64, 64, 64, 96))
    torch.set_num_threads(1)  # deterministic, and tiny tensors lose more than they gain by a second one


def _settings(packed: Path, out: Path) -> loop.Settings:
    plan = batches.Plan(pack=packed, seed=3, samples=64, micro_batch=2, micro_batches=2, turned=0.5)
    return loop.Settings(model="fast", out=out, plan=plan)


def test_pack_holds_the_pixels_and_knows_what_is_unknown(packed: Path) -> None:
    pictures = Pack(packed).pictures
    image = Pack(packed).image(pictures[1])
    assert image.shape == (240, 320, 3)
    assert tuple(image[190, 182]) == (255, 255, 255)
    assert pictures[1].boxes[:, 0].tolist() == [0, 1]
    assert pictures[0].boxes[:, 0].tolist() == [1]
    assert pictures[0].ignored.tolist() == [[0, 1, 2, 31, 42]]  # the teacher was not sure: neither


def test_a_second_pack_is_not_made(packed: Path) -> None:
    before = (packed / "images.u8").stat().st_mtime_ns
    pack(packed.parent, packed, workers=1)
    assert (packed / "images.u8").stat().st_mtime_ns == before


def test_a_sample_depends_on_its_index_alone(packed: Path) -> None:
    plan = batches.Plan(pack=packed, seed=3, samples=64, micro_batch=2, micro_batches=2)
    forward, other = batches.Batches(plan), batches.Batches(plan)
    first, second = forward[4], forward[5]
    again = other[5]
    assert torch.equal(second.images, again.images)
    assert torch.equal(second.boxes, again.boxes)
    assert not torch.equal(second.images, first.images)


def test_worker_processes_make_the_same_batches(packed: Path, tmp_path: Path) -> None:
    settings = _settings(packed, tmp_path)
    inline = loop._batches(settings, settings.plan)
    elsewhere = loop._batches(replace(settings, workers=2), settings.plan)
    for _ in range(5):
        ours, theirs = next(inline), next(elsewhere)
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.boxes, theirs.boxes)
        assert torch.equal(ours.ignored, theirs.ignored)


def test_every_tensor_of_a_batch_moves_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader pins what has `pin_memory`; a tensor left out would make each copy wait."""
    from torch.utils.data._utils.pin_memory import pin_memory

    tensors = [torch.zeros(1) for _ in range(6)]
    batch = batches.Batch(*tensors[:4], [tensors[4]], [tensors[5]])
    moved: list[object] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: moved.append(self) or self)
    pin_memory(batch)
    assert {id(tensor) for tensor in moved} == {id(tensor) for tensor in tensors}


def test_matrices_are_turned_alike_alone_and_together() -> None:
    torch.manual_seed(0)
    for shape in ((8, 24), (24, 8)):
        alone = [torch.randn(shape) for _ in range(3)]
        together = optimizer._orthogonal(torch.stack(alone))
        for gradient, turn in zip(alone, together, strict=True):
            assert torch.allclose(optimizer._orthogonal(gradient), turn, atol=1e-5)
            assert float(torch.linalg.svdvals(turn).min()) > 0.6


def test_boxes_follow_the_pixels(packed: Path, plain: None) -> None:
    """Where a sample says plate, the picture shows the plate's white."""
    sampler, brightness = Sampler(Pack(packed), seed=5), []
    for index in range(40):
        sample = sampler.sample((index,), 320, 0.5)
        for kind, x0, y0, x1, y1 in sample.boxes:
            if kind == 1 and y1 - y0 > 12:
                inside = sample.clean[int(y0) + 1 : int(y1), int(x0) + 1 : int(x1)]
                brightness.append(np.median(inside))
    assert len(brightness) > 10
    assert min(brightness) > 215


@pytest.mark.usefixtures("plain")
def test_turned_boxes_stay_on_their_objects(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turned plate's box is the hull of its white pixels; a turned face's that of its disc."""
    monkeypatch.setattr(augment, "TURNED", {paste.FACE: 1.0, paste.PLATE: 1.0})
    image = np.full((240, 320, 3), 90, np.uint8)
    cv2.rectangle(image, (190, 150), (269, 169), (255, 255, 255), -1)
    cv2.circle(image, (100, 100), 30, (0, 0, 255), -1)
    boxes = np.array([[1, 190, 150, 270, 170], [0, 69.5, 69.5, 131.5, 131.5]], np.float32)
    for degrees in (-12, -5, 7, 12):
        angle = float(np.deg2rad(degrees))
        canvas = augment._canvas(240, 180, angle)
        assert canvas <= (320, 240)
        middle = image[(240 - canvas[1]) // 2 :, (320 - canvas[0]) // 2 :][: canvas[1], : canvas[0]]
        shift = np.array([0, *((320 - canvas[0]) // 2, (240 - canvas[1]) // 2) * 2], np.float32)
        turned = augment._turn(middle, angle, (240, 180))
        plate, face = augment._turned(boxes - shift, angle, canvas, (240, 180))
        white, red = turned.min(2) > 170, (turned[..., 2] > 170) & (turned[..., 0] < 50)
        for box, seen in ((plate, white), (face, red)):
            rows, columns = seen.any(1).nonzero()[0], seen.any(0).nonzero()[0]
            hull = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(box[1:] - hull).max() < 2


def test_a_turned_sample_keeps_its_boxes_and_lessons_on_its_pixels() -> None:
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, 8:24, 40:48] = 200
    boxes = np.array([[0, 0, 40, 8, 48, 24]], np.float32)
    cells = image[:, ::8, ::8, :1].transpose(0, 3, 1, 2).astype(np.float32)
    for turn in range(4):
        shown = quarters.turned_maps(image, [turn], (1, 2))[0]
        lesson = Lesson(np.ones(1, np.float32), boxes, [cells], [cells])
        taught = quarters.turned_lesson(lesson, [turn], 64)
        x0, y0, x1, y1 = quarters.turned_boxes(boxes, [turn], 64)[0, 2:].astype(int)
        assert (shown[y0:y1, x0:x1] == 200).all()
        assert (shown == 200).sum() == 3 * (y1 - y0) * (x1 - x0)
        assert taught.doubtful[0, 2:].tolist() == [x0, y0, x1, y1]
        assert (taught.features[0][0, 0] == shown[::8, ::8, 0]).all()
        assert (taught.scores[0][0, 0] == shown[::8, ::8, 0]).all()


def test_samples_are_turned_as_often_as_it_says() -> None:
    turns = [quarters.drawn(3, (index,), 0.5) for index in range(4000)]
    shares = np.bincount(turns, minlength=4) / len(turns)
    assert np.abs(shares - [0.5, *(part / 2 for part in quarters.SHARES)]).max() < 0.02
    assert turns == [quarters.drawn(3, (index,), 0.5) for index in range(4000)]
    assert not any(quarters.drawn(3, (index,), 0.0) for index in range(400))


def test_a_degraded_sample_is_the_same_every_time(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in (
        (paste, ("FACES", "PLATES", "DRAWN", "SIGNS", "REPLACED")),
        (degrade, ("RAIN", "NOISE", "NIGHT", "NIGHT_NOISE", "H264", "MOTION")),
        (disguise, ("DISGUISED",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, 0.7)
    first, second = (Sampler(Pack(packed), seed=2) for _ in range(2))
    kinds = set()
    for index in range(12):
        one, other = first.sample((index,), 192, 0.3), second.sample((index,), 192, 0.3)
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.boxes, other.boxes)
        assert not np.array_equal(one.image, one.clean)
        kinds |= set(one.boxes[:, 0].tolist())
    assert kinds == {0, 1}


@pytest.mark.parametrize(("name", "kind"), [("FACES", 0), ("PLATES", 1), ("DRAWN", 1), ("SIGNS", None)])
@pytest.mark.usefixtures("plain")
def test_what_is_added_is_labelled_and_leaves_other_boxes_alone(
    packed: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: int | None
) -> None:
    monkeypatch.setattr(paste, name, 1.0)
    objects, rng = paste.Objects(Pack(packed)), np.random.default_rng(4)
    known = np.array([[1, 0, 0, 320, 90]], np.float32)
    ignored = np.array([[0, 0, 90, 150, 320]], np.float32)  # faces are unknown here
    added = 0
    for _ in range(30):
        image = np.full((320, 320, 3), 77, np.uint8)
        boxes = paste.populate(rng, objects, image, known, ignored, 1.0)
        changed = (image != 77).any(2)
        assert not changed[:90].any()
        assert not changed[:, :150].any()
        assert boxes[0].tolist() == known[0].tolist()
        assert (boxes[1:, 0] == (-1 if kind is None else kind)).all()
        inside = np.zeros_like(changed)
        for x0, y0, x1, y1 in boxes[1:, 1:].round().astype(int):
            assert changed[y0:y1, x0:x1].mean() > 0.4
            inside[y0:y1, x0:x1] = True
        if len(boxes) > 1:
            assert (changed & inside).sum() > 0.25 * changed.sum()  # the rest is rim
        added += int(changed.any())
    assert added > 10


@pytest.mark.usefixtures("plain")
def test_a_plate_drawn_over_a_real_one_has_its_box(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paste, "REPLACED", 1.0)
    objects, rng = paste.Objects(Pack(packed)), np.random.default_rng(4)
    boxes = np.array([[1, 100, 140, 200, 164]], np.float32)
    drawn_over = 0
    for _ in range(12):
        image = np.full((320, 320, 3), 77, np.uint8)
        after = paste.populate(rng, objects, image, boxes, boxes[:0], 1.0)
        assert np.array_equal(after, boxes)
        changed = (image != 77).any(2)
        if changed.any():
            drawn_over += 1
            assert changed[140:164, 100:200].mean() > 0.7
            changed[130:174, 86:214] = False
            assert not changed.any()
    assert 0 < drawn_over < 12


def test_every_country_has_plates() -> None:
    rng = np.random.default_rng(0)
    for style in drawn.STYLES.values():
        plate = drawn.draw_plate(rng, sum(style.aspect) / 2)
        assert plate.shape[0] == drawn.HEIGHT
        assert abs(plate.shape[1] / drawn.HEIGHT / (sum(style.aspect) / 2) - 1) < 0.45
        assert plate.std() > 5


def test_a_disguise_covers_the_face_and_little_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disguise, "DISGUISED", 1.0)
    image = np.full((200, 200, 3), 120, np.uint8)
    boxes = np.array([[0, 70, 70, 130, 140], [1, 0, 0, 40, 12]], np.float32)
    rng, covered = np.random.default_rng(0), 0
    for _ in range(30):
        changed = (disguise.disguise(rng, image, boxes) != 120).any(2)
        covered += int(changed[70:140, 70:130].mean() > 0.05)
        changed[40:165, 50:150] = False
        assert not changed.any()
    assert covered > 8
    assert (image == 120).all()


def test_motion_blurs_along_its_angle() -> None:
    for angle, along in ((0.0, (1, 0)), (np.pi / 2, (0, 1))):
        kernel = degrade.motion_kernel(6.0, angle)
        assert kernel.sum() == pytest.approx(1)
        y, x = np.mgrid[: len(kernel), : len(kernel)] - len(kernel) // 2
        spread = np.sqrt((kernel * x**2).sum()), np.sqrt((kernel * y**2).sum())
        assert spread == pytest.approx(np.array(along) * 1.8, abs=0.2)


def test_noise_is_strongest_in_the_dark() -> None:
    image = np.full((128, 256, 3), 40, np.uint8)
    image[:, 128:] = 200
    ratios = []
    for seed in range(20):
        noisy = degrade._noise(np.random.default_rng(seed), image).astype(float)
        ratios.append(noisy[:, :128].std() / noisy[:, 128:].std())
    assert np.mean(ratios) > 1.2


def test_an_unlabelled_class_costs_nothing() -> None:
    outputs = [torch.zeros(1, 6, 64 // s, 64 // s) for s in network.STRIDES]
    everywhere = torch.tensor([[0, kind, 0, 0, 64, 64] for kind in (0, 1)], dtype=torch.float32)
    none = torch.zeros(0, 6)
    assert float(loss.detection_loss(outputs, loss.Targets(none, everywhere)).scores) == 0
    assert float(loss.detection_loss(outputs, loss.Targets(none, everywhere[:1])).scores) > 0


def test_a_perfect_box_is_cheap_and_a_shifted_one_is_not() -> None:
    box = torch.tensor([[0, 0, 16.0, 16.0, 40.0, 40.0]])
    centres, strides = loss._anchors(((8, 8), (4, 4), (2, 2)), torch.device("cpu"))
    raw = torch.zeros(84, 4)
    raw[:, :2] = (torch.tensor([28.0, 28.0]) - centres) / strides[:, None]
    raw[:, 2:] = torch.log(24 / strides)[:, None]
    assert torch.allclose(loss.decode(raw, centres, strides), box[0, 2:].expand(84, 4), atol=1e-4)
    maps = torch.cat([torch.zeros(84, 2), raw], 1).T
    split = [part.reshape(1, 6, n, n) for part, n in zip(maps.split([64, 16, 4], 1), (8, 4, 2), strict=True)]
    good = loss.detection_loss(split, loss.Targets(box, torch.zeros(0, 6)))
    bad = loss.detection_loss([part + 0.5 for part in split], loss.Targets(box, torch.zeros(0, 6)))
    assert float(good.positives) > 1
    assert float(good.boxes) < 0.01 < float(bad.boxes)


def test_a_grown_network_computes_the_same() -> None:
    torch.manual_seed(0)
    shallow = network.Network(network.Size((8, 8, 16, 16, 16), (0, 1, 1, 1), head_blocks=1)).eval()
    deep = network.Network(network.Size((8, 8, 16, 16, 16), (0, 2, 3, 1), head_blocks=1)).eval()
    assert network.load_grown(deep, shallow.state_dict()) == ["stages.0.2", "stages.1.2", "stages.1.3"]
    picture = torch.randn(1, 3, 64, 96)
    for a, b in zip(shallow(picture), deep(picture), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    wide = network.Network(network.Size((12, 8, 24, 16, 24), (1, 2, 1, 1), neck=72, head_blocks=1)).eval()
    network.load_grown(wide, shallow.state_dict())
    for a, b in zip(shallow(picture), wide(picture), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    with pytest.raises(ValueError, match="larger network"):
        network.load_grown(shallow, wide.state_dict())


@pytest.mark.usefixtures("small")
def test_a_resumed_run_equals_an_uninterrupted_one(packed: Path, tmp_path: Path) -> None:
    whole = loop.train(replace(_settings(packed, tmp_path / "whole"), stop_after_steps=6))
    parts = _settings(packed, tmp_path / "parts")
    loop.train(replace(parts, stop_after_steps=3))
    resumed = loop.train(replace(parts, stop_after_steps=6, resume=True))
    assert (resumed.step, resumed.seen) == (whole.step, whole.seen)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    for name, tensor in whole.mean.state_dict().items():
        assert torch.equal(tensor, resumed.mean.state_dict()[name]), name


@pytest.mark.usefixtures("small")
def test_the_horizon_ends_the_run(packed: Path, tmp_path: Path) -> None:
    trained = loop.train(_settings(packed, tmp_path))
    assert 64 <= trained.seen < 68
    assert trained.checkpoint.exists()


def test_two_processes_share_a_run(packed: Path, tmp_path: Path) -> None:
    plan = replace(_settings(packed, tmp_path).plan, world=2, micro_batch=1, micro_batches=1)
    settings = replace(_settings(packed, tmp_path), plan=plan, stop_after_steps=2)
    train_together(settings)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (state["step"], state["seen"]) == (2, 4)


def _wait_and_tell(file: Path) -> None:
    processes._end_with_the_parent()
    file.write_text(str(os.getpid()))
    time.sleep(60)


def _start_one(file: Path) -> None:
    multiprocessing.get_context("spawn").Process(target=_wait_and_tell, args=(file,)).start()
    time.sleep(60)


def test_a_process_ends_when_the_one_that_started_it_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    parent = multiprocessing.get_context("spawn").Process(target=_start_one, args=(file,))
    parent.start()
    deadline = time.monotonic() + 50
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    parent.kill()
    parent.join()
    pid = int(file.read_text())
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline + 5:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break  # ended, and nobody has asked for it
        time.sleep(0.1)
    else:
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.usefixtures("small")
def test_a_batch_seen_often_is_learned(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_WARMUP_STEPS", 1)
    trainer = loop.Trainer(_settings(packed, tmp_path))
    batch = batches.Batches(trainer.settings.plan)[1]
    assert len(batch.boxes)
    costs = []
    for _ in range(40):
        losses = trainer.learn(batch, 1.0, 0.0)
        costs.append(float(losses["scores"]) + float(losses["boxes"]))
        trainer.update(0.0)
    assert costs[-1] < 0.7 * costs[0]


@pytest.mark.usefixtures("small")
def test_export_equals_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = network.build("fast")
    for module in own.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    own.eval()
    picture = torch.rand(1, 3, 64, 64) * 255
    plain = own(network.normalise(picture))
    for a, b in zip(plain, fused(own)(network.normalise(picture)), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    file = tmp_path / "own.onnx"
    digest = export(own, file)
    assert len(digest) == 64
    assert disagreement(Exported(own), file) < 1e-4
    with torch.no_grad():
        own.predict[0].bias += 1
    assert disagreement(Exported(own), file) > 0.1


@pytest.mark.parametrize("name", ["fast", "accurate"])
def test_the_checkpoint_that_ships_is_the_network_that_ships(name: str) -> None:
    own = network.build(name)
    own.load_state_dict(torch.load(resources.path(f"models/training/{name}.pt"), weights_only=True)["mean"])
    assert disagreement(Exported(own).eval(), resources.path(f"models/streamer_{name}.onnx")) < 1e-3


def test_accurate_is_the_larger_one() -> None:
    sizes = {name: sum(p.numel() for p in network.build(name).parameters()) for name in network.SIZES}
    assert sizes["accurate"] > 3 * sizes["fast"]


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_half_precision_depthwise_gradients_are_those_of_torch(kernel: int, stride: int) -> None:
    from models.training.depthwise import Depthwise

    torch.manual_seed(0)
    ours = Depthwise(8, 8, kernel, stride, kernel // 2, groups=8, bias=False)
    gradients = []
    for half in (False, True):
        x = torch.randn(2, 8, 12, 14, generator=torch.Generator().manual_seed(1), requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = ours(x)
        spread = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        ours.zero_grad()
        (y.float() * spread).sum().backward()
        gradients.append((x.grad, ours.weight.grad.clone()))
    for exact, half_exact in zip(*gradients, strict=True):
        assert (exact - half_exact).abs().max() < 0.02 * exact.abs().max()
