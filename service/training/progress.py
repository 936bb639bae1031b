"""How far the trainer has come: offsets, events, and the micro-batches since the last version. Pure."""

from dataclasses import dataclass, field

from consumers.micro_batch import MicroBatch
from consumers.records import TopicPartition, from_topics, next_offsets
from model_store.version import BatchRecord, Head
from service.training.effort import Effort
from service.training.evaluation.measures import RankSums
from service.training.learner import LearnResult

RECENT_RANKED = 5_000.0  # ranked events after which an event counts for half in the prequential figures


@dataclass
class Progress:
    """What the next manifest will say of events and batches. Offsets never go back."""

    trained_through: dict[TopicPartition, int] = field(default_factory=dict)
    events_trained: int = 0
    batches: list[BatchRecord] = field(default_factory=list)  # since the last version
    ranked: RankSums = field(default_factory=RankSums)  # of the latest events, with exponentially decaying weights
    loss: float | None = None
    lead: tuple[float, float] | None = None  # of lists over the best channel alone, and its standard error

    @classmethod
    def of(cls, manifest: Head) -> "Progress":
        """The progress that a version had made."""
        return cls(from_topics(manifest.trained_through), manifest.events_trained)

    def add(
        self, batch: MicroBatch, result: LearnResult, effort: Effort, weights_of_version: int | None = None
    ) -> None:
        """Adds a batch that was learned. weights_of_version: where the weights then went back to a version, which one.

        Raises: ValueError when the batch has records before those that were learned already.
        """
        for topic, partition, start, _ in batch.ranges:
            where = TopicPartition(topic, partition)
            at = self.trained_through.get(where)
            if at is not None and start < at:
                raise ValueError(f"{topic}[{partition}]: a batch from {start}, but everything before {at} is learned")
        self.trained_through.update(next_offsets(batch.ranges))
        self.events_trained += result.n_events
        self.batches.append(
            BatchRecord(
                ranges=tuple((r.topic, r.partition, r.start, r.end) for r in batch.ranges),
                records=batch.records,
                replay=effort.replay,
                skipped=result.taught.skipped,
                ahead=batch.ahead,
                weights_of_version=weights_of_version,
                extra=effort.extra,
            )
        )
        self.ranked.add(result.ranked, half_life=RECENT_RANKED)
        self.lead = result.lead
        self.loss = result.taught.loss if result.taught.loss is not None else self.loss

    def metrics(self) -> dict[str, float]:
        """The metrics of a manifest: prequential figures over the latest events, and the last loss."""
        figures = {} if self.loss is None else {"train_loss": self.loss}
        if self.ranked.n > 0:
            figures["prequential_recall_at_20"] = self.ranked.hit_rate
            figures["prequential_ndcg_at_20"] = self.ranked.mean_ndcg
        if self.lead is not None:
            figures["list_lead_mrr"], figures["list_lead_standard_error"] = self.lead
        return figures

    def take_batches(self) -> tuple[BatchRecord, ...]:
        """The batches since the last call."""
        taken, self.batches = tuple(self.batches), []
        return taken
