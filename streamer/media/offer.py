"""What a viewer's SDP offer asks for, read before aiortc answers it."""

import re

from aiortc import sdp

from streamer.errors import ConfigError

_H264 = re.compile(r"^a=rtpmap:(\d+) H264/90000", re.I | re.M)
_OPUS = re.compile(r"^a=rtpmap:\d+ opus/48000", re.I | re.M)
_FORMAT = re.compile(r"^a=fmtp:(\d+) ([^\r\n]*)", re.M)
_UFRAG = re.compile(r"^a=ice-ufrag:\s*(\S+)", re.M)
_DIRECTION = re.compile(r"^a=(?:sendrecv|sendonly|recvonly|inactive)[ \t]*\r?$", re.M)
_MEDIA = re.compile(r"^(?=m=)", re.M)
_PROFILES = (sdp.H264Profile.PROFILE_BASELINE, sdp.H264Profile.PROFILE_CONSTRAINED_BASELINE)


def codec_of(offer: str) -> str:
    """H.264 where the viewer takes ours, else VP8. Raises ConfigError if it offers neither."""
    parameters = dict(_FORMAT.findall(offer))
    if any(_takes_ours(parameters.get(number, "")) for number in _H264.findall(offer)):
        return "h264"
    if "VP8/90000" in offer.upper():
        return "vp8"
    raise ConfigError(
        "the offer holds neither H.264 of the baseline profile (packetization-mode 1) nor VP8 video"
    )


def _takes_ours(parameters: str) -> bool:
    """Whether a viewer's H.264, by its `a=fmtp` (RFC 6184, section 8.1), is what aiortc answers."""
    pairs = (pair.strip().partition("=") for pair in parameters.lower().split(";"))
    given = {key: value for key, _, value in pairs}
    try:
        profile, _ = sdp.parse_h264_profile_level_id(given.get("profile-level-id", "42e01f"))
    except ValueError:
        return False
    return given.get("packetization-mode", "0") == "1" and profile in _PROFILES


def takes_opus(offer: str) -> bool:
    """Whether it asks for sound in Opus."""
    return _OPUS.search(offer) is not None


def ufrags(text: str) -> frozenset[str]:
    """The names of the ICE sessions in an offer or a fragment of one."""
    return frozenset(_UFRAG.findall(text))


def completed(offer: str) -> str:
    """The offer with a direction for every medium: the session's, else `sendrecv` (RFC 8866, 6.7), as aiortc demands.

    Raises ConfigError without a fingerprint: DTLS cannot begin (RFC 8827, 6.5).
    """
    session, *media = _MEDIA.split(offer)
    if "a=fingerprint:" not in offer:
        raise ConfigError("the offer holds no fingerprint")
    common = _DIRECTION.search(session)
    line = common.group().strip() if common else "a=sendrecv"
    made = [one if _DIRECTION.search(one) else f"{one.rstrip()}\r\n{line}\r\n" for one in media if one]
    return session + "".join(made)
