"""What a live stream tells about itself, as JSON values; nothing in it is secret."""

from collections.abc import Iterable
from typing import Any

from streamer.address import without_secrets
from streamer.live.stream import LiveStream


def status(stream: LiveStream, *, now_s: float) -> dict[str, Any]:
    """State, rates, latency, viewers, masks and counters of a stream."""
    supervisor, events, encoder = stream.supervisor, stream.tally.events, stream.encoder
    last = stream.results[-1] if stream.results else None
    outlets = _outlets(stream)
    problem = supervisor.problem or stream.meter.problem(now_s) or stream.governor.problem
    if stream.failure is not None:
        problem = f"{type(stream.failure).__name__}: {stream.failure}"
    return {
        "name": stream.name,
        "source": stream.settings.shown_source,
        "state": stream.state,
        "problem": without_secrets(problem, stream.settings.source, *stream.settings.push)
        if problem
        else None,
        "width": supervisor.size.width if supervisor.size else None,
        "height": supervisor.size.height if supervisor.size else None,
        "fps": round(stream.meter.rate(now_s), 1),
        "latency_ms": {"p50": stream.meter.latency_ms(0.5), "p95": stream.meter.latency_ms(0.95)},
        "delay_ms": stream.settings.delay_ms,
        "sound": stream.has_sound(),
        "viewers": sum(int(entry.get("viewers", 0)) for entry in outlets),
        "masks": len(last.objects) if last is not None else 0,
        "covered_now": last.covered if last is not None else None,
        "decoding": stream.decoding.reason,
        "encoder": {"name": encoder.name, "why": encoder.why} if encoder is not None else None,
        "effort": {"interval": stream.governor.stretch, "view": stream.governor.view},
        "frames": {
            "in": events["frames in"],
            "out": stream.meter.frames_out,
            "dropped": supervisor.dropped,
            "late": events["frames late"],
            "masked": events["frames masked"],
            "covered": events["frames covered whole"],
            "damaged": events["damaged pictures"],
        },
        "reconnects": supervisor.reconnects,
        "egress_without_receipt": stream.egress.without_receipt,
        "outlets": outlets,
    }


def _outlets(stream: LiveStream) -> list[dict[str, Any]]:
    """What each outlet counted, and why those failed that are left alone for now."""
    secrets = (stream.settings.source, *stream.settings.push)
    failed = {
        name: {"name": name, "state": "failed", "problem": without_secrets(problem, *secrets)}
        for name, problem in tuple(stream.egress.failed.items())
    }
    entries: list[dict[str, Any]] = []
    for outlet in stream.egress.outlets:
        entry: dict[str, Any] = {"name": outlet.name, **outlet.counters()}
        entries.append({**entry, **failed.pop(outlet.name, {})})
    return [*entries, *failed.values()]


def outlet_problems(now: dict[str, Any]) -> list[str]:
    """What keeps pictures from where they should go, of a `status`."""
    return [f"{entry['name']}: {entry['problem']}" for entry in now["outlets"] if entry.get("problem")]


_SUMMARY_S = 60.0


class Journal:
    """What there is to say in a log: changes of state at once, counters once a minute. No secrets."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, str | None, str]] = {}
        self._outlets: dict[tuple[str, str], tuple[bool, str | None]] = {}
        self._summed_s: float | None = None

    def entries(self, streams: Iterable[LiveStream], *, now_s: float) -> list[dict[str, Any]]:
        """The new entries at this moment."""
        found = []
        summary = self._summed_s is not None and now_s - self._summed_s >= _SUMMARY_S
        if summary or self._summed_s is None:
            self._summed_s = now_s
        running = list(streams)
        self._forget({stream.name for stream in running})
        for stream in running:
            now = status(stream, now_s=now_s)
            state = (now["state"], now["problem"], str(now["encoder"]))
            if self._last.get(stream.name) != state:
                self._last[stream.name] = state
                entry = {
                    "event": "state",
                    **{key: now[key] for key in ("name", "source", "state", "problem", "encoder")},
                }
                found.append(entry)
            found += self._of_outlets(now)
            if summary:
                keys = (
                    "name",
                    "fps",
                    "latency_ms",
                    "viewers",
                    "frames",
                    "reconnects",
                    "egress_without_receipt",
                )
                found.append({"event": "counters", **{key: now[key] for key in keys}})
        return found

    def _forget(self, running: set[str]) -> None:
        """Streams that are gone: one that takes such a name is another."""
        self._last = {name: told for name, told in self._last.items() if name in running}
        self._outlets = {place: told for place, told in self._outlets.items() if place[0] in running}

    def _of_outlets(self, now: dict[str, Any]) -> list[dict[str, Any]]:
        """Targets that are reached, and why one is not: once for each reason, not for each try."""
        found = []
        for outlet in now["outlets"]:
            told = (outlet.get("state") == "publishing", outlet.get("problem"))
            place = (now["name"], outlet["name"])
            if self._outlets.get(place, (False, None)) != told:
                self._outlets[place] = told
                state = {"outlet": outlet["name"], "state": outlet.get("state"), "problem": told[1]}
                found.append({"event": "outlet", "name": now["name"], **state})
        return found
