from fractions import Fraction

import av

from streamer.media.timeline import Timeline


class Packet:
    """What the time line looks at."""

    def __init__(self, stream_index: int, at: int, base: Fraction) -> None:
        self.stream_index, self.time_base, self.duration = stream_index, base, round(Fraction(1, 25) / base)
        self.pts = self.dts = round(at * Fraction(1, 25) / base)


def placed(order: list[tuple[int, int]], *, leaps: bool = False) -> list[tuple[int, float] | None]:
    """Streams and times (in 1/25 s) of packets, as they come out; None for what is left out."""
    line = Timeline(0, leaps=leaps)
    bases = (Fraction(1, 90_000), Fraction(1, 48_000))
    out: list[tuple[int, float] | None] = []
    for stream, at in order:
        packet: av.Packet = Packet(stream, at, bases[stream])  # type: ignore[assignment]
        kept = line.place(packet)
        out.append((stream, float(packet.dts * bases[stream] * 25)) if kept else None)  # type: ignore[operator]
    return out


def test_one_recording_stays_as_it_is() -> None:
    order = [(0, -2), (1, -2), (0, -1), (1, 0), (0, 0), (1, 5), (0, 9), (0, 8)]
    assert placed(order) == order


def test_a_packet_that_only_says_when_it_is_shown_is_moved_too() -> None:
    line = Timeline(0, Fraction(1, 5))
    packet: av.Packet = Packet(0, 3, Fraction(1, 25))  # type: ignore[assignment]
    packet.dts = None
    assert line.place(packet)
    assert packet.pts == 8
    assert packet.dts is None


def test_a_leap_of_all_streams_is_no_pause_where_clocks_are_set_anew() -> None:
    order = [(0, 0), (1, 0), (0, 1), (1, 1), (1, 9_000), (0, 9_000), (1, 9_001), (0, 9_001), (1, 9_002)]
    assert placed(order) == order
    assert placed(order, leaps=True) == [*order[:4], None, (0, 2), (1, 3), (0, 3), (1, 4)]


def test_a_pause_of_one_stream_is_none_of_the_others() -> None:
    silent = [(0, at) for at in range(1000)]
    assert placed([(1, 0), *silent, (1, 1000)], leaps=True) == [(1, 0), *silent, (1, 1000)]
    heard = [(1, at) for at in range(1000)]
    assert placed([(0, 0), *heard, (0, 1000)], leaps=True) == [(0, 0), *heard, (0, 1000)]


def test_a_picture_s_time_far_from_its_decoding_is_none() -> None:
    line = Timeline(0, leaps=True)
    packet: av.Packet = Packet(0, 3, Fraction(1, 25))  # type: ignore[assignment]
    packet.pts = 1_000_000
    line.place(packet)
    assert packet.pts == packet.dts == 3


def test_sound_goes_with_its_pictures_over_a_join_whichever_comes_first() -> None:
    first = [(stream, at) for at in range(100, 140) for stream in (0, 1)]
    assert placed([*first, (0, 100), (1, 100), (0, 101), (1, 101)])[-4:] == [
        (0, 140),
        (1, 140),
        (0, 141),
        (1, 141),
    ]
    assert placed([*first, (1, 100), (0, 100), (1, 101), (0, 101)])[-4:] == [
        None,
        (0, 140),
        (1, 141),
        (0, 141),
    ]
    assert placed([*first, (0, 100), (1, 140), (1, 100), (1, 101)])[-4:] == [
        (0, 140),
        (1, 140),
        None,
        (1, 141),
    ]
    again = [(0, 100), (1, 101), (0, 130), (1, 130), (0, 100), (1, 102)]
    assert placed([*first, *again])[-2:] == [(0, 171), (1, 173)]
