"""Figures of a service for Prometheus."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import reconpatch
from reconpatch.memory import resident_bytes

if TYPE_CHECKING:
    from reconpatch.station.cameras.cameras import Cameras
    from reconpatch.station.outputs.dispatch import Outputs
    from reconpatch.station.station import Station

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counters in a registry of their own, so that several services do not share them."""

    def __init__(self, station: Station, outputs: Outputs, cameras: Cameras) -> None:
        self._registry = CollectorRegistry()
        self._verdicts = Counter(
            "reconpatch_verdicts", "Photos inspected.", ["product", "verdict"],
            registry=self._registry,
        )  # fmt: skip
        self._requests = Counter(
            "reconpatch_requests", "Requests answered.", ["method", "route", "status"],
            registry=self._registry,
        )  # fmt: skip
        seconds = Histogram(
            "reconpatch_inspect_seconds", "From the request to its answer, of a single photo.",
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.timed = seconds.time
        """Count the seconds that a block takes, which is given this as its context."""
        waiting = Gauge("reconpatch_waiting", "Photos in the queue.", registry=self._registry)
        waiting.set_function(lambda: station.waiting)
        stored = Gauge("reconpatch_photo_bytes", "Bytes of photos kept.", registry=self._registry)
        stored.set_function(station.records.photo_bytes)
        free = Gauge("reconpatch_disk_free_bytes", "Free on the disk.", registry=self._registry)
        free.set_function(lambda: shutil.disk_usage(station.data.path).free)
        memory = Gauge("reconpatch_memory_bytes", "Of the process.", registry=self._registry)
        memory.set_function(resident_bytes)
        ready = Gauge(
            "reconpatch_ready", "Whether the next photo would get its verdict.",
            registry=self._registry,
        )  # fmt: skip
        ready.set_function(lambda: not station.unable)
        self._failures = Counter(
            "reconpatch_failures", "Photos without a verdict, by kind.", ["product", "kind"],
            registry=self._registry,
        )  # fmt: skip
        station.records.outbox.listeners.append(self._heard)
        self._registry.register(_Products(station))
        self._registry.register(_Outputs(outputs))
        self._registry.register(_Cameras(cameras))

    def _heard(self, event: str, subjects: Sequence[Any]) -> None:
        for one in subjects:
            if event == "failure":
                self._failures.labels(one.product, one.kind).inc()
            else:
                verdict = "anomalous" if one.anomalous else "good"
                self._verdicts.labels(one.product, verdict).inc()

    def count_request(self, method: str, route: str, status: int) -> None:
        """One more request was answered; labels take few values, whatever is asked."""
        self._requests.labels(method if method in _METHODS else "other", route, status).inc()

    def text(self) -> tuple[bytes, str]:
        """All figures, and the media type in which they are."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Products(Collector):
    """Versions and drift by product, as they are when the figures are asked for."""

    def __init__(self, station: Station) -> None:
        self._station = station

    def collect(self) -> Iterator[Metric]:
        """The figures of every product."""
        level = GaugeMetricFamily(
            "reconpatch_drift_level", "How near the next alarm is; it comes at 1.",
            labels=["product"],
        )  # fmt: skip
        alarms = CounterMetricFamily(
            "reconpatch_drift_alarms", "Drift alarms of the version in service.",
            labels=["product"],
        )  # fmt: skip
        version = GaugeMetricFamily(
            "reconpatch_version", "Number of the version in service.", labels=["product"]
        )
        program = GaugeMetricFamily(
            "reconpatch_program", "1, with the program's version.", labels=["version"]
        )
        program.add_metric([reconpatch.__version__], 1)
        for product, served in self._station.products.items():
            version.add_metric([product], served.version.number)
            drift = self._station.drift(product).monitor
            level.add_metric([product], drift.level)
            alarms.add_metric([product], drift.alarms)
        yield from (program, version, level, alarms)


class _Outputs(Collector):
    """Outputs to the line, as they are when the figures are asked for."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def collect(self) -> Iterator[Metric]:
        """The figures of every output."""
        up = GaugeMetricFamily(
            "reconpatch_output_up", "Whether the last message was taken.", labels=["output"]
        )
        waiting = GaugeMetricFamily(
            "reconpatch_output_waiting", "Messages that wait to be sent.", labels=["output"]
        )
        refused = GaugeMetricFamily(
            "reconpatch_output_refused", "Messages that were refused, and wait for somebody.",
            labels=["output"],
        )  # fmt: skip
        sent = CounterMetricFamily(
            "reconpatch_output_sent", "Messages that were taken, heartbeats apart.",
            labels=["output"],
        )  # fmt: skip
        for one in self._outputs.states():
            up.add_metric([one.name], one.state == "ok")
            waiting.add_metric([one.name], one.waiting)
            refused.add_metric([one.name], one.refused)
            sent.add_metric([one.name], one.sent)
        yield from (up, waiting, refused, sent)


class _Cameras(Collector):
    """Cameras, as they are when the figures are asked for."""

    def __init__(self, cameras: Cameras) -> None:
        self._cameras = cameras

    def collect(self) -> Iterator[Metric]:
        """The figures of every camera."""
        up = GaugeMetricFamily(
            "reconpatch_camera_up", "Whether frames come, or the folder is there.",
            labels=["camera"],
        )  # fmt: skip
        paused = GaugeMetricFamily(
            "reconpatch_camera_paused", "Whether it takes no photos, for somebody said so.",
            labels=["camera"],
        )  # fmt: skip
        age = GaugeMetricFamily(
            "reconpatch_camera_age_seconds", "Since the last frame or file came.",
            labels=["camera"],
        )  # fmt: skip
        photos = CounterMetricFamily(
            "reconpatch_camera_photos", "Photos of cameras, by what came of them.",
            labels=["camera", "outcome"],
        )  # fmt: skip
        for one in self._cameras.states():
            up.add_metric([one.name], one.state == "ok")
            paused.add_metric([one.name], one.pause is not None)
            if one.age is not None:
                age.add_metric([one.name], one.age)
            photos.add_metric([one.name, "verdict"], one.taken)
            photos.add_metric([one.name, "none"], one.failed)
        yield from (up, paused, age, photos)
