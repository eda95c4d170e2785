"""What a picture may cost before it is refused."""

import io
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from streamer.errors import TooLargeError

_READS = 50_000  # that a file may cost, and one more for each
_READ = 64  # bytes; a GIF's largest blocks cost two for each 256


class ImageLimits(BaseModel):
    """Bounds that hold before a picture is decoded; the defaults suit an open server."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    max_bytes: Annotated[int, Field(ge=1)] = 32 << 20  # of the encoded picture
    max_pixels: Annotated[int, Field(ge=1, le=178_000_000)] = (
        64_000_000  # width times height, read from the header
    )
    max_scans: Annotated[int, Field(ge=1)] = 100  # passes of a progressive JPEG
    urls: bool = True  # whether pictures are fetched from URLs at all
    fetch_s: Annotated[float, Field(gt=0, le=300)] = 10.0  # for a URL from name look-up to last byte
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 3
    private_urls: bool = False  # whether a URL may point into a private network or at this machine


OWN_FILES = ImageLimits(
    max_bytes=1 << 30, max_pixels=178_000_000
)  # of whoever runs the command, not of the web


class Counted(io.BytesIO):
    """A file in memory that costs a bounded number of reads: Pillow walks over a GIF block by block, and byte by byte
    where there is none. Raises TooLargeError.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _READS + len(data) // _READ

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file's."""
        self._left -= 1
        if self._left < 0:
            raise TooLargeError("the picture's file consists of too many small pieces")
        return super().read(size)
