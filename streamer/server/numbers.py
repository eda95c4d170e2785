"""Pictures as JSON lists of byte values, read and written in bulk.

# Note [Long lists]
Millions of numbers take a JSON parser seconds in which no other thread of the process runs, the event loop included.
NumPy reads and writes them in a fraction of that, and lets the others run meanwhile. What is not a plain list of
numbers from 0 to 255 is left to the parser, which says what is wrong with it.
"""

import numpy as np

_SHORT = 1 << 12  # bytes of text that the parser may read as well
_COMMA, _ZERO = ord(","), ord("0")
_SPACES = np.frombuffer(b" \t\n\r", np.uint8)
_SLICE = 1 << 16  # bytes written at a time: between two of them the others run
_TEXTS = np.array([f"{value}," for value in range(256)], "S4")


def taken_out(body: bytes) -> tuple[bytes, bytes | None]:
    """A JSON text with its one long list of byte values left empty, and the bytes of that list.

    >>> taken_out(b'{"image": [1, 2, 255]}')
    (b'{"image": [1, 2, 255]}', None)
    """
    start, end = body.find(b"["), body.rfind(b"]")
    if end - start < _SHORT or start < 0:
        return body, None
    numbers = _read(body[start + 1 : end].strip())
    return (body, None) if numbers is None else (body[: start + 1] + body[end:], numbers)


def listed(data: bytes) -> bytes:
    """Bytes as a JSON list of numbers.

    >>> listed(bytes([0, 10, 255]))
    b'[0,10,255]'
    """
    values = np.frombuffer(data, np.uint8)
    slices = (values[at : at + _SLICE] for at in range(0, len(values), _SLICE))
    return b"[" + b"".join(_TEXTS[part].tobytes().replace(b"\0", b"") for part in slices)[:-1] + b"]"


def _read(text: bytes) -> bytes | None:
    """The values of `0,1,255`, with or without space after a comma; None if that is not what it is."""
    letters = np.frombuffer(text, np.uint8)
    spaces = np.isin(letters, _SPACES, kind="table")
    if spaces.any():
        if (spaces[1:] & ~spaces[:-1] & (letters[:-1] != _COMMA)).any():  # 1 2 is not 12
            return None
        letters = letters[~spaces]
    commas = letters == _COMMA
    digits = letters - np.uint8(_ZERO)
    if not ((digits < 10) | commas).all():
        return None
    ends = np.append(np.flatnonzero(commas), len(letters))
    lengths = np.diff(ends, prepend=-1) - 1
    if lengths.min() < 1 or lengths.max() > 3:
        return None
    values = digits[ends - 1].astype(np.uint16)
    values += np.where(lengths > 1, digits[ends - 2], 0) * np.uint16(10)
    values += np.where(lengths > 2, digits[ends - 3], 0) * np.uint16(100)
    padded = (lengths > 1) & (digits[ends - lengths] == 0)  # 007 is not JSON
    return None if padded.any() or values.max() > 255 else values.astype(np.uint8).tobytes()
