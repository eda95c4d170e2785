"""The outermost structure of an ASF or WMV file, as far as FFmpeg does not tell of it (Microsoft's ASF, 01.20.05)."""

from pathlib import Path
from uuid import UUID

_HEADER = UUID("75B22630-668E-11CF-A6D9-00AA0062CE6C").bytes_le
_FILE_PROPERTIES = UUID("8CABDCA1-A947-11CF-8EE4-00C00C205365").bytes_le
_MOST_HEADER = 1 << 20  # bytes
_SIZE, _FLAGS, _LENGTH = 40, 88, 104  # where they are in the file properties, and how long these are
_BROADCAST = 1  # written while it was sent: its size was not known


def end_of(path: Path) -> int | None:
    """The size that the file has by what its header says; None where that says nothing, as live recordings do."""
    with path.open("rb") as file:
        header = file.read(_MOST_HEADER)
    at = header.find(_FILE_PROPERTIES)
    facts = header[at : at + _LENGTH]
    if not header.startswith(_HEADER) or at < 0 or len(facts) < _LENGTH or facts[_FLAGS] & _BROADCAST:
        return None
    return int.from_bytes(facts[_SIZE : _SIZE + 8], "little") or None
