"""Which protocols this build of PyAV can speak."""

import av


def has_srt() -> bool:
    """Whether SRT can be read and sent; the wheels of PyPI have none."""
    try:
        av.open("srt://127.0.0.1:1?mode=bad", timeout=0.1).close()
    except av.error.ProtocolNotFoundError:
        return False
    except (av.error.FFmpegError, OSError, ValueError):
        return True
    return True
