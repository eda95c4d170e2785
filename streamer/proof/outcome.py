"""What became of a fault, as a row of the table."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["held", "LEAKED", "not back", "crashed", "hung", "not run"]


class Unfinished(Exception):
    """The fault did not happen, or what should come back after it did not."""


class NotRun(Exception):
    """A part that the fault needs is missing here: says which."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What left while a fault was tried."""

    out: int
    covered: int
    uncovered: int  # show the face: must be 0


def together(parts: Iterable[Pictures]) -> Pictures:
    """The pictures of several files."""
    every = tuple(parts)
    return Pictures(
        sum(part.out for part in every),
        sum(part.covered for part in every),
        sum(part.uncovered for part in every),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """One fault, what it did and what left meanwhile."""

    fault: str
    happened: str
    pictures: Pictures
    back_s: float | None  # from the fault's end to the next picture masked as usual; files: the rerun's time
    verdict: Verdict

    @property
    def leaked(self) -> bool:
        """Whether any picture left that shows the face."""
        return self.pictures.uncovered > 0

    @property
    def failed(self) -> bool:
        """Whether the fault was tried and did not end well."""
        return self.verdict not in ("held", "not run")

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def outcome_from(values: dict[str, Any]) -> Outcome:
    """What `as_dict` gave."""
    return Outcome(**{**values, "pictures": Pictures(**values["pictures"])})


def without_pictures(fault: str, happened: str, verdict: Verdict) -> Outcome:
    """A fault of which nothing was seen."""
    return Outcome(fault, happened, Pictures(0, 0, 0), None, verdict)
