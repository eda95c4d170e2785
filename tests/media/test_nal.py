import pytest

from streamer.media import nal


def test_lengths_and_start_codes_hold_the_same_units() -> None:
    units = [bytes([0x65, 1, 2, 3]), bytes([0x41, 9])]
    lengths = b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
    assert nal.from_lengths(lengths, 4) == units
    assert nal.from_annexb(nal.annexb(units)) == units


def test_a_length_beyond_the_packet_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond"):
        nal.from_lengths(b"\x00\x00\x00\x09\x65", 4)


def test_only_slices_travel() -> None:
    units = [bytes([kind, 0]) for kind in (9, 7, 8, 6, 5, 1, 12)]
    assert [nal.kind(unit) for unit in nal.pictures(units)] == [5, 1]


def test_set_ids_are_read_from_their_exponential_golomb_codes() -> None:
    assert nal.set_id(bytes([0x67, 77, 0, 40, 0b10000000])) == 0
    assert nal.set_id(bytes([0x67, 77, 0, 40, 0b00100100])) == 3
    assert nal.set_id(bytes([0x68, 0b01000000])) == 1
    assert nal.set_id(bytes([0x67, 77])) == nal.set_id(bytes([0x68])) == -1


def test_of_a_header_that_is_cut_off_the_sets_that_it_holds_are_read() -> None:
    sps, pps = bytes([0x67, 77, 0, 40, 0x80]), bytes([0x68, 0x80])
    whole = bytes([1, 77, 0, 40, 0xFF, 0xE1, 0, len(sps)]) + sps + bytes([1, 0, len(pps)]) + pps
    assert nal.parameter_sets(whole) == [sps, pps]
    for length in range(7, len(whole)):
        assert nal.parameter_sets(whole[:length])[:1] in ([], [sps], [sps[: length - 8]])
