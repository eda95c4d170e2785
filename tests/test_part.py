"""Two runs that write one file, and what a crash left."""

import os
from pathlib import Path

import pytest

from streamer import part as parts
from streamer.errors import OutputError
from streamer.part import Part


def test_a_file_is_written_by_one_run_at_a_time(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    first = Part(target)
    first.path.write_bytes(b"first")
    for _ in range(2):
        with pytest.raises(OutputError, match="another run is writing this file"):
            Part(target)
    assert first.path.read_bytes() == b"first"
    first.keep()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    second = Part(target)
    second.path.write_bytes(b"second")
    second.drop()
    assert target.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_what_a_crash_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out.mp4.part").write_bytes(b"left")
    part = Part(tmp_path / "out.mp4")
    part.path.write_bytes(b"new")
    part.keep()
    assert (tmp_path / "out.mp4").read_bytes() == b"new"


def test_a_link_in_its_place_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    for place in ("precious", "nowhere"):
        (tmp_path / "out.mp4.part").symlink_to(tmp_path / place)
        with pytest.raises(OutputError, match="cannot be written"):
            Part(tmp_path / "out.mp4")
        (tmp_path / "out.mp4.part").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_part_that_gets_its_name_meanwhile_is_not_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run is done between the opening of its part and the asking for the lock."""
    target = tmp_path / "out.mp4"
    other = Part(target)
    other.path.write_bytes(b"other")
    opening, opened = os.open, []

    def open_and_wait(path: Path, flags: int, mode: int) -> int:
        opened.append(path)
        handle = opening(path, flags, mode)
        if len(opened) == 1:
            other.keep()
        return handle

    monkeypatch.setattr(os, "open", open_and_wait)
    part = Part(target)
    part.path.write_bytes(b"mine")
    assert target.read_bytes() == b"other"
    part.keep()
    assert target.read_bytes() == b"mine"


def test_no_handle_is_left_open(tmp_path: Path) -> None:
    def handles() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = handles()
    for _ in range(3):
        held = Part(tmp_path / "a")
        with pytest.raises(OutputError):
            Part(tmp_path / "a")
        held.drop()
        with pytest.raises(OutputError):
            Part(tmp_path / "none" / "a")
        Part(tmp_path / "a").keep()
    assert handles() == before


def test_a_system_without_locks_writes_and_deletes_what_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows, where an open file can be neither renamed nor deleted."""
    monkeypatch.setattr(parts, "_LOCKS", False)
    target, opened = tmp_path / "a", []
    for name in ("replace", "unlink"):
        inner = getattr(Path, name)

        def only_closed(path: Path, *arguments: object, inner: object = inner, **named: object) -> object:
            opened.append([link for link in Path("/proc/self/fd").iterdir() if _leads_to(link, path)])
            return inner(path, *arguments, **named)  # type: ignore[operator]

        monkeypatch.setattr(Path, name, only_closed)
    Part(target).keep()
    Part(target).drop()
    assert opened == [[], []]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def _leads_to(link: Path, path: Path) -> bool:
    try:
        return str(link.readlink()) == str(path)
    except OSError:
        return False


def test_a_part_knows_when_it_was_deleted(tmp_path: Path) -> None:
    part = Part(tmp_path / "a")
    assert part.there
    part.path.unlink()
    assert not part.there
    other = Part(tmp_path / "a")
    assert not part.there
    part.leave()
    assert other.there
    other.drop()
