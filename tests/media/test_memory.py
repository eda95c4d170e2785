"""Pictures go when nobody needs them: memory does not wait for Python's collector."""

import gc

import av

from streamer.media.source import FileSource
from streamer.tally import Tally
from tests import clips


def test_decoded_pictures_do_not_pile_up(tmp_path) -> None:
    path = clips.make(tmp_path / "clip.mp4", clips.Clip(frames=40))
    gc.collect()
    gc.disable()
    try:
        before = _alive()  # other tests' fixtures may hold some
        with FileSource(path, tally=Tally()) as source:
            frames = sum(1 for _ in source)
            alive = _alive() - before
    finally:
        gc.enable()
    assert frames == 40
    assert alive <= 6


def _alive() -> int:
    return sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
