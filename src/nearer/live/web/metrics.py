"""What Prometheus is told.  The names stand in docs/monitoring/alerts.yml and the Grafana dashboard too."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from nearer.live.index.searcher import Served

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """One registry a service, so that two in a process do not add up."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        gauge = partial(Gauge, registry=self._registry)
        timer = partial(Histogram, buckets=_SECONDS, registry=self._registry)
        # -- requests
        self._requests = counter(
            "nearer_requests", "Requests by endpoint and status.", ("endpoint", "status")
        )
        self._seconds = timer("nearer_request_seconds", "Seconds a request.", ("endpoint",))
        self._depth = gauge("nearer_queue_depth", "Queries that wait or are being answered.")
        self.rejected = counter("nearer_rejected", "Requests refused because the queue was full.")
        self._empty = counter("nearer_empty_results", "Queries that nothing was found for.")
        self._cache = gauge("nearer_cache_hits_total", "Query vectors that were in memory.")
        # -- what answers, and what is tried
        self._active = gauge(
            "nearer_active_generation_info",
            "The generation that answers.",
            ("generation", "fingerprint"),
        )
        self.rollout = gauge(
            "nearer_rollout_info", "What is tried on live traffic.", ("generation", "mode")
        )
        self.shadow = counter(
            "nearer_shadow", "Shadow queries: compared, dropped, late, failed.", ("outcome",)
        )
        self.shadow_seconds = timer("nearer_shadow_seconds", "Seconds a shadow query.")
        # -- the service itself
        self._lost = gauge(
            "nearer_traffic_log_lost_total", "Lines of the traffic log that were lost."
        )
        self._stuck = gauge(
            "nearer_traffic_log_failing", "1 while the traffic log cannot be written."
        )
        self._skipped = gauge(
            "nearer_traffic_log_skipped_lines",
            "Lines of the traffic log that the guard could not read.",
        )
        self._loop_failures = counter(
            "nearer_loop_failures", "Rounds of a background loop that failed.", ("loop",)
        )
        self._loop_failing = gauge(
            "nearer_loop_failing", "1 while a background loop does not work.", ("loop",)
        )

    def loop_works(self, loop: str) -> None:
        self._loop_failures.labels(loop)
        self._loop_failing.labels(loop).set(0)

    def loop_failed(self, loop: str) -> None:
        self._loop_failures.labels(loop).inc()
        self._loop_failing.labels(loop).set(1)

    def skipped(self, lines: int) -> None:
        self._skipped.set(lines)

    def observed(self, endpoint: str, status: int, seconds: float) -> None:
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def answered(self, empty: bool) -> None:
        if empty:
            self._empty.inc()

    def serving(self, served: Served) -> None:
        self._active.clear()
        self._active.labels(served.id, served.manifest.fingerprint.id).set(1)

    def log_state(self, lost: int, error: str) -> None:
        self._lost.set(lost)
        self._stuck.set(1 if error else 0)

    def now(self, depth: int, hits: int) -> None:
        self._depth.set(depth)
        self._cache.set(hits)

    def text(self) -> str:
        return generate_latest(self._registry).decode()
