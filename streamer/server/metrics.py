"""The streams in Prometheus' text format. Names of streams are the only labels: no addresses, no keys."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from streamer.live.meter import BUCKETS_S
from streamer.live.stream import LiveStream

_STATES = ("starting", "live", "offline", "ended", "stopped", "failed")


def exposition(streams: list[LiveStream]) -> tuple[bytes, str]:
    """The body of /metrics and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(streams))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Collector:
    def __init__(self, streams: Iterable[LiveStream]) -> None:
        self._streams = list(streams)

    def collect(self) -> Iterator[Metric]:
        """Every metric of every stream."""
        yield from self._counters()
        yield from self._gauges()
        yield self._latency()
        yield self._stages()
        yield self._outlets()

    def _counters(self) -> Iterator[Metric]:
        rows = {
            "frames_in": "pictures decoded",
            "frames_out": "pictures encoded and handed out",
            "frames_dropped": "decoded pictures overtaken by newer ones before detection",
            "frames_late": "pictures that came after a covered one had taken their place",
            "frames_covered": "pictures covered whole",
            "frames_masked": "pictures with masks",
            "frames_damaged": "pictures of which the decoder says that data was missing; judged as all others are",
            "detector_runs": "runs of the detector",
            "detector_failures": "runs of the detector that failed",
            "reconnects": "connections lost",
            "encoder_failures": "times the encoder failed and was opened again",
            "outlets_failed": "times a recording, a push, HLS or the viewers' room raised and was left alone",
            "egress_without_receipt": "things refused because they held no receipt; must stay 0",
        }
        for name, text in rows.items():
            family = CounterMetricFamily(f"streamer_{name}", text, labels=["stream"])
            for stream in self._streams:
                family.add_metric([stream.name], _count(stream, name))
            yield family
        covered = CounterMetricFamily(
            "streamer_covered", "covered pictures by reason", labels=["stream", "reason"]
        )
        for stream in self._streams:
            for event, count in tuple(stream.tally.events.items()):
                if event.startswith("covered: "):
                    covered.add_metric([stream.name, event.removeprefix("covered: ")], count)
        yield covered

    def _gauges(self) -> Iterator[Metric]:
        viewers = GaugeMetricFamily("streamer_viewers", "WebRTC viewers now", labels=["stream"])
        masks = GaugeMetricFamily("streamer_masks", "objects hidden in the last picture", labels=["stream"])
        age = GaugeMetricFamily(
            "streamer_carried_box_age_seconds", "oldest time since a box in the last picture was detected",
            labels=["stream"],
        )  # fmt: skip
        lag = GaugeMetricFamily(
            "streamer_detector_lag_seconds", "stream time since the detector last looked", labels=["stream"]
        )
        view = GaugeMetricFamily(
            "streamer_detector_view", "share of the detector's view: below 1 the machine is too slow",
            labels=["stream"],
        )  # fmt: skip
        state = GaugeMetricFamily("streamer_state", "1 for the state that holds", labels=["stream", "state"])
        for stream in self._streams:
            outlets = [outlet.counters() for outlet in stream.egress.outlets]
            viewers.add_metric([stream.name], sum(int(entry.get("viewers", 0)) for entry in outlets))
            masks.add_metric([stream.name], len(stream.results[-1].objects) if stream.results else 0)
            age.add_metric([stream.name], stream.tally.levels["carried box age"])
            lag.add_metric([stream.name], stream.tally.levels["detector lag"])
            view.add_metric([stream.name], stream.governor.view)
            for name in _STATES:
                state.add_metric([stream.name, name], float(stream.state == name))
        yield from (viewers, masks, age, lag, view, state)

    def _latency(self) -> Metric:
        family = HistogramMetricFamily(
            "streamer_latency_seconds", "from decoded picture to encoded packet", labels=["stream"]
        )
        for stream in self._streams:
            total = 0
            buckets = []
            for limit, count in zip((*BUCKETS_S, float("inf")), stream.meter.latency_counts, strict=True):
                total += count
                buckets.append(("+Inf" if limit == float("inf") else str(limit), total))
            family.add_metric([stream.name], buckets, stream.meter.latency_sum_s)
        return family

    def _stages(self) -> Metric:
        family = CounterMetricFamily("streamer_stage_seconds", "time by stage", labels=["stream", "stage"])
        for stream in self._streams:
            for stage, seconds in tuple(stream.tally.seconds.items()):
                family.add_metric([stream.name, stage], seconds)
        return family

    def _outlets(self) -> Metric:
        family = CounterMetricFamily(
            "streamer_outlet", "what each outlet counted", labels=["stream", "outlet", "event"]
        )
        for stream in self._streams:
            for place, outlet in enumerate(stream.egress.outlets):
                kind = type(outlet).__name__.lower()
                for event, count in outlet.counters().items():
                    if isinstance(count, int) and event != "viewers":
                        family.add_metric([stream.name, f"{kind}{place}", event], count)
        return family


def _count(stream: LiveStream, name: str) -> float:
    special = {
        "frames_out": stream.meter.frames_out,
        "frames_dropped": stream.supervisor.dropped,
        "frames_covered": stream.tally.events["frames covered whole"],
        "frames_damaged": stream.tally.events["damaged pictures"],
        "reconnects": stream.supervisor.reconnects,
        "egress_without_receipt": stream.egress.without_receipt,
    }
    return float(special.get(name, stream.tally.events[name.replace("_", " ")]))
