import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.server.numbers import listed, taken_out

LONG = bytes(range(256)) * 20


@pytest.mark.parametrize("style", [{"separators": (",", ":")}, {}, {"indent": 2}, {"indent": "\t"}])
@pytest.mark.parametrize("around", [{"image": list(LONG)}, {"image": {"type": "Buffer", "data": list(LONG)}}])
def test_long_lists_are_taken_out(style: dict[str, Any], around: object) -> None:
    rest, numbers = taken_out(json.dumps(around, **style).encode())
    assert numbers == LONG
    assert json.loads(rest) in ({"image": []}, {"image": {"type": "Buffer", "data": []}})


@pytest.mark.parametrize(
    "value",
    ["256", "-1", "1.5", "01", "1e2", "", "true", '"1"', "1234", "[1]", "1 2", "1\n2", ", 1"],
)
def test_lists_of_anything_else_are_left_to_the_parser(value: str) -> None:
    for text in (f"{value}," + "1," * 5000 + "1", "1," * 5000 + value, "1," * 5000 + f"{value},1"):
        body = f'{{"image":[{text}]}}'.encode()
        assert taken_out(body) == (body, None)


def test_lists_of_many_slices_are_whole() -> None:
    data = bytes(range(256)) * 1000 + b"\0"
    assert json.loads(listed(data)) == list(data)


@given(st.binary())
def test_written_lists_are_json(data: bytes) -> None:
    assert json.loads(listed(data)) == list(data)


@given(st.binary(min_size=2000, max_size=3000))
def test_what_is_written_is_read_again(data: bytes) -> None:
    rest, numbers = taken_out(b'{"image":%b}' % listed(data))
    assert numbers in (data, None)  # None: short enough for the parser
    assert bytes(json.loads(rest)["image"]) + (numbers or b"") == data
