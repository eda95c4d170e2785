"""Photos of phones (HEIC), which Pillow reads with the extra `heic`: libheif and libde265 in the package pi-heif."""

from functools import lru_cache

from streamer.errors import UnsupportedError

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # of ISO/IEC 23008-12


def is_heic(data: bytes) -> bool:
    """Whether a file's first box names one of the brands of HEIF.

    >>> is_heic(b"\\0\\0\\0\\x18ftypheic"), is_heic(b"\\x89PNG")
    (True, False)
    """
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS


@lru_cache(maxsize=1)
def teach_pillow() -> str:
    """Let Pillow read HEIC; the name that it gives to the format. Raises UnsupportedError without the extra."""
    try:
        import pi_heif
    except ImportError:
        raise UnsupportedError(
            "HEIC pictures are read with the extra heic: pip install 'streamer-anonymizer[heic]'"
        ) from None
    pi_heif.register_heif_opener(thumbnails=False)
    return "HEIF"
