import base64
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import InputError, RefusedError, TooLargeError, UnsupportedError
from streamer.image.limits import ImageLimits
from streamer.image.source import Access, read
from tests.image.pictures import served

DATA = bytes(range(256)) * 3
TEXT = base64.b64encode(DATA).decode()
SMALL = Access(ImageLimits(max_bytes=len(DATA)))


@pytest.mark.parametrize(
    "image",
    [
        DATA,
        bytearray(DATA),
        memoryview(DATA),
        list(DATA),
        np.frombuffer(DATA, np.uint8),
        io.BytesIO(DATA),
        {"type": "Buffer", "data": list(DATA)},
        TEXT,
        TEXT.rstrip("="),
        "\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
        base64.urlsafe_b64encode(DATA).decode(),
        f"data:image/png;base64,{TEXT}",
        f"data:;base64,{TEXT}",
    ],
)
def test_each_form_gives_the_bytes(image: object) -> None:
    assert read(image, SMALL).data == DATA  # type: ignore[arg-type]


def test_a_file_object_that_gives_little_at_a_time_is_read_to_its_end() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(3, size or 0))

    assert read(Slow(DATA), SMALL).data == DATA
    with pytest.raises(TooLargeError):
        read(Slow(DATA * 1000), SMALL)


def test_paths_give_the_bytes_and_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a picture.bin"
    path.write_bytes(DATA)
    for image in (path, str(path), path.as_uri()):
        found = read(image, SMALL)
        assert (found.data, found.name) == (DATA, "a picture.bin")
    with path.open("rb") as file:
        assert read(file, SMALL).name == "a picture.bin"


def test_a_url_is_fetched_within_the_limits() -> None:
    with served(DATA) as url:
        found = read(f"{url}/a%20b.jpg?x=1", Access(ImageLimits(private_urls=True)))
        assert (found.data, found.name) == (DATA, "a b.jpg")
        with pytest.raises(TooLargeError):
            read(url, Access(ImageLimits(max_bytes=5, private_urls=True)))
        with pytest.raises(RefusedError):
            read(url, Access())


def test_text_of_base64_letters_is_the_file_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read("abcd", SMALL).data == base64.b64decode("abcd")
    Path("abcd").write_bytes(b"the file")
    assert read("abcd", SMALL).data == b"the file"


@pytest.mark.parametrize(
    "image",
    [
        DATA + b"!",
        [*DATA, 1],
        np.zeros(len(DATA) + 1, np.uint8),
        io.BytesIO(DATA + b"!"),
        base64.b64encode(DATA * 2).decode(),
        "A" * 10_000,
        {"type": "Buffer", "data": [*DATA, 1]},
    ],
)
def test_more_bytes_than_allowed_are_refused(image: object) -> None:
    with pytest.raises(TooLargeError):
        read(image, SMALL)  # type: ignore[arg-type]


def test_large_files_are_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLargeError):
        read(path, SMALL)


@pytest.mark.parametrize(
    "image",
    [
        [256],
        [-1],
        ["a"],
        [1.5],
        {"type": "Buffer"},
        {"type": "Blob", "data": [1]},
        {"type": "Buffer", "data": "AAAA"},
        "no such picture.jpg",
        "",
        "data:image/png;base64",
        "data:image/png;base64,!!",
        "data:image/png;base64," + "%41" * 70_000,
        "data:," + "%41" * 70_000,
        "AAAA====",
        "AA=A",
        "A" * 7 + "\u0660",
        "\0",
        "/dev/zero",
        "/",
        io.StringIO("text"),
        np.array([300], np.int64),
        7,
        None,
    ],
)
def test_what_is_no_picture_is_refused(image: object) -> None:
    with pytest.raises(InputError):
        read(image, SMALL)  # type: ignore[arg-type]


@pytest.mark.parametrize("image", [b"", [], io.BytesIO(), "data:,"])
def test_nothing_is_refused(image: object) -> None:
    with pytest.raises(UnsupportedError, match="empty"):
        read(image, SMALL)  # type: ignore[arg-type]


def test_only_the_given_folders_are_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.jpg").write_bytes(DATA)
    (inside / "link.jpg").symlink_to(outside / "a.jpg")
    access = Access(SMALL.limits, folders=(inside,))
    assert read(str(inside / "a.jpg"), access).data == DATA
    for path in (outside / "a.jpg", inside / "link.jpg", inside / ".." / "out" / "a.jpg"):
        with pytest.raises(InputError) as refused:
            read(str(path), access)
        with pytest.raises(InputError) as missing:
            read(str(path).replace("a.jpg", "b.jpg"), access)
        if "link" not in path.name:
            assert str(missing.value) == str(refused.value)  # an answer does not tell whether a file exists
        assert "a.jpg" not in str(refused.value)
        with pytest.raises(RefusedError):
            read(path.as_uri() if path.is_absolute() and ".." not in path.parts else path, access)


@pytest.mark.parametrize("length", [(3 << 18) - 1, 3 << 18, (3 << 18) + 1, 3 << 20])
def test_base64_of_any_length_is_whole(length: int) -> None:
    data = (DATA * (length // len(DATA) + 1))[:length]
    for text in (base64.b64encode(data).decode(), base64.encodebytes(data).decode()):
        assert read(text, Access()).data == data


@pytest.mark.parametrize(
    "text",
    [
        "A" * (30 << 20) + "!",
        "data:;base64," + "%41" * (10 << 20),
        "data:," + "%41" * (10 << 20),
        " " * (30 << 20),
    ],
    ids=["base64", "escaped base64", "escapes", "spaces"],
)
def test_large_text_does_not_hold_up_other_threads(text: str) -> None:
    gaps, before_s = [0.0], time.perf_counter()
    with ThreadPoolExecutor(1) as other:
        reading = other.submit(read, text, Access())
        while not reading.done():
            time.sleep(0.005)
            gaps.append(time.perf_counter() - before_s)
            before_s = time.perf_counter()
    assert isinstance(reading.exception(), InputError)
    assert max(gaps) < 0.8


def test_a_buffer_survives_json() -> None:
    text = json.dumps({"type": "Buffer", "data": list(DATA)})
    assert read(json.loads(text), SMALL).data == DATA
