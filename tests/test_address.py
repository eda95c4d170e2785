from collections.abc import Callable
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.address import redacted_url, without_secrets
from streamer.errors import ConfigError
from streamer.media.live_spec import check_source
from streamer.media.push import check_push


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://10.0.0.7/ch1", "rtsp://10.0.0.7/ch1"),
        ("rtsp://admin:hunter2@10.0.0.7:554/ch1", "rtsp://***@10.0.0.7:554/ch1"),
        ("rtsp://admin@10.0.0.7/ch1", "rtsp://***@10.0.0.7/ch1"),
        ("rtsp://admin:p@ss/w0rd?x@10.0.0.7/ch1", "rtsp://***@10.0.0.7/ch1"),
        ("http://cam/live?user=a&PASSWORD=b&channel=1", "http://cam/live?user=***&PASSWORD=***&channel=1"),
        ("http://cam/x?api_key=b#frag", "http://cam/x?api_key=***#frag"),
        ("srt://host:9000?streamid=publish:secret&latency=20", "srt://host:9000?streamid=***&latency=20"),
        ("srt://host:9000?passphrase=topsecret", "srt://host:9000?passphrase=***"),
        ("rtmp://a.rtmp.example/live2/abcd-efgh", "rtmp://a.rtmp.example/live2/***"),
        ("0", "0"),
        ("/dev/video0", "/dev/video0"),
        ("clips/who@home.mp4", "clips/who@home.mp4"),
        ("C:/who@home.mp4", "C:/who@home.mp4"),
        ("rtsp:/admin:hunter2@10.0.0.7/ch1", "rtsp://***@10.0.0.7/ch1"),
    ],
)
def test_shows_where_but_not_the_secret(url: str, shown: str) -> None:
    assert redacted_url(url) == shown
    assert redacted_url(shown) == shown


@pytest.mark.parametrize("mark", ["/", "?", "#"])
@pytest.mark.parametrize("check", [check_source, check_push])
def test_a_password_that_would_be_read_as_a_place_is_refused_and_not_shown(
    check: Callable[[str], None], mark: str
) -> None:
    with pytest.raises(ConfigError, match="%2F %3F and %23") as refused:
        check(f"rtsp://admin:hunter{mark}22@10.0.0.7:554/ch1")
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize("password", ["12/34", "12#", "?", "p@ss/word", "a@b?c", "1/2@3#4", "//", "@/"])
@pytest.mark.parametrize(
    "url", ["rtsp://user:{}@host/path", "whips://:{}@host:8889/path", "whip://{}@host/path"]
)
def test_what_may_be_half_a_password_is_not_taken_for_a_host(password: str, url: str) -> None:
    with pytest.raises(ConfigError, match="%40") as refused:
        check_push(url.format(password))
    assert str(refused.value).endswith("***@" + url.rpartition("@")[2])
    check_push(url.format(quote(password, safe="")))


def test_a_message_with_nothing_but_the_login_loses_it_too() -> None:
    url = "whip://me:hunter22\u2100@host/path"
    check_push(url)
    with pytest.raises(ValueError) as caught:
        urlsplit(url)
    assert "hunter22" in str(caught.value)
    assert "hunter22" not in without_secrets(str(caught.value), url)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.7:8080/x?user=me@example.com",
        "rtsp://me:pw@[fe80::1]:554/x@2",
        "rtsp://10.0.0.7:554/who@home",
        "rtsp://[::1]:554/who@home",
        "rtsp://cam/x#a@b",
        "rtsp://admin:p@ss@10.0.0.7/ch1",
        "rtsp://admin:p%2Fss@10.0.0.7/ch1",
        "rtsp://admin@10.0.0.7/ch1",
    ],
)
def test_addresses_that_are_read_as_they_were_meant_are_taken(url: str) -> None:
    check_source(url)


_secret = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=" '\"<>"), min_size=6)


@given(_secret.filter(lambda text: text not in "rtsp://***@10.0.0.7:554/stream"))
def test_a_password_of_any_characters_never_shows(password: str) -> None:
    url = f"rtsp://admin:{password}@10.0.0.7:554/stream"
    assert password not in redacted_url(url)
    assert password not in without_secrets(f"error opening '{url}': refused", url)


def test_addresses_within_messages_lose_their_secrets() -> None:
    text = "could not open rtsp://me:pw1234@cam/1 nor http://cam/?token=tt99"
    assert without_secrets(text) == "could not open rtsp://***@cam/1 nor http://cam/?token=***"
    assert without_secrets("no such file: rtsp:/me:pw1234@cam/1") == "no such file: rtsp://***@cam/1"


@pytest.mark.parametrize("name", ["me:hunter22@" + "x" * 300, "me:hunter22@\0", "rtsp:" + "[" * 4000 + "@x"])
def test_a_login_that_no_file_can_be_called_is_refused_like_any_other(name: str) -> None:
    with pytest.raises(ConfigError, match=r"begins with one of|control character") as refused:
        check_source(name)
    assert "hunter22" not in str(refused.value)
