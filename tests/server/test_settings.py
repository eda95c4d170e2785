import datetime
import socket
import tomllib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from streamer import resources
from streamer.cli import serve, web
from streamer.errors import ConfigError
from streamer.live.settings import stream_settings
from streamer.server.settings import ServeSettings, load


def test_the_preset_shows_every_key_with_its_default() -> None:
    path = resources.path("configs/serve.toml")
    assert load(path, {}) == ServeSettings()
    text = path.read_text()
    for section, fields in (
        ("", set(ServeSettings.model_fields)),
        ("limits", set(type(ServeSettings().limits).model_fields)),
    ):
        for name in fields - {"limits", "anonymize"}:
            assert f"\n{name} = " in text or f"\n# {name} = " in text, (section, name)
    assert set(tomllib.loads(text)) <= set(ServeSettings.model_fields)


@pytest.mark.parametrize(
    "text", ["prot = 1", "port = 70000", "[limits]\nmax_bytes = 0", "port = ", "[anonymize]\nx = 1"]
)
def test_wrong_settings_are_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"serve\.toml"):
        load(path, {})


@pytest.mark.parametrize(("name", "text"), [("s.toml", "x = "), ("s.yaml", "x: ")])
def test_settings_nested_without_end_are_refused(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text + "[" * 5000)
    with pytest.raises(ConfigError, match=f"not a {path.suffix[1:].upper()} file"):
        load(path, {})


def test_connections_send_at_once() -> None:
    with web.listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as line:
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_tls_key_alone_does_not_serve_in_the_clear(tmp_path: Path) -> None:
    with web.listen("127.0.0.1", 0) as listener, pytest.raises(ConfigError, match="without its certificate"):
        web.run(None, listener, key=tmp_path / "key.pem")


def test_a_tls_key_behind_a_password_is_refused_and_none_asked_for(tmp_path: Path) -> None:
    """A service that waits for a password at its terminal never starts, and nobody is told."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    own, name, now = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([]),
        datetime.datetime.now(datetime.UTC),
    )
    builder = x509.CertificateBuilder(name, name, own.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    cert.write_bytes(made.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    for lock in (serialization.NoEncryption(), serialization.BestAvailableEncryption(b"secret")):
        key.write_bytes(
            own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
        )
        if isinstance(lock, serialization.NoEncryption):
            web.check_tls(cert, key)
            continue
        with pytest.raises(ConfigError, match="not a certificate with its key"):
            web.check_tls(cert, key)


@pytest.mark.parametrize("prefix", ["cameras", "/a b", "//a", "/a?b", "https://example.org/a"])
def test_a_prefix_is_a_path(prefix: str) -> None:
    with pytest.raises(ConfigError, match="a prefix is a path"):
        load(None, {"prefix": prefix})


@pytest.mark.parametrize("prefix", ["/front", "/front/whep"])
def test_no_stream_is_called_like_the_prefix(prefix: str) -> None:
    """Its addresses would be taken for those of the server in front, and answered 404."""
    with pytest.raises(ConfigError, match="may not be called like"):
        load(None, {"prefix": prefix, "streams": {"front": {"source": "0"}}})
    assert load(None, {"prefix": prefix, "streams": {"front-door": {"source": "0"}}}).prefix == prefix


def test_only_addresses_that_answer_are_announced(capsys: pytest.CaptureFixture[str]) -> None:
    both = {"a": {"source": "0"}, "b": {"source": "0", "webrtc": False, "hls": True}}
    settings = load(None, {"streams": {**both, "c": {"source": "0", "enabled": False}}})
    with web.listen("127.0.0.1", 0) as listener:
        serve._announce(settings, listener, has_keys=True)
    said = capsys.readouterr().err
    assert "/a/whep" in said
    assert "/b/index.m3u8" in said
    assert not any(each in said for each in ("/a/index", "/b/whep", "/c/"))


def test_flags_win(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text("port = 1\nwaiting = 3")
    assert (load(path, {"port": 2}).port, load(path, {"port": 2}).waiting) == (2, 3)


def test_a_home_is_written_out_in_a_streams_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/one")
    settings = stream_settings({"source": "~/clip.mp4", "record": "~/recordings"}, name="x")
    assert (settings.source, settings.record) == ("/home/one/clip.mp4", Path("/home/one/recordings"))
    with pytest.raises(ConfigError, match="no such home"):
        stream_settings({"source": "0", "record": "~nobody-of-that-name/x"}, name="x")
