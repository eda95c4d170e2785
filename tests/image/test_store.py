import contextlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streamer.errors import OutputError
from streamer.image.store import DAY_S, Store, write_whole
from streamer.part import PartHeldError

NOW_S = 1_000_000.0


def test_what_is_put_can_be_had_for_a_day(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    name = store.put(b"data", "PNG", now_s=NOW_S).name
    assert store.get(name, now_s=NOW_S + DAY_S - 1) == b"data"
    assert store.get(name, now_s=NOW_S + DAY_S) is None
    assert not list(store.folder.iterdir())


def test_old_files_go_also_after_a_restart(tmp_path: Path) -> None:
    old = Store(tmp_path / "store").put(b"old", "JPEG", now_s=NOW_S)
    unfinished = old.with_name(f"{'a' * 32}.jpg.part")
    unfinished.write_bytes(b"half")
    os.utime(unfinished, (NOW_S, NOW_S))
    (tmp_path / "store" / "not ours.txt").write_bytes(b"kept")
    again = Store(tmp_path / "store")
    new = again.put(b"new", "JPEG", now_s=NOW_S + DAY_S)
    assert again.purge(now_s=NOW_S + DAY_S) == 2
    assert {path.name for path in again.folder.iterdir()} == {new.name, "not ours.txt"}


def test_names_cannot_be_guessed_or_lead_elsewhere(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    names = {store.put(b"x", "JPEG", now_s=NOW_S).stem for _ in range(50)}
    assert len(names) == 50
    assert all(len(name) == 32 for name in names)  # 24 random bytes
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    for name in ("../secret.jpg", "", ".", "..", "secret.jpg", "/etc/passwd", "a" * 32, "a" * 32 + ".jpg\n"):
        assert store.get(name, now_s=NOW_S) is None


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = store.put(b"x", "JPEG", now_s=NOW_S)
    assert store.folder.stat().st_mode & 0o077 == 0
    assert path.stat().st_mode & 0o077 == 0


def test_a_folder_that_others_write_or_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").mkdir()
    (tmp_path / "file").touch()
    for name in ("open", "link", "file"):
        with pytest.raises(OutputError):
            Store(tmp_path / name)


def test_a_folder_that_was_cleaned_away_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.put(b"old", "JPEG", now_s=NOW_S)
    shutil.rmtree(store.folder)
    assert store.purge(now_s=NOW_S) == 0
    name = store.put(b"new", "JPEG", now_s=NOW_S).name
    assert store.get(name, now_s=NOW_S) == b"new"
    assert store.folder.stat().st_mode & 0o077 == 0
    shutil.rmtree(store.folder)
    (tmp_path / "elsewhere").mkdir()
    store.folder.symlink_to(tmp_path / "elsewhere")  # somebody was quicker
    with pytest.raises(OutputError):
        store.put(b"new", "JPEG", now_s=NOW_S)


def test_a_file_that_cannot_be_deleted_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    first, second = (store.put(b"x", "JPEG", now_s=NOW_S) for _ in range(2))
    unlink = Path.unlink

    def busy(path: Path, missing_ok: bool = False) -> None:
        if path == first:
            raise PermissionError
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", busy)
    assert store.purge(now_s=NOW_S + DAY_S) == 1
    assert list(store.folder.iterdir()) == [first]
    assert store.get(first.name, now_s=NOW_S + DAY_S) is None
    assert store.get(second.name, now_s=NOW_S) is None


def test_a_full_store_refuses_and_old_files_make_room(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", max_bytes=10)
    store.put(b"12345678", "JPEG", now_s=NOW_S)
    with pytest.raises(OutputError, match="full"):
        store.put(b"123", "JPEG", now_s=NOW_S)
    assert store.put(b"123", "JPEG", now_s=NOW_S + DAY_S).read_bytes() == b"123"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space"):
        write_whole(tmp_path / "a.jpg", b"data")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError):
        write_whole(tmp_path / "no folder" / "a.jpg", b"data")


def test_two_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    target, whole = tmp_path / "a.jpg", {bytes([byte]) * 300_000 for byte in b"ab"}

    def write(data: bytes) -> None:
        for _ in range(200):
            with contextlib.suppress(PartHeldError):
                write_whole(target, data)
            assert target.read_bytes() in whole

    write_whole(target, next(iter(whole)))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, whole))
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]
