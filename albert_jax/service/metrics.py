"""What a service counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            'albert_requests', 'Requests answered.', ['path', 'status'], registry=self.registry
        )
        self.seconds = Histogram(
            'albert_request_seconds', 'From the first byte of a request to the last of its answer.',
            ['path'], registry=self.registry, buckets=_SECONDS,
        )  # fmt: skip
        self.rows = Counter(
            'albert_rows', 'Rows that went through a model.', ['model', 'ability'],
            registry=self.registry,
        )  # fmt: skip
        self.computed_rows = Counter(
            'albert_row_places', 'Rows computed, those that only fill a batch too.',
            ['model', 'ability'], registry=self.registry,
        )  # fmt: skip
        self.batches = Counter(
            'albert_batches', 'Batches run.', ['model', 'ability'], registry=self.registry
        )
        self.waiting = Gauge(
            'albert_rows_waiting', 'Rows that no batch has taken yet.', registry=self.registry
        )
        self.compiled = Gauge(
            'albert_compiled_programs', 'Programs compiled; it stands still once it is '
            'albert_programs.', registry=self.registry,
        )  # fmt: skip
        self.programs = Gauge(
            'albert_programs', 'Programs that there will be.', registry=self.registry
        )
        self.is_ready = Gauge('albert_ready', '1 once every model answers.', registry=self.registry)

    def batch(self, model: str, ability: str, rows: int, size: int) -> None:
        """Counts a batch."""
        self.rows.labels(model, ability).inc(rows)
        self.computed_rows.labels(model, ability).inc(size)
        self.batches.labels(model, ability).inc()
