"""Texts that people and machines send: settings, zones, addresses, SDP fragments. An answer or an error of ours."""

import contextlib
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streamer import config, zones
from streamer.address import redacted_url
from streamer.config import Settings
from streamer.errors import ConfigError
from streamer.frame import Size

MANY = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PARTS = list(Settings.model_fields)
KEYS = sorted(
    {key for part in ("mask", "detect", "track", "output") for key in Settings().model_dump()[part]}
)
scalar = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["auto", "blur", "cuda"]),
)
nested = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), scalar, max_size=4)
loose = st.dictionaries(st.sampled_from(PARTS) | st.text(max_size=8), scalar | nested, max_size=4)
anything = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)
corner = st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5))
polygons = st.lists(st.lists(corner, max_size=6))


@MANY
@given(loose)
def test_settings_are_taken_or_refused_by_name(values) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(config.settings_from(values), Settings)


@MANY
@example(b"\r")  # a line end in text, none in TOML
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_a_configuration_file_of_anything(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.toml"
    path.write_bytes(data)
    try:
        read = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        with pytest.raises(ConfigError):
            config.load(path)
    else:
        assert not read or isinstance(read, dict)
        with contextlib.suppress(ConfigError):
            config.load(path)


@MANY
@given(
    anything
    | st.fixed_dictionaries({}, optional={"mask": anything, "keep": st.lists(st.lists(corner, max_size=6))})
)
def test_zones_of_anything(tmp_path: Path, values) -> None:
    path = tmp_path / "zones.json"
    path.write_text(json.dumps(values))
    with contextlib.suppress(ConfigError):
        zones.plan_zones(zones.load_zones(path), Settings().mask, Size(97, 65))


@MANY
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=7), min_size=1, max_size=3
    )
)
def test_every_zone_that_is_taken_is_planned_inside_the_picture(tmp_path: Path, polygons) -> None:
    path = tmp_path / "zones.json"
    path.write_text(json.dumps({"mask": polygons}))
    try:
        plan = zones.plan_zones(zones.load_zones(path), Settings().mask, Size(640, 360))
    except ConfigError:
        return
    assert len(plan) or all(_flat(polygon) for polygon in polygons)
    assert (plan.boxes >= 0).all()
    assert (plan.boxes[:, 2] <= 640).all()
    assert (plan.boxes[:, 3] <= 360).all()


def _flat(polygon) -> bool:
    """Whether a polygon is thinner than a pixel; along the border it may then touch none."""
    return any(max(side) - min(side) < 0.01 for side in zip(*polygon, strict=True))


word = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8, max_size=12)


@MANY
@given(st.sampled_from(["rtsp", "rtsps", "http", "https", "srt", "rtmp"]), word, word, st.text(max_size=20))
def test_no_address_shows_its_password(scheme: str, user: str, secret: str, rest: str) -> None:
    shown = redacted_url(f"{scheme}://{user}:{secret}@camera.example/{rest}")
    assert secret not in shown.replace(rest, "")


lines = st.sampled_from(
    ["a=ice-ufrag:x", "a=candidate:1 1 udp 1 127.0.0.1 9 typ host", "a=mid:0", "a=candidate:", "\x00"]
)


@MANY
@given(st.text(max_size=300) | st.lists(lines).map("\r\n".join))
def test_trickled_fragments_of_anything(text: str) -> None:
    whep = pytest.importorskip("streamer.server.whep")
    found = whep.candidates_of(text)
    assert len(found) <= text.count("a=candidate:")
