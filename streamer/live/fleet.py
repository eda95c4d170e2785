"""All live streams of a process by name: added, changed and removed while the others run."""

from collections.abc import Callable, Iterator

from streamer.channel import Turns
from streamer.config import Hide
from streamer.detector import Detector
from streamer.errors import ConfigError
from streamer.live.detecting import SharedDetector
from streamer.live.settings import StreamSettings, check_name
from streamer.live.stream import LiveStream, Studio
from streamer.media.hls import Hls
from streamer.media.push import Push
from streamer.media.record import Recorder
from streamer.pipeline import Engine
from streamer.zones import Zones, zones_from

_LIGHT = frozenset({"style", "hide", "zones", "delay_ms", "mask_age_ms"})  # change without a new connection


def open_studio(engine: Engine) -> Studio:
    """What the streams share, from what files use. Loads the network."""
    detector = Detector(engine.spec, engine.device, engine.settings.detect, Hide.EVERYTHING)
    return Studio(
        engine.settings,
        engine.device,
        engine.reason,
        SharedDetector(detector, detector.together, detector.most, detector.at_once),
        engine.zones,
    )


class Fleet:
    """The streams. Methods may be called from any thread and may wait; `prepare` sees each stream before it starts."""

    def __init__(self, studio: Studio, prepare: Callable[[LiveStream], None] | None = None) -> None:
        self.studio = studio
        self.prepare = prepare
        self._known: dict[str, StreamSettings] = {}  # stopped ones too
        self._running: dict[str, LiveStream] = {}
        self._turns = Turns()

    def __iter__(self) -> Iterator[LiveStream]:
        return iter(tuple(self._running.values()))

    @property
    def known(self) -> dict[str, StreamSettings]:
        """The settings of every stream by name, running or not."""
        return dict(self._known)

    def get(self, name: str) -> LiveStream | None:
        """The stream that runs under that name."""
        return self._running.get(name)

    def put(self, name: str, settings: StreamSettings) -> None:
        """Add a stream, or change one: masks change on the running connection, anything else begins it anew, also
        one that has ended or failed.

        Raises ConfigError or OutputError; then nothing has changed, except that a stream begun anew is stopped.
        """
        check_name(name)
        zones = self._zones_of(name, settings)
        with self._turns:
            running = self._running.get(name)
            lightly = (
                running is not None and not running.over and _differs_lightly(running.settings, settings)
            )
            if running is not None and settings.enabled and lightly:
                running.change(settings, zones)
            else:
                hls = None if running is None else _hls_of(running)
                self._stop(name)
                if settings.enabled:
                    self._running[name] = self._start(name, settings, zones, hls)
            self._known[name] = settings

    def remove(self, name: str) -> None:
        """Stop a stream and forget it. Raises ConfigError if there is none."""
        with self._turns:
            if name not in self._known:
                raise ConfigError(f"no stream has this name: {name}")
            self._stop(name)
            del self._known[name]

    def stop(self) -> None:
        """Stop all streams, at the same time: recordings are closed before whoever asked loses patience."""
        with self._turns:
            for stream in self._running.values():
                stream.end()
            for name in tuple(self._running):
                self._stop(name)

    def _stop(self, name: str) -> None:
        stream = self._running.pop(name, None)
        if stream is not None:
            stream.stop()

    def _start(self, name: str, settings: StreamSettings, zones: Zones, before: Hls | None) -> LiveStream:
        stream = LiveStream(name, settings, self.studio, zones=zones)
        try:
            if settings.hls:
                stream.add(Hls(has_sound=stream.has_sound, before=before))
            for url in settings.push:
                stream.add(Push(url, want_key=stream.want_key, has_sound=stream.has_sound))
            if settings.record is not None:
                length_s = settings.segment_s
                stream.add(
                    Recorder(
                        settings.record, name, segment_s=length_s, want_key=stream.want_key,
                        has_sound=stream.has_sound,
                    )
                )  # fmt: skip
            if self.prepare is not None:
                self.prepare(stream)
        except BaseException:
            stream.egress.close()
            raise
        stream.start()
        return stream

    def _zones_of(self, name: str, settings: StreamSettings) -> Zones:
        """The stream's own zones. What the configuration masks in every stream stays masked: who draws one zone more
        on the page does not see those, and must not open them.
        """
        if settings.zones is None:
            return self.studio.zones
        own = zones_from(settings.zones, f'stream "{name}"')
        return Zones(self.studio.zones.mask + own.mask, own.keep)


def _differs_lightly(before: StreamSettings, after: StreamSettings) -> bool:
    return before.model_dump(exclude=set(_LIGHT)) == after.model_dump(exclude=set(_LIGHT))


def _hls_of(stream: LiveStream) -> Hls | None:
    return next((outlet for outlet in stream.egress.outlets if isinstance(outlet, Hls)), None)
