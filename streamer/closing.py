"""What is opened for a while: closed by hand, or where a with-statement ends."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """Adds the with-statement to a class with a `close`."""

    @abstractmethod
    def close(self) -> None:
        """Give up what was opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
