import base64
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest
from numpy.typing import NDArray

import streamer
from streamer.errors import ConfigError, InputError, StreamerError, UnsupportedError
from streamer.image.limits import ImageLimits
from streamer.image.redact import Redactor
from tests.image.pictures import FACE, detail, encoded, samples_of, served

INPUTS = ["path", "url", "base64", "buffer", "array"]
RESULTS = ["path", "url", "base64", "buffer", "array"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, for this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def web(jpeg: bytes) -> Iterator[str]:
    with served(jpeg) as url:
        yield url


def as_input(form: str, data: bytes, folder: Path, web: str) -> Any:
    (folder / "in.jpg").write_bytes(data)
    return {
        "path": str(folder / "in.jpg"),
        "url": f"{web}/in.jpg",
        "base64": base64.b64encode(data).decode(),
        "buffer": {"type": "Buffer", "data": list(data)},
        "array": list(data),
    }[form]


def bytes_of(form: str, result: Any) -> bytes:
    def of_url(url: str) -> bytes:
        return Path(url2pathname(urlsplit(url).path)).read_bytes()

    readers: dict[str, Callable[[Any], bytes]] = {
        "path": lambda path: Path(path).read_bytes(),
        "url": of_url,
        "base64": base64.b64decode,
        "buffer": lambda buffer: bytes(buffer["data"]),
        "array": bytes,
    }
    return readers[form](result)


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("wanted", RESULTS)
def test_every_form_in_and_out_and_in_again(
    given: str, wanted: str, jpeg: bytes, folder: Path, web: str
) -> None:
    image = as_input(given, jpeg, folder, web)
    answer = streamer.anonymize_image(image, result=wanted, limits=ImageLimits(private_urls=True))
    data = bytes_of(wanted, answer.result)
    assert (answer.format, answer.width, answer.height) == ("JPEG", 512, 512)
    assert any(item["class"] == "Face" for item in answer.objects)
    assert set(answer.objects[0]["box"]) == {"x", "y", "w", "h"}
    x0, y0, x1, y1 = FACE
    assert detail(samples_of(data)[y0:y1, x0:x1]) < 0.35 * detail(samples_of(jpeg)[y0:y1, x0:x1])
    again = streamer.anonymize_image(answer.result, result="base64")
    assert (again.format, again.width) == ("JPEG", 512)


def test_the_default_is_a_new_file_in_the_temporary_folder(jpeg: bytes, folder: Path) -> None:
    first, second = (streamer.anonymize_image(jpeg).result for _ in range(2))
    assert first != second
    assert {Path(str(path)).parent for path in (first, second)} == {folder}
    assert str(first).endswith(".jpg")


def test_files_arrays_and_names(jpeg: bytes, person: NDArray[np.uint8], folder: Path) -> None:
    before = person.copy()
    assert streamer.anonymize_image(io.BytesIO(jpeg)).format == "JPEG"
    answer = streamer.anonymize_image(person, out=folder / "chosen.png")
    assert (answer.format, answer.result) == ("PNG", str(folder / "chosen.png"))
    assert np.array_equal(person, before)
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(person[:, :, 0])
    assert streamer.anonymize_image(matrix, result="buffer").width == 512
    with pytest.raises(UnsupportedError):
        streamer.anonymize_image(np.array(7), result="buffer")
    answer = streamer.anonymize_image(jpeg, out=str(folder / "chosen.webp"))
    assert (answer.format, answer.result) == ("WEBP", str(folder / "chosen.webp"))


def test_no_file_gets_the_name_of_a_format_that_it_is_not(jpeg: bytes, folder: Path) -> None:
    with pytest.raises(ConfigError, match="written with one of"):
        streamer.anonymize_image(jpeg, out=folder / "chosen.bmp")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("word", "classes"),
    [
        ("everything", {"Face", "License plate"}), ("Everything", {"Face", "License plate"}),
        ("faces", {"Face"}), ("Faces only", {"Face"}),
        ("plates", {"License plate"}), ("Licence plates only", {"License plate"}),
    ],
)  # fmt: skip
def test_the_words_for_what_to_hide(word: str, classes: set[str], jpeg: bytes) -> None:
    found = {item["class"] for item in streamer.anonymize_image(jpeg, hide=word).objects}
    assert found <= classes
    assert ("Face" in found) == ("Face" in classes)


@pytest.mark.parametrize("words", [{"hide": "nothing"}, {"hide": ""}, {"result": "gif"}])
def test_other_words_are_refused(words: dict[str, str], jpeg: bytes, folder: Path) -> None:
    with pytest.raises(ConfigError):
        streamer.anonymize_image(jpeg, **words)  # type: ignore[arg-type]
    assert not list(folder.iterdir())


@pytest.mark.parametrize("result", RESULTS)
def test_a_failure_leaves_no_file(
    result: str, jpeg: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError):
        streamer.anonymize_image(jpeg[:5000], result=result)
    with pytest.raises(InputError):
        streamer.anonymize_image(jpeg, result=result, limits=ImageLimits(max_pixels=100))

    def fails(*_: object) -> None:
        raise StreamerError

    monkeypatch.setattr(Redactor, "__call__", fails)
    with pytest.raises(StreamerError):
        streamer.anonymize_image(jpeg, result=result)
    assert not list(folder.iterdir())


def test_url_results_are_deleted_after_a_day(
    jpeg: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1_000_000.0
    monkeypatch.setattr("streamer.image.result.time.time", lambda: now_s)
    first = str(streamer.anonymize_image(jpeg, result="url").result)
    assert first.startswith("file://")
    now_s += 90_000
    second = str(streamer.anonymize_image(jpeg, result="url").result)
    assert [path.name for path in folder.glob("*/*")] == [second.rsplit("/", 1)[-1]]


def test_importing_streamer_is_light() -> None:
    code = (
        "import sys, streamer; print([m for m in ('cv2', 'PIL', 'onnxruntime', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_png_input_gives_png(person: NDArray[np.uint8]) -> None:
    assert streamer.anonymize_image(encoded(person, "PNG")).format == "PNG"
