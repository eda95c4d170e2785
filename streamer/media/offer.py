"""What a viewer's SDP offer asks for, and the part of it that is served: one video and, bundled with it, one sound.

# Note [What is not served]
aiortc answers every medium and bundles all of them, whatever the offer said. So it is shown the media that are served,
and the others are refused in its answer at their places, by port 0 (RFC 3264, 6). An offer without BUNDLE has a
transport for each medium; its sound is among those refused.
"""

import re
from dataclasses import dataclass

from aiortc import sdp

from streamer.errors import ConfigError

_H264 = re.compile(r"^a=rtpmap:(\d+) H264/90000", re.I | re.M)
_OPUS = re.compile(r"^a=rtpmap:\d+ opus/48000", re.I | re.M)
_FORMAT = re.compile(r"^a=fmtp:(\d+) ([^\r\n]*)", re.M)
_UFRAG = re.compile(r"^a=ice-ufrag:\s*(\S+)", re.M)
_DIRECTION = re.compile(r"^a=(sendrecv|sendonly|recvonly|inactive)[ \t]*\r?$", re.M)
_MEDIA = re.compile(r"^(?=m=)", re.M)
_FORM = re.compile(r"m=(\S+) (\S+) ([^\r\n]+)")  # kind, port, and what a refusal repeats
_MID = re.compile(r"^a=mid:[ \t]*(\S+)", re.M)
_GROUP = re.compile(r"^a=group:[^\n]*\n?", re.M)
_BUNDLE = re.compile(r"^a=group:BUNDLE[ \t]+([^\r\n]+)", re.M)
_NO_MID = re.compile(r"^a=mid:[ \t]*\r?\n", re.M)  # as aiortc answers a medium that has none
_MOST_CANDIDATES = 100  # of a session; more pairs than that are not to be tried (RFC 8445, 6.1.2.5)
_PROFILES = (sdp.H264Profile.PROFILE_BASELINE, sdp.H264Profile.PROFILE_CONSTRAINED_BASELINE)


@dataclass(frozen=True, slots=True)
class Asked:
    """An offer that can be served. See Note [What is not served]."""

    codec: str  # "h264" where the viewer takes ours, else "vp8"
    sound: bool  # whether Opus is asked for where it can be sent
    sdp: str  # the offer of what is served, as aiortc takes it
    tag: str  # the mid whose transport all of that shares; empty if it has none
    mids: frozenset[str]  # whose candidates are those of this transport
    ufrags: frozenset[str]  # by which ICE knows the viewer
    refused: tuple[tuple[int, str], ...]  # the answer's other media and their places among all

    def answer(self, text: str) -> str:
        """The whole answer, from aiortc's to what is served."""
        session, *media = _MEDIA.split(text if self.tag else _NO_MID.sub("", text))
        for place, medium in self.refused:
            media.insert(place, medium)
        if "a=group:" not in self.sdp:
            session = _GROUP.sub("", session)
        return session + "".join(media)


def asked(offer: str) -> Asked:
    """What an offer asks for. Raises ConfigError for one that cannot be served.

    A medium without a direction has the session's, else `sendrecv` (RFC 8866, 6.7), which aiortc demands to be said;
    without a fingerprint DTLS cannot begin (RFC 8827, 6.5).
    """
    session, *media = _MEDIA.split(offer)
    if "a=fingerprint:" not in offer:
        raise ConfigError("the offer holds no fingerprint")
    check_candidates(offer.count("a=candidate:"))
    common = _DIRECTION.search(session)
    line = common.group().strip() if common else "a=sendrecv"
    media = [one if _DIRECTION.search(one) else f"{one.rstrip()}\r\n{line}\r\n" for one in media]
    place, codec = _video_of(media)
    tag = _mid(media[place])
    groups = [found.split() for found in _BUNDLE.findall(session)]
    group: list[str] = next((each for each in groups if tag in each), [])
    sound = _sound_of(media, group)
    served = [media[each] for each in sorted({place, sound if sound is not None else place})]
    mids = [mid for mid in group if mid in map(_mid, served)]
    bundle = f"a=group:BUNDLE {' '.join(mids)}\r\n" if mids else ""
    return Asked(
        codec,
        sound is not None,
        f"{_GROUP.sub('', session).rstrip()}\r\n{bundle}{''.join(served)}",
        mids[0] if mids else tag,
        frozenset((*group, tag)),
        ufrags(offer),
        tuple((each, _refusal(one)) for each, one in enumerate(media) if each not in (place, sound)),
    )


def _video_of(media: list[str]) -> tuple[int, str]:
    """The place of the video that is served, and its codec."""
    wanted = [place for place, one in enumerate(media) if _is_open(one, "video") and _receives(one)]
    if not wanted:
        raise ConfigError("the offer does not ask to receive video")
    for place in wanted:
        if (codec := _codec_of(media[place])) is not None:
            return place, codec
    raise ConfigError(
        "the offer holds neither H.264 of the baseline profile (packetization-mode 1) nor VP8 video"
    )


def _sound_of(media: list[str], group: list[str]) -> int | None:
    """The place of the first sound in Opus that shares the video's transport."""
    for place, one in enumerate(media):
        if _is_open(one, "audio") and _mid(one) in group and _OPUS.search(one):
            return place
    return None


def _form(medium: str) -> tuple[str, str, str]:
    if (found := _FORM.match(medium)) is None:
        raise ConfigError(f"not a medium of an offer: {medium.splitlines()[0][:100]}")
    return found[1], found[2], found[3]


def _is_open(medium: str, kind: str) -> bool:
    """Whether it is of that kind and not ended: port 0 says so, but for one that is to be bundled (RFC 9143, 6)."""
    found, port, _ = _form(medium)
    return found == kind and (port != "0" or "a=bundle-only" in medium)


def _receives(medium: str) -> bool:
    found = _DIRECTION.search(medium)
    return found is not None and found[1] in ("sendrecv", "recvonly")


def _mid(medium: str) -> str:
    found = _MID.search(medium)
    return found[1] if found else ""


def _refusal(medium: str) -> str:
    kind, _, rest = _form(medium)
    mid = f"a=mid:{_mid(medium)}\r\n" if _mid(medium) else ""
    return f"m={kind} 0 {rest}\r\nc=IN IP4 0.0.0.0\r\n{mid}a=inactive\r\n"


def _codec_of(medium: str) -> str | None:
    parameters = dict(_FORMAT.findall(medium))
    if any(_takes_ours(parameters.get(number, "")) for number in _H264.findall(medium)):
        return "h264"
    return "vp8" if "VP8/90000" in medium.upper() else None


def _takes_ours(parameters: str) -> bool:
    """Whether a viewer's H.264, by its `a=fmtp` (RFC 6184, section 8.1), is what aiortc answers."""
    pairs = (pair.strip().partition("=") for pair in parameters.lower().split(";"))
    given = {key: value for key, _, value in pairs}
    try:
        profile, _ = sdp.parse_h264_profile_level_id(given.get("profile-level-id", "42e01f"))
    except ValueError:
        return False
    return given.get("packetization-mode", "0") == "1" and profile in _PROFILES


def check_candidates(count: int) -> None:
    """Raise ConfigError for more ICE candidates than a session may have: each costs more time than the one before."""
    if count > _MOST_CANDIDATES:
        raise ConfigError(f"more than {_MOST_CANDIDATES} ICE candidates")


def ufrags(text: str) -> frozenset[str]:
    """The names of the ICE sessions in an offer or a fragment of one."""
    return frozenset(_UFRAG.findall(text))
