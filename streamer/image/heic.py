"""Photos of phones (HEIC), which Pillow reads with the extra `heic`: libheif and libde265 in the package pi-heif."""

from functools import lru_cache

from streamer.errors import UnsupportedError

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")  # of ISO/IEC 23008-12
_ANY_CODEC = (b"mif1", b"msf1")  # brands that leave the codec to those that follow
_AVIF = (b"avif", b"avis")
_LONGEST = 256  # bytes of the box that are read


def is_heic(data: bytes) -> bool:
    """Whether a file's first box names one of the brands of HEIF, and not those of AVIF.

    >>> is_heic(b"\\0\\0\\0\\x18ftypheic"), is_heic(b"\\0\\0\\0\\x14ftypmif1\\0\\0\\0\\0avif"), is_heic(b"\\x89PNG")
    (True, False, False)
    """
    if data[4:8] != b"ftyp":
        return False
    size = int.from_bytes(data[:4])
    others = {data[at : at + 4] for at in range(16, min(size, len(data), _LONGEST), 4)}
    return data[8:12] in _BRANDS or (data[8:12] in _ANY_CODEC and others.isdisjoint(_AVIF))


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
