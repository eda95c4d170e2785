"""The error tree: whatever streamer refuses or fails at is one of these.

    StreamerError
    ├── ConfigError      a setting is wrong: names the key, the value and what is allowed
    ├── InputError       a source cannot be opened, is not media, or was lost
    │   ├── TooLargeError      more bytes or pixels than the limits allow
    │   ├── UnsupportedError   not in a format that is read
    │   ├── DamagedError       in a known format, but cut short or broken
    │   ├── RefusedError       a place that this caller may not read from
    │   └── UnreachableError   a URL that did not answer in time, or not with a picture
    ├── OutputError      a result cannot be written
    ├── DeviceError      the device that was asked for is missing or failed
    ├── ModelError       weights are missing, altered, of another shape, or their licence was not accepted
    └── RedactionError   a frame could not be made safe; it was not emitted

Each message is one line that says what to do; the sensitive part (a path, a URL) stands last, and
credentials never stand in it. Errors of third parties become ours in the module that touches them.
"""


class StreamerError(Exception):
    """Base of everything that streamer raises on purpose."""


class ConfigError(StreamerError, ValueError):
    """A setting is wrong."""


class InputError(StreamerError, OSError):
    """A source cannot be opened, holds no usable media, or was lost."""


class TooLargeError(InputError):
    """More bytes or pixels than the limits allow."""


class UnsupportedError(InputError):
    """Not in a format that is read."""


class DamagedError(InputError):
    """In a known format, but cut short or broken."""


class RefusedError(InputError):
    """A place that this caller may not read from."""


class UnreachableError(InputError):
    """A URL that did not answer in time, or not with a picture."""


class OutputError(StreamerError, OSError):
    """A result cannot be written."""


class DeviceError(StreamerError, RuntimeError):
    """The device that was asked for is missing or failed."""


class ModelError(StreamerError, RuntimeError):
    """Weights are missing, altered, of another shape, or under a licence that was not accepted."""


class RedactionError(StreamerError, RuntimeError):
    """A frame could not be made safe; it was not emitted."""
