"""Every metric and what it means. Names are public; docs/operations.md lists them all, and a test compares the two."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

PREFIX = "tidemill"
SECONDS = (
    0.002,
    0.005,
    0.01,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1,
    1.5,
    2,
    3,
    5,
    10,
    30,
    60,
)
BYTES = tuple(1024 * 4**k for k in range(12))


class Level(Gauge):
    """A gauge that is exported only while it has a value: a 0 that nobody measured would pass for a measurement."""

    _known = False

    def set(self, value: float) -> None:
        self._known = True
        super().set(value)

    def show(self, value: float | None) -> None:
        """Sets it, or takes it back where there is no value."""
        self._known = value is not None
        super().set(0.0 if value is None else value)

    def collect(self) -> Iterable[Metric]:
        for family in super().collect():
            if not self._known:
                family.samples.clear()
            yield family


class _Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, namespace=PREFIX, registry=self.registry)

    def _level(self, name: str, meaning: str) -> Level:
        return Level(name, meaning, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        """One value a label, each from when it is set."""
        return Gauge(name, meaning, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
        return Histogram(name, meaning, labels, namespace=PREFIX, registry=self.registry, buckets=buckets)


class ConsumerMetrics(_Metrics):
    """What every process that reads events counts."""

    def __init__(self) -> None:
        super().__init__()
        self.events_consumed = self._counter("events_consumed_total", "accepted events read, by type", "type")
        self.events_rejected = self._counter("events_rejected_total", "records that did not fit, by reason", "reason")
        self.events_duplicate = self._counter("events_duplicate_total", "events recognised as sent before and ignored")
        self.events_misrouted = self._counter("events_misrouted_total", "events whose record key is not their user_id")
        self.events_expired = self._counter(
            "events_expired_total", "records the broker had already deleted before they were read", "topic", "partition"
        )
        self.lag_events = self._gauge("consumer_lag_events", "records not yet taken in", "topic", "partition")
        self.lag_seconds = self._level(
            "consumer_lag_seconds",
            "how long ago there first was a record that is not yet taken in, by this process's clock; 0 at the end",
        )
        self.model_version = self._level("model_version", "version in use (scorer) or published last (trainer)")
        self.model_age = self._level("model_age_seconds", "seconds since that version was made")
        self.health_check = self._gauge("health_check", "1 while a check of /health is ok, else 0", "check")


class TrainerMetrics(ConsumerMetrics):
    def __init__(self) -> None:
        super().__init__()
        self.leads = self._level("trainer_leads", "1 while this trainer holds the lease, 0 while it stands by")
        self.events_trained = self._counter("events_trained_total", "accepted events learned from by this process")
        self.events_trained_all = self._level(
            "model_events_trained", "events the model has learned from, over all runs"
        )
        self.train_step = self._histogram("train_step_seconds", "time to learn one micro-batch")
        self.train_loss = self._level("train_loss", "loss of the last micro-batch, before its step")
        self.batches_skipped = self._counter(
            "batches_skipped_total", "micro-batches with a non-finite loss or gradient"
        )
        self.weights_reset = self._counter("weights_reset_total", "returns to the weights of the last good version")
        self.replay = self._level("replay_per_event", "past events learned again for each new one, adapted to the load")
        self.network_share = self._level(
            "network_events_share", "share of the events that the network learns from, adapted to the load"
        )
        self.lessons_share = self._level(
            "ranker_lessons_share", "share of the ranker's lessons that are held, adapted to the load"
        )
        self.list_lead = self._level(
            "list_lead_mrr", "MRR at 20 of the ranker less that of the best channel alone, before learning"
        )
        self.list_order = self._gauge(
            "list_order", "1 for who orders lists: the ranker, or a simple order while that is better", "order"
        )
        self.recall = self._level("prequential_recall_at_20", "share of next items among the 20 best, before learning")
        self.ndcg = self._level("prequential_ndcg_at_20", "NDCG at 20 of the next item, before learning from it")
        self.items = self._level("model_items", "item rows in use")
        self.users = self._level("model_users", "users whose history the trainer keeps")
        self.publish_seconds = self._histogram("publish_seconds", "from touched rows to a live version", "kind")
        self.publish_bytes = self._histogram("publish_bytes", "bytes of a version's blobs", "kind", buckets=BYTES)
        self.publish_failures = self._counter("publish_failures_total", "attempts to publish that the store refused")
        self.unpublished = self._level("unpublished_batches", "micro-batches learned that no version holds yet")
        self.versions_held_back = self._counter(
            "versions_held_back_total", "versions that were published and did not go live (the gate, or a pin)"
        )
        self.gate_open = self._level("gate_open", "1 while the gate lets versions go live, else 0")
        self.gate_difference = self._level(
            "gate_ndcg_difference", "NDCG at 20 of the present weights less that of the last version found good"
        )
        self.versions_relearned = self._counter(
            "versions_relearned_total",
            "published versions learned again at the start, by whether they came out the same",
            "same",
        )
        self.letters_refused = self._counter(
            "dead_letters_refused_total", "dead letters that their topic refuses for good, kept in Redis", "topic"
        )
        self.letters_shelved = self._gauge("dead_letters_shelved", "of these, how many are in Redis now", "topic")
        self.letters_dropped = self._counter(
            "dead_letters_dropped_total", "of these, how many had to make room for newer ones", "topic"
        )
        self.feeder_restarts = self._counter(
            "feeder_restarts_total", "times the feeder process died or fell silent and was replaced"
        )


class ScorerMetrics(ConsumerMetrics):
    def __init__(self) -> None:
        super().__init__()
        self.reload = self._histogram("reload_seconds", "from seeing a new live version to scoring with it")
        self.reload_failures = self._counter("reload_failures_total", "versions that could not be loaded whole")
        self.written = self._counter("recommendations_written_total", "lists written to Redis")
        self.unchanged = self._counter(
            "recommendations_unchanged_total",
            "lists made by newer weights that are as they were, and not written again",
        )
        self.related_written = self._counter(
            "related_written_total", "lists of what goes with an item, written to Redis"
        )
        self.freshness = self._histogram(
            "event_to_recommendation_seconds",
            "from the record's Kafka timestamp to the list in Redis that reflects it as input (history) or is scored "
            "by weights that have learned from it (learned)",
            "stage",
        )
        self.events_unmeasured = self._counter(
            "events_unmeasured_total",
            "events that event_to_recommendation_seconds leaves out: too many waited, or their user or partition went",
            "stage",
        )
        self.event_times_implausible = self._counter(
            "event_times_implausible_total",
            "events that it leaves out because their Kafka timestamp is ahead of now by over a second (ahead), or over "
            "half an hour old (old)",
            "stage",
            "time",
        )
        self.score_seconds = self._histogram("score_seconds", "top-k of one group of users")
        self.active_users = self._level("active_users", "users held in memory because they acted lately")
        self.lists_due = self._level("lists_due", "users whose latest events no list reflects yet")
        self.history_conflicts = self._counter(
            "history_conflicts_total", "histories another scorer had changed, read again and continued"
        )
        self.histories_restored = self._counter(
            "histories_restored_total", "histories that Redis had lost, stored again from memory"
        )
        self.lists_swept = self._counter("lists_swept_total", "lists at rest that lost a deleted or unavailable item")
        self.rebalances = self._counter("rebalances_total", "times Kafka moved partitions to or from this scorer")
