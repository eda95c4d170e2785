"""How long one picture takes from file to masked file, on one core."""

import statistics
from dataclasses import asdict, dataclass
from time import perf_counter, process_time

import cv2

from streamer.config import Settings
from streamer.image.limits import ImageLimits
from streamer.image.picture import decode
from streamer.image.redact import open_redactor

_WARM_UP = 3  # pictures before the clock starts


@dataclass(frozen=True, slots=True)
class ImageTimes:
    """Medians over the rounds; processor time counts all threads."""

    width: int  # pixels
    height: int
    objects: int
    decode_ms: float
    mask_ms: float  # look, plan and paint
    write_ms: float
    wall_ms: float
    cpu_ms: float

    def as_dict(self) -> dict[str, float]:
        """The JSON form."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


def time_image(data: bytes, settings: Settings, rounds: int) -> ImageTimes:
    """Decode, mask and write the picture in `data` again and again. Raises what those raise."""
    redactor, limits = open_redactor(settings), ImageLimits()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    laps: list[tuple[float, ...]] = []
    try:
        for _ in range(_WARM_UP + rounds):
            cpu_s, start_s = process_time(), perf_counter()
            picture = decode(data, limits)
            decoded_s = perf_counter()
            masked = redactor(picture, settings.hide)
            masked_s = perf_counter()
            masked.write()
            end_s = perf_counter()
            steps = (decoded_s - start_s, masked_s - decoded_s, end_s - masked_s, end_s - start_s)
            laps.append((*steps, process_time() - cpu_s))
    finally:
        cv2.setNumThreads(threads)
    medians = [1000 * statistics.median(lap) for lap in zip(*laps[_WARM_UP:], strict=True)]
    return ImageTimes(picture.width, picture.height, len(masked.objects), *medians)
