"""Frames for a hardware encoder: copies in surfaces that nobody writes while it may read them."""

from collections.abc import Callable

from streamer.device.cuda_memory import DevicePlane, Pool, Surfaces
from streamer.frame import Frame, Plane


class CudaLender:
    """The Lender of one NVENC encoder."""

    def __init__(
        self, pool: Pool, stream: int, copy_into: Callable[[tuple[DevicePlane, DevicePlane], Frame], None]
    ) -> None:
        """`copy_into` copies a frame's planes (CudaDevice.copy_into)."""
        self.stream = stream
        self._pool = pool
        self._copy_into = copy_into
        self._surfaces = Surfaces(pool)

    def surface(self, frame: Frame) -> tuple[Plane, Plane]:
        """In one block, chroma right behind luma: NVENC is told of luma's address alone."""
        with self._pool.driver.current():
            surface = self._surfaces.take(*frame.luma.shape)
            self._copy_into(surface, frame)
            return surface
