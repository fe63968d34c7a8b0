"""What Prometheus reads at /metrics.

Notable: a registry of its own for each app, so that two in one process do not mix. Queue and rows are asked of the
service when Prometheus comes, so they cannot go astray.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from nanochat.serving.service import Service

CONTENT_TYPE = CONTENT_TYPE_LATEST
_FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WHOLE = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """All of them are named nanochat_...; times are in seconds."""

    def __init__(self, service: Service) -> None:
        """Counters at 0."""
        self._registry = registry = CollectorRegistry()
        names = ("endpoint", "status")
        self.requests = Counter("nanochat_requests", "Requests that were answered", names, registry=registry)
        self.seconds = Histogram(
            "nanochat_request_seconds",
            "From the request to the end of its answer",
            ("endpoint",),
            buckets=_WHOLE,
            registry=registry,
        )
        self.first_token = Histogram(
            "nanochat_time_to_first_token_seconds",
            "From the queue to the first token",
            buckets=_FIRST,
            registry=registry,
        )
        self.prompt_tokens = Counter("nanochat_prompt_tokens", "Tokens of prompts", registry=registry)
        self.generated_tokens = Counter("nanochat_generated_tokens", "Tokens of answers", registry=registry)
        self._gauges(service)

    def _gauges(self, service: Service) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=self._registry)

        gauge("nanochat_queue_length", "Answers without a token yet").set_function(lambda: service.waiting_rows)
        gauge("nanochat_live_rows", "Answers that are being written").set_function(lambda: service.live_rows)
        gauge("nanochat_replicas_ready", "Replicas that take requests").set_function(
            lambda: sum(worker.state == "ready" for worker in service.workers)
        )

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
