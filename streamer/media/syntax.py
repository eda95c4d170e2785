"""What copying groups of pictures needs to know of a codec's byte stream: one object each for H.264 and HEVC."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from streamer.media import hevc, nal


class Syntax(ABC):
    """The questions; the answers are in media.nal and media.hevc. Units are without start code."""

    codec: str

    @abstractmethod
    def length_size(self, extradata: bytes) -> int | None:
        """Bytes of a unit's length; None where packets carry start codes."""

    @abstractmethod
    def parameter_sets(self, extradata: bytes) -> list[bytes]:
        """The units of a stream's header that slices refer to."""

    @abstractmethod
    def place(self, unit: bytes) -> tuple[int, int] | None:
        """Kind and id of a parameter set, which a later one of the same takes over; None for another unit."""

    @abstractmethod
    def pictures(self, units: Iterable[bytes]) -> list[bytes]:
        """Only the coded slices: what may travel."""

    @abstractmethod
    def opens(self, units: Iterable[bytes]) -> bool:
        """Whether a closed group begins with this packet."""

    @abstractmethod
    def leads(self, units: Iterable[bytes]) -> bool:
        """Whether the packet belongs to the group of the key picture before it, though shown earlier than that."""

    @abstractmethod
    def refusal(self, units: Iterable[bytes]) -> str | None:
        """Why the packet may not be copied."""

    @abstractmethod
    def naming(self, taken: Iterable[bytes]) -> "Naming | None":
        """How our encoder's parameter sets get ids beside these; None where no id is left."""

    @abstractmethod
    def demands(self, unit: bytes) -> int:
        """The profile of an SPS, as far as sets are sorted by it: the more demanding one goes first."""

    def order(self, unit: bytes) -> tuple[int, int]:
        """Where a parameter set stands in the header."""
        place = self.place(unit)
        return (place[0] if place else 0, -self.demands(unit))


class Naming(ABC):
    """Ids for the parameter sets of our encoder that the source does not use."""

    params: str  # for the encoder, as x264 and x265 take them

    @abstractmethod
    def named(self, unit: bytes) -> bytes:
        """A unit of the encoder under these ids. Raises ValueError if it cannot be."""


class _ByEncoder(Naming):
    """x264 writes the id that it is told."""

    def __init__(self, number: int) -> None:
        self.params = f"sps-id={number}"

    def named(self, unit: bytes) -> bytes:
        return unit


class _ByHand(Naming):
    """x265 knows no ids but 0."""

    params = "open-gop=0"

    def __init__(self, ids: hevc.Ids) -> None:
        self._ids = ids

    def named(self, unit: bytes) -> bytes:
        return hevc.renamed(unit, self._ids)


class _H264(Syntax):
    codec = "h264"

    def length_size(self, extradata: bytes) -> int | None:
        return nal.length_size(extradata)

    def parameter_sets(self, extradata: bytes) -> list[bytes]:
        return nal.parameter_sets(extradata)

    def place(self, unit: bytes) -> tuple[int, int] | None:
        return (nal.kind(unit), nal.set_id(unit)) if nal.kind(unit) in (nal.SPS, nal.PPS) else None

    def pictures(self, units: Iterable[bytes]) -> list[bytes]:
        return nal.pictures(units)

    def opens(self, units: Iterable[bytes]) -> bool:
        return any(nal.kind(unit) == nal.IDR for unit in units)

    def leads(self, units: Iterable[bytes]) -> bool:
        return False

    def refusal(self, units: Iterable[bytes]) -> str | None:
        return "data partitions" if any(nal.kind(unit) in (2, 3, 4) for unit in units) else None

    def naming(self, taken: Iterable[bytes]) -> Naming | None:
        used = {nal.set_id(unit) for unit in taken}
        number = next((number for number in range(1, 32) if number not in used), None)
        return _ByEncoder(number) if number is not None else None

    def demands(self, unit: bytes) -> int:
        return unit[1]


class _Hevc(Syntax):
    codec = "hevc"

    def length_size(self, extradata: bytes) -> int | None:
        return hevc.length_size(extradata)

    def parameter_sets(self, extradata: bytes) -> list[bytes]:
        return hevc.parameter_sets(extradata)

    def place(self, unit: bytes) -> tuple[int, int] | None:
        mine = hevc.kind(unit) in (hevc.VPS, hevc.SPS, hevc.PPS) and hevc.layer(unit) == 0
        return (hevc.kind(unit), hevc.set_id(unit)) if mine else None

    def pictures(self, units: Iterable[bytes]) -> list[bytes]:
        return hevc.pictures(units)

    def opens(self, units: Iterable[bytes]) -> bool:
        return hevc.opens(units)

    def leads(self, units: Iterable[bytes]) -> bool:
        return hevc.leads(units)

    def refusal(self, units: Iterable[bytes]) -> str | None:
        return hevc.refusal(units)

    def naming(self, taken: Iterable[bytes]) -> Naming | None:
        ids = hevc.free_ids(taken)
        return _ByHand(ids) if ids is not None else None

    def demands(self, unit: bytes) -> int:
        return 0  # the writer of the hvcC box takes the highest of all by itself


SYNTAXES: dict[str, Syntax] = {syntax.codec: syntax for syntax in (_H264(), _Hevc())}
