import hmac
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from streamer.errors import ConfigError
from streamer.image.redact import Redactor
from streamer.live.fleet import Fleet
from streamer.proof.scene import studio
from streamer.server import keys as keyring
from streamer.server.app import create_app
from streamer.server.keys import Keys, hashed, keys_from, new_key, read_keys
from streamer.server.live import create_live_app
from streamer.server.rooms import Streams
from streamer.server.settings import ServeSettings
from tests.server.conftest import LOCAL, Start
from tests.server.test_refusals import message_of

KEY, OTHER = new_key(), new_key()
KEYS = keys_from([hashed(KEY), "# a comment", "", f"{hashed(OTHER)}  # with a note"])


@pytest.mark.parametrize(
    "headers", [{"X-API-KEY": KEY}, {"X-RapidAPI-Key": OTHER}, {"Authorization": f"Bearer {KEY}"}]
)
def test_a_key_opens(start: Start, headers: dict[str, str]) -> None:
    assert start(KEYS).get("/v1/modes", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"X-API-KEY": ""}, {"X-API-KEY": "wrong"}, {"X-API-KEY": hashed(KEY)}, {"X-API-KEY": KEY[:-1]},
        {"Authorization": f"Basic {KEY}"}, {"Authorization": "Bearer "}, {"X-API-KEY": "wrong", "X-RapidAPI-Key": KEY},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "place", ["GET /v1/modes", "GET /v1/version", "POST /v1/results", "POST /v1/anonymize"]
)
def test_without_the_right_key_nothing_opens(start: Start, headers: dict[str, str], place: str) -> None:
    response = start(KEYS).request(*place.split(), headers=headers)
    message = message_of(response, 401)
    assert KEY not in message
    assert "www-authenticate" in response.headers


def test_comparison_takes_every_key_and_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    compare = hmac.compare_digest
    monkeypatch.setattr(keyring.hmac, "compare_digest", lambda *pair: asked.append(pair) or compare(*pair))
    assert KEYS.opens(KEY)
    assert not KEYS.opens("wrong")
    assert not KEYS.opens(None)
    assert len(asked) == 3 * len(KEYS.digests)
    assert all(len(first) == len(second) == 32 for first, second in asked)


def test_keys_are_kept_as_hashes(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(hashed(KEY))
    assert read_keys(path) == Keys(KEYS.digests[:1])
    assert KEY not in path.read_text() + repr(read_keys(path))
    for text in (KEY, "sha256:", "sha256:00", "md5:" + "0" * 64):
        path.write_text(text)
        with pytest.raises(ConfigError) as refused:
            read_keys(path)
        assert KEY not in str(refused.value)
    with pytest.raises(ConfigError):
        read_keys(tmp_path / "missing")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_without_keys_only_this_machine_is_served(start: Start, host: str) -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        start(host=host)
    assert start(KEYS, host=host).get("/v1/modes", headers={"X-API-KEY": KEY}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "attacker.example"},  # a name that was made to point here
        {"Origin": "https://attacker.example"},  # a page from elsewhere
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Host": "127.0.0.1.attacker.example"},
        {"Host": ""},
        {"Host": "[::1"},
        {"Origin": "http://[::1"},
    ],
)
def test_pages_from_elsewhere_cannot_use_the_browsers_machine(
    client: TestClient, headers: dict[str, str]
) -> None:
    message_of(client.get("/v1/modes", headers=headers), 403)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:8080", "LOCALHOST:1"])
def test_this_machine_is_served_under_its_names(client: TestClient, host: str) -> None:
    assert client.get("/v1/modes", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


FORWARDED = [
    {"X-Forwarded-For": "198.51.100.7"},
    {"X-Forwarded-For": "127.0.0.1, 198.51.100.7:4711"},
    {"X-Forwarded-For": "2001:db8::7"},
    {"X-Forwarded-For": "unknown"},
    {"X-Real-IP": "198.51.100.7"},
    {"Forwarded": 'for=127.0.0.1, For="[2001:db8::7]:4711";proto=https'},
    {"Forwarded": "for=_hidden"},
]


@pytest.mark.parametrize("headers", FORWARDED)
def test_without_keys_nothing_opens_for_those_whom_a_proxy_names(
    client: TestClient, headers: dict[str, str]
) -> None:
    message_of(client.get("/v1/modes", headers=headers), 403)


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.1:5000", "::1", "[::1]:5000", "localhost"])
def test_a_proxy_for_this_machine_is_served(client: TestClient, name: str) -> None:
    headers = {"X-Forwarded-For": name, "Forwarded": f'for="{name}"'}
    assert client.get("/v1/modes", headers=headers).status_code == 200


def preflight(client: TestClient, place: str, method: str = "POST") -> int:
    """The status of what a browser asks before a page of another site may send a key."""
    asked = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "x-api-key,a4a-client-app-id",
    }
    response = client.options(place, headers=asked)
    if response.status_code == 200:
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in response.headers
        assert "x-api-key" in response.headers["access-control-allow-headers"]
    return response.status_code


def test_pages_of_other_sites_may_use_the_image_api_with_a_key(start: Start, jpeg: bytes) -> None:
    client = start(KEYS)
    for place in ("/v1/results?mode=hide-face", "/img-anonymization/v1/results", "/v1/anonymize"):
        assert preflight(client, place) == 200
    assert preflight(client, "/v1/files/x.jpg", "GET") == 200
    assert preflight(client, "/v1/results", "DELETE") == 400
    headers = {"Origin": "https://shop.example", "X-API-KEY": KEY}
    for status, sent in ((200, headers), (401, {**headers, "X-API-KEY": "wrong"})):
        answer = client.post("/v1/results", headers=sent, files={"image": ("a.jpg", jpeg)})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "*"


def test_pages_of_other_sites_may_nothing_else(start: Start) -> None:
    client = start(KEYS)
    for place in ("/v1/streams", "/v1/streams/a", "/metrics", "/", "/v1/files/a/../../streams"):
        assert preflight(client, place, "GET") in (404, 405)
    assert (
        "access-control-allow-origin" not in client.get("/", headers={"Origin": "https://x.example"}).headers
    )
    assert preflight(start(), "/v1/results") == 405


@pytest.mark.parametrize("alone", [True, False])
def test_refusals_of_streams_look_alike_in_both_servers(
    alone: bool, redactor: Redactor, tmp_path: Path
) -> None:
    streams, keys = Streams(Fleet(studio())), keys_from([hashed("right")])
    app = (
        create_live_app(streams, {}, keys)
        if alone
        else create_app(ServeSettings(store=tmp_path), keys, [redactor], streams)
    )
    with TestClient(app, base_url=LOCAL) as client:
        for path in ("/v1/streams", "/v1/streams/x/objects", "/metrics", "/x/index.m3u8", "/x/segment1.ts"):
            refused = client.get(path)
            assert refused.status_code == 401
            assert refused.json() == {"status": "error", "error": "the API key is missing or wrong"}
            assert refused.headers["www-authenticate"]
        login = {"X-API-KEY": "right"}
        assert client.get("/x/segment1e3.ts", headers=login).json()["status"] == "error"
        refused = client.post("/metrics", headers=login)
        assert refused.status_code == 405
        assert refused.headers["allow"] == "GET"
        assert refused.json() == {"status": "error", "error": "Method Not Allowed"}
