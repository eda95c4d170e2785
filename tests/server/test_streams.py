"""Live streams over HTTP, with a real server and real peers."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import pytest

from streamer.errors import ConfigError
from streamer.live.status import Journal
from streamer.media.ice import ice_server
from streamer.proof.scene import write_clip
from streamer.server.keys import hashed, keys_from
from streamer.server.settings import ServeSettings, load
from tests.server.live_serving import SDP, Served, Watcher, serving

FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "face.mp4", format_name="mp4")


@pytest.fixture(scope="module")
def served(clip: Path) -> Iterator[Served]:
    with serving(
        {"camera": {"source": str(clip), "loop": True, "hls": True}}, folders=(clip.parent,)
    ) as server:
        server.wait_live()
        yield server


def offer() -> str:
    async def make() -> str:
        watcher = Watcher("")
        await watcher.peer.setLocalDescription(await watcher.peer.createOffer())
        text = watcher.peer.localDescription.sdp
        await watcher.peer.close()
        return str(text)

    return asyncio.run(make())


def test_a_viewer_joins_watches_and_leaves(served: Served) -> None:
    async def visit() -> Watcher:
        watcher = Watcher(f"{served.url}/camera/whep")
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            assert (await watcher.join(client)).status_code == 201
            await watcher.watch(40)
            assert (await client.delete(served.url + watcher.location)).status_code == 200
        await watcher.leave()
        return watcher

    watcher = asyncio.run(visit())
    assert watcher.leaks == 0
    served.wait(lambda: served.http.get("/v1/streams/camera").json()["viewers"] == 0)


def test_whep_answers_as_the_draft_says(served: Served) -> None:
    sdp = offer()
    answer = served.http.post("/camera/whep", content=sdp, headers=SDP)
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/sdp"
    assert answer.headers["location"].startswith("/camera/whep/")
    assert answer.headers["etag"]
    assert answer.headers["accept-patch"] == FRAGMENT["Content-Type"]
    assert "a=sendonly" in answer.text
    assert "H264/90000" in answer.text
    assert "VP8/90000" not in answer.text
    session = answer.headers["location"]
    fragment = "a=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host\r\na=end-of-candidates\r\n"
    assert served.http.patch(session, content=fragment, headers=FRAGMENT).status_code == 204
    assert served.http.patch(session, content=fragment, headers=SDP).status_code == 400
    assert served.http.patch(session, content="a=candidate:x", headers=FRAGMENT).status_code == 400
    ours = next(line for line in sdp.splitlines() if line.startswith("a=ice-ufrag:"))
    assert served.http.patch(session, content=f"{ours}\r\n{fragment}", headers=FRAGMENT).status_code == 204
    restart = served.http.patch(session, content=f"a=ice-ufrag:anew\r\n{fragment}", headers=FRAGMENT)
    assert restart.status_code == 422
    assert "ICE restarts" in restart.json()["error"]
    assert served.http.delete(session).status_code == 200
    assert served.http.delete(session).status_code == 404
    assert (
        served.http.patch(session, content=fragment, headers=FRAGMENT).json()["error"] == "session not found"
    )


def test_candidates_are_those_of_the_session_that_the_tag_names(served: Served) -> None:
    answer = served.http.post("/camera/whep", content=offer(), headers=SDP)
    session, tag = answer.headers["location"], answer.headers["etag"]
    another = served.http.post("/camera/whep", content=offer(), headers=SDP)
    fragment = "a=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host\r\n"

    def patch(tags: str, text: str = fragment) -> int:
        return served.http.patch(session, content=text, headers={**FRAGMENT, "If-Match": tags}).status_code

    assert [patch(tags) for tags in (tag, "*", '"*"', f'"old", {tag}')] == [204] * 4
    assert [patch(tags) for tags in ('"old"', f"W/{tag}", another.headers["etag"], "")] == [412] * 4
    assert patch("*", f"a=ice-ufrag:anew\r\na=ice-pwd:{'p' * 24}\r\n{fragment}") == 422
    for location in (session, another.headers["location"]):
        assert served.http.delete(location, headers={"If-Match": '"old"'}).status_code == 200


def test_candidates_without_end_hold_nobody_up(served: Served) -> None:
    many = "".join(
        f"a=candidate:{port} 1 udp {port} 127.0.0.1 {port} typ host\r\n" for port in range(1000, 1900)
    )
    sdp = offer().replace("a=end-of-candidates\r\n", "")
    assert "100 ICE" in served.http.post("/camera/whep", content=sdp + many, headers=SDP).json()["error"]
    session = served.http.post("/camera/whep", content=sdp, headers=SDP).headers["location"]
    begun_s = time.monotonic()
    refused = served.http.patch(session, content=many, headers=FRAGMENT)
    assert time.monotonic() - begun_s < 1
    assert refused.status_code == 400
    assert "100 ICE" in refused.json()["error"]
    assert served.http.delete(session).status_code == 200


@pytest.mark.parametrize("passed", ["/yard", ""], ids=["with its path", "with the path cut off"])
def test_a_viewer_is_led_back_below_the_path_of_another_server(clip: Path, passed: str) -> None:
    with serving({"camera": {"source": str(clip), "loop": True}}, prefix="/yard") as served:
        served.wait_live()
        answer = served.http.post(f"{passed}/camera/whep", content=offer(), headers=SDP)
        session = answer.headers["location"]
        assert session.startswith("/yard/camera/whep/")
        assert served.http.delete(passed + session.removeprefix("/yard")).status_code == 200
        refused = served.http.put(f"{passed}/v1/streams/yard", json={"source": "rtsp://192.0.2.1/1"})
        assert refused.status_code == 400
        assert "may not be called like" in refused.json()["error"]


def test_whep_refuses_what_it_cannot_serve(served: Served) -> None:
    assert (
        served.http.post("/camera/whep", content="v=0", headers={"Content-Type": "text/plain"}).status_code
        == 400
    )
    assert served.http.post("/camera/whep", content="v=0", headers=SDP).status_code == 400
    no_text = served.http.post("/camera/whep", content=b"\xff\xfe", headers=SDP)
    assert (no_text.status_code, no_text.json()["error"]) == (400, "the offer is no text")
    assert served.http.post("/camera/whep", content="x" * 100_000, headers=SDP).status_code == 400
    missing = served.http.post("/nobody/whep", content=offer(), headers=SDP)
    assert missing.status_code == 404
    assert missing.json() == {"status": "error", "error": "no stream is available on path 'nobody'"}
    broken = offer().replace("H264", "H265").replace("VP8", "VP9")
    assert served.http.post("/camera/whep", content=broken, headers=SDP).status_code == 400
    assert served.http.get("/v1/streams/camera").json()["viewers"] == 0


TURN = ice_server("turn:me:hunter%2222@turn.example:3478?transport=tcp")


def test_viewers_with_a_key_are_told_of_servers_that_help_to_connect(clip: Path) -> None:
    keys, mine = keys_from([hashed("sesame")]), {"X-API-KEY": "sesame"}
    servers = (ice_server("stun:127.0.0.1:9"), TURN)
    with serving({"camera": {"source": str(clip), "loop": True}}, keys=keys, ice_servers=servers) as served:
        for headers in ({}, {"X-API-KEY": "wrong"}):
            answer = served.http.options("/camera/whep", headers=headers)
            assert answer.status_code == 204
            assert "Link" not in answer.headers
        links = served.http.options("/camera/whep", headers=mine).headers.get_list("Link")
        assert links == [
            '<stun:127.0.0.1:9>; rel="ice-server"',
            '<turn:turn.example:3478?transport=tcp>; rel="ice-server"; username="me"; '
            'credential="hunter\\"22"; credential-type="password"',
        ]
        assert "Link" in served.http.options("/camera/whep").headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "text", ["turn:host", "stun:a:b@host", "stun:host?transport=tcp", "http://host", "turn:me:hunter22@ho st"]
)
def test_a_wrong_ice_server_is_refused_when_it_is_configured(text: str) -> None:
    with pytest.raises(ConfigError, match="an ICE server is") as caught:
        ice_server(text)
    assert "hunter22" not in str(caught.value)


def test_a_player_that_can_send_nothing_but_a_login_plays_hls(clip: Path) -> None:
    keys = keys_from([hashed("sesame")])
    with serving({"camera": {"source": str(clip), "loop": True, "hls": True}}, keys=keys) as served:
        served.wait(lambda: (s := served.streams.fleet.get("camera")) and s.meter.frames_out > 3)
        refused = served.http.get("/camera/index.m3u8")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        for login in (("vlc", "wrong"), ("sesame", "")):
            assert served.http.get("/camera/index.m3u8", auth=login).status_code == 401
        got = served.wait(
            lambda: (r := served.http.get("/camera/index.m3u8", auth=("vlc", "sesame"))).is_success and r
        )
        assert "segment" in got.text
        assert served.http.get("/v1/streams", auth=("vlc", "sesame")).status_code == 401, "it only reads HLS"
        address = served.url.replace("http://", "http://vlc:sesame@") + "/camera/index.m3u8"
        with av.open(address, timeout=10) as player:
            assert next(player.decode(video=0)).width == 320


def test_a_player_on_a_page_of_another_site_plays_hls_with_a_key(clip: Path) -> None:
    keys = keys_from([hashed("sesame")])
    page = {"Origin": "https://player.example"}
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-api-key"}
    with serving({"camera": {"source": str(clip), "loop": True, "hls": True}}, keys=keys) as served:
        asked = served.http.options("/camera/index.m3u8", headers={**page, **preflight})
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-headers"] == "x-api-key"
        mine = {**page, "X-API-KEY": "sesame"}
        playlist = served.wait(
            lambda: (r := served.http.get("/camera/index.m3u8", headers=mine)).is_success and r
        )
        segment = next(line for line in playlist.text.splitlines() if line.endswith(".ts"))
        answers = [served.http.get(f"/camera/{segment}", headers=headers) for headers in (mine, page)]
        assert [answer.status_code for answer in answers] == [200, 401]
        for answer in (playlist, *answers):
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers, (
                "a login that a browser knows is none"
            )
        assert "access-control-allow-origin" not in served.http.get("/v1/streams", headers=mine).headers


def test_no_cache_keeps_what_players_fetch(served: Served) -> None:
    playlist = served.wait(lambda: (r := served.http.get("/camera/index.m3u8")).status_code == 200 and r)
    segment = next(line for line in playlist.text.splitlines() if line.endswith(".ts"))
    for place in ("index.m3u8", segment, "segment999.ts"):
        assert served.http.get(f"/camera/{place}").headers["cache-control"] == "no-store"
    foreign = served.http.get("/camera/index.m3u8", headers={"Origin": "https://player.example"})
    assert foreign.status_code == 403
    assert "access-control-allow-origin" not in foreign.headers


def test_options_tell_what_may_be_posted(served: Served) -> None:
    answer = served.http.options("/camera/whep")
    assert answer.status_code == 204
    assert answer.headers["accept-post"] == "application/sdp"
    assert "POST" in answer.headers["access-control-allow-methods"]


def test_fifty_viewers_join_and_leave(clip: Path) -> None:
    with serving({"camera": {"source": str(clip), "loop": True}}, viewers=30) as served:
        served.wait_live()
        threads = threading.active_count()

        async def crowd() -> list[int]:
            codes = []
            async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
                for wave in range(2):
                    watchers = [
                        Watcher(f"{served.url}/camera/whep", idle=place > 0)
                        for place in range(25 if wave == 0 else 30)
                    ]
                    for watcher in watchers:
                        codes.append((await watcher.join(client)).status_code)
                    await watchers[0].watch(5)
                    assert watchers[0].leaks == 0
                    for place, watcher in enumerate(watchers):
                        if place % 2 and watcher.location:
                            await client.delete(served.url + watcher.location)
                        await watcher.leave()
                return codes

        codes = asyncio.run(crowd())
        assert codes.count(201) >= 50
        assert set(codes) <= {201, 503}
        served.wait(lambda: served.http.get("/v1/streams/camera").json()["viewers"] == 0, 60)
        state = served.http.get("/v1/streams/camera").json()
        assert state["state"] == "live"
        assert state["egress_without_receipt"] == 0
        assert threading.active_count() <= threads + 4  # the loop's own workers


def test_a_stream_that_has_ended_begins_anew_when_it_is_put_again(served: Served, clip: Path) -> None:
    order = {"source": str(clip), "loop": False}
    served.http.put("/v1/streams/once", json=order)
    served.wait(lambda: served.http.get("/v1/streams/once").json()["state"] == "ended", 60)
    first = served.streams.fleet.get("once")
    assert served.http.put("/v1/streams/once", json={**order, "style": "solid"}).status_code == 200
    assert served.streams.fleet.get("once") is not first
    served.http.delete("/v1/streams/once")


def test_streams_are_added_changed_and_removed_while_others_run(served: Served, clip: Path) -> None:
    before = served.streams.fleet.get("camera")
    added = served.http.put("/v1/streams/second", json={"source": str(clip), "loop": True})
    assert added.status_code == 200
    served.wait_live("second")
    second = served.streams.fleet.get("second")
    changed = served.http.patch("/v1/streams/second", json={"style": "solid", "hide": "faces"})
    assert changed.json()["settings"]["style"] == "solid"
    assert served.streams.fleet.get("second") is second, "masks change without a new connection"
    stopped = served.http.patch("/v1/streams/second", json={"enabled": False})
    assert stopped.json()["state"] == "stopped"
    assert served.http.post("/second/whep", content=offer(), headers=SDP).status_code == 404
    assert served.http.patch("/v1/streams/second", json={"enabled": True}).status_code == 200
    served.wait_live("second")
    assert served.http.delete("/v1/streams/second").status_code == 204
    assert served.http.get("/v1/streams/second").status_code == 404
    assert served.http.delete("/v1/streams/second").status_code == 404
    assert served.streams.fleet.get("camera") is before
    assert [stream["name"] for stream in served.http.get("/v1/streams").json()] == ["camera"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("bad name", {"source": "rtsp://cam/1"}),
        ("camera%0A", {"source": "rtsp://cam/1"}),
        ("v1", {"source": "rtsp://cam/1"}),
        ("x", {}),
        ("x", {"source": "rtsp://cam/1", "colour": "red"}),
        ("x", {"source": "rtsp://me:hunter22@cam/1", "push": ["gopher://me:hunter22@host"]}),
        ("x", {"source": "rtsp://me:hunter22@cam/1", "delay_ms": -1}),
        ("x", {"source": "rtsp://me:hunter22@cam/1", "zones": {"mask": [[[0, 0], [2, 0], [1, 1]]]}}),
        ("x", {"source": "/etc/passwd"}),
        ("x", {"source": "rtsp://\ud800/x"}),
        ("x", {"source": "/dev/video\ud800"}),
        ("x", {"source": "rtsp://cam/1\r\nX: y"}),
        ("x", {"source": "rtsp://cam/\0"}),
        ("x", {"source": "rtsp://cam/1", "record": "\0"}),
        ("x", {"source": "rtsp://cam/1", "push": [f"rtsp://host/{number}" for number in range(33)]}),
        ("x", {"source": "rtsp://***@cam/1"}),  # as it is shown: its login would be lost
        ("x", {"source": "rtsp://cam/1", "push": ["rtmp://server/live/***"]}),
        ("x", {"source": "rtsp://me:hunter22@cam/1", "record": "/tmp/elsewhere"}),
        ("x", ["source"]),
    ],
)
def test_wrong_settings_change_nothing_and_tell_no_secret(served: Served, name: str, body: object) -> None:
    answer = served.http.put(f"/v1/streams/{name}", content=json.dumps(body))
    assert answer.status_code == 400
    assert "hunter22" not in answer.text
    assert "not JSON" not in answer.text
    assert list(served.streams.fleet.known) == ["camera"]


def test_no_answer_holds_a_password(served: Served) -> None:
    body = {"source": "rtsp://me:hunter22@127.0.0.1:9/ch1", "push": ["rtsp://me:hunter22@127.0.0.1:9/x"]}
    assert "hunter22" not in served.http.put("/v1/streams/secret", json=body).text
    try:
        served.wait(lambda: served.http.get("/v1/streams/secret").json()["problem"])
        for path in ("/v1/streams", "/v1/streams/secret", "/metrics", "/healthz", "/readyz"):
            assert "hunter22" not in served.http.get(path).text
        assert served.http.get("/readyz").status_code == 200
    finally:
        served.http.delete("/v1/streams/secret")


def test_objects_are_followed_frame_by_frame(served: Served) -> None:
    found = []
    with served.http.stream("GET", "/v1/streams/camera/objects") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line[6:]))
            if len(found) == 20:
                break
    seen = [entry for entry in found if entry["objects"]]
    assert seen
    box = seen[0]["objects"][0]["box"]
    assert seen[0]["objects"][0]["class"] == "Face"
    assert box["x"] == pytest.approx(0.4, abs=0.05)
    assert [entry["pts"] for entry in found] == sorted(entry["pts"] for entry in found)


def test_hls_is_handed_out(served: Served) -> None:
    playlist = served.wait(lambda: (r := served.http.get("/camera/index.m3u8")).status_code == 200 and r)
    segment = next(line for line in playlist.text.splitlines() if line.endswith(".ts"))
    answer = served.http.get(f"/camera/{segment}")
    assert answer.headers["content-type"] == "video/mp2t"
    assert answer.content[0] == 0x47
    for place in ("index.m3u8", segment):
        head = served.http.head(f"/camera/{place}")
        assert head.status_code == 200
        assert head.content == b""
    assert served.http.get("/camera/segment999.ts").status_code == 404
    assert served.http.get("/nobody/index.m3u8").status_code == 404


def test_a_playlist_goes_on_while_its_stream_begins_anew(clip: Path) -> None:
    """Players end for good where it is missing once."""
    camera = {"source": str(clip), "loop": True, "hls": True}

    def numbers(text: str) -> tuple[int, int, list[str]]:
        tags = dict(
            line.split(":") for line in text.splitlines() if line.startswith("#EXT-X-") and ":" in line
        )
        lines = [line for line in text.splitlines() if line.startswith("segment")]
        return int(tags["#EXT-X-MEDIA-SEQUENCE"]), int(tags["#EXT-X-DISCONTINUITY-SEQUENCE"]), lines

    with serving({"camera": camera}) as served:
        first = served.http.get("/camera/index.m3u8")  # waits for it
        assert first.status_code == 200
        answers: list[httpx.Response] = []
        over = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=served.url, timeout=30, trust_env=False) as client:
                while not over.is_set():
                    answers.append(client.get("/camera/index.m3u8"))
                    over.wait(0.02)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            assert served.http.patch("/v1/streams/camera", json={"late_ms": 600}).status_code == 200
            served.wait(lambda: answers and "#EXT-X-DISCONTINUITY\n" in answers[-1].text)
        finally:
            over.set()
            asking.join(30)
        assert {answer.status_code for answer in answers} == {200}
        assert not any("ENDLIST" in answer.text for answer in answers)
        lists = [numbers(answer.text) for answer in (first, *answers)]
        known: dict[str, None] = {}
        for sequence, time_line, lines in lists:
            assert lines[0] == f"segment{sequence}.ts"
            assert time_line == lists[0][1]
            known |= dict.fromkeys(lines)
        assert list(known) == [f"segment{lists[0][0] + place}.ts" for place in range(len(known))]
        last = served.http.get(f"/camera/{lists[-1][2][0]}")
        assert last.status_code == 200
        assert served.http.patch("/v1/streams/camera", json={"hls": False}).status_code == 200
        assert served.http.get("/camera/index.m3u8").status_code == 404
        assert served.http.get("/nobody/index.m3u8").status_code == 404


def test_a_playlist_that_does_not_come_is_not_waited_for_when_the_server_stops() -> None:
    answers: list[int] = []
    with serving({"camera": {"source": "tcp://127.0.0.1:9", "hls": True}}) as served:

        def ask() -> None:
            answers.append(
                httpx.get(f"{served.url}/camera/index.m3u8", timeout=30, trust_env=False).status_code
            )

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)
        assert not answers
        begun_s = time.monotonic()
    asking.join(30)
    assert answers == [503]
    assert time.monotonic() - begun_s < 6


def test_metrics_count_what_happens(served: Served) -> None:
    text = served.http.get("/metrics").text
    values = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"
    }
    label = '{stream="camera"}'
    assert values[f"streamer_frames_in_total{label}"] > 3
    assert values[f"streamer_frames_out_total{label}"] > 3
    assert values[f"streamer_egress_without_receipt_total{label}"] == 0
    assert values[f"streamer_latency_seconds_count{label}"] > 3
    for name in ("frames_dropped_total", "frames_covered_total", "reconnects_total", "viewers", "masks",
                 "carried_box_age_seconds", "detector_lag_seconds", "detector_view"):  # fmt: skip
        assert f"streamer_{name}{label}" in values
    for stage in ("decode", "copy", "detect", "track", "mask", "encode", "send"):
        assert values[f'streamer_stage_seconds_total{{stage="{stage}",stream="camera"}}'] > 0
    assert values['streamer_state{state="live",stream="camera"}'] == 1


def test_with_keys_everything_but_health_needs_one(clip: Path) -> None:
    keys = keys_from([hashed("open sesame")])
    with serving({"camera": {"source": str(clip), "loop": True}}, keys=keys) as served:
        served.wait(lambda: served.streams.fleet.get("camera"))
        for path in ("/v1/streams", "/v1/streams/camera", "/v1/streams/camera/objects", "/metrics"):
            assert served.http.get(path).status_code == 401
        refused = served.http.post("/camera/whep", content=offer(), headers=SDP)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.headers["access-control-allow-origin"] == "*"
        assert served.http.put("/v1/streams/x", json={"source": "0"}).status_code == 401
        assert served.http.head("/healthz").status_code == served.http.head("/readyz").status_code == 200
        assert served.http.get("/healthz").status_code == 200
        served.wait(lambda: (s := served.streams.fleet.get("camera")) and s.encoder)
        bearer = {"Authorization": "Bearer open sesame"}
        assert served.http.post("/camera/whep", content=offer(), headers={**SDP, **bearer}).status_code == 201


def test_without_keys_pages_from_elsewhere_are_refused(served: Served) -> None:
    foreign = {"Origin": "https://elsewhere.example"}
    assert served.http.get("/v1/streams", headers=foreign).status_code == 403
    assert served.http.post("/camera/whep", content=offer(), headers={**SDP, **foreign}).status_code == 403
    assert served.http.get("/v1/streams", headers={"Host": "camera.example"}).status_code == 403


def test_cameras_are_configured_in_yaml(tmp_path: Path) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text(
        "port: 9000\nstreams:\n  front:\n    source: rtsp://me:hunter22@cam/1\n    delay_ms: 300\n"
    )
    settings = load(file, {})
    assert settings.port == 9000
    assert settings.streams is not None
    assert settings.streams["front"].delay_ms == 300


def test_a_log_that_fails_stops_nothing_and_hinders_no_clean_end(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = []

    def entries(self: Journal, streams: object, *, now_s: float) -> list[dict[str, object]]:
        failed.append(now_s)
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(Journal, "entries", entries)
    camera = {"source": str(clip), "loop": True, "record": str(tmp_path / "recordings")}
    with serving({"camera": camera}) as served:
        served.wait_live()
        served.wait(lambda: len(failed) > 1)
    assert [file.suffix for file in (tmp_path / "recordings").iterdir()] == [".mp4"]


def test_a_webcam_may_be_a_number_and_keys_may_be_shared(tmp_path: Path) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text("streams:\n  a: &all {source: 0, delay_ms: 300}\n  b: {<<: *all, source: /dev/video1}\n")
    settings = load(file, {}).streams
    assert settings is not None
    assert [settings[name].source for name in "ab"] == ["0", "/dev/video1"]
    assert settings["b"].delay_ms == 300


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("rtsp://media.example/front", "[rtsp://media.example/front]"),
        ("", "[]"),
    ],
)
def test_one_thing_alone_needs_no_list(one: str, many: str, tmp_path: Path) -> None:
    def read(value: str) -> ServeSettings:
        file = tmp_path / "cameras.yaml"
        file.write_text(f"streams:\n  front:\n    source: 0\n    push: {value}\n")
        return load(file, {})

    assert read(one).streams == read(many).streams
    file = tmp_path / "serve.toml"
    file.write_text('folders = "/pictures"\nice_servers = "stun:stun.example:3478"\n')
    settings = load(file, {})
    assert settings.folders == (Path("/pictures"),)
    assert settings.ice_servers == ("stun:stun.example:3478",)


def test_the_shipped_example_is_right() -> None:
    from streamer import resources
    from streamer.live.settings import StreamSettings

    path = resources.path("configs/cameras.yaml")
    settings = load(path, {})
    assert settings.streams is not None
    (stream,) = settings.streams.values()
    assert stream == StreamSettings(source=stream.source)
    text = path.read_text()
    assert all(f" {name}: " in text for name in StreamSettings.model_fields)


@pytest.mark.parametrize(
    "text",
    [
        "streams: {front: {source: 'rtsp://me:hunter22@cam/1', colour: red}}",
        "streams: {front: {source: 'rtsp://me:hunter22@cam/1', push: {one: 'rtsp://me:hunter22@x/1'}}}",
        "streams: {'a b': {source: 'rtsp://me:hunter22@cam/1'}}",
        "streams: {front: {source: 'rtsp://me:hunter22@cam/1'}",
        "- hunter22",
        "streams: {front: {source: 'rtsp://me:hunter22@cam/1'}, front: {source: 'rtsp://me:hunter22@cam/2'}}",
    ],
)
def test_wrong_cameras_are_named_without_their_passwords(text: str, tmp_path: Path) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert "hunter22" not in str(caught.value)
