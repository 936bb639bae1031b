"""The metrics of learning, after each micro-batch."""

import logging
from collections.abc import Sequence

from consumers.micro_batch import MicroBatch
from service.health import Health
from service.metrics import TrainerMetrics
from service.training.effort import Effort
from service.training.learner import Exceeded, Learner, LearnResult
from service.training.progress import Progress

log = logging.getLogger(__name__)


class LearningMetrics:
    """Metrics of the learner, its progress and the events, and a warning where a limit is exceeded."""

    def __init__(
        self,
        learner: Learner,
        progress: Progress,
        event_types: Sequence[str],
        *,
        metrics: TrainerMetrics,
        health: Health,
    ) -> None:
        """event_types: their names; `MicroBatch.type` is an index into them."""
        self._learner, self._progress, self._event_types = learner, progress, tuple(event_types)
        self._metrics, self._health = metrics, health
        self._limits_told: set[str] = set()
        self._serves: str | None = None  # who ordered lists when `_show_floor` looked last

    def show(self, batch: MicroBatch, result: LearnResult, effort: Effort, seconds: float) -> None:
        """Shows a batch that was learned in `seconds`, with this effort."""
        self._metrics.train_step.observe(seconds)
        self._count(batch, result)
        self._show_model(result, effort)
        self._tell_limits()

    def _count(self, batch: MicroBatch, result: LearnResult) -> None:
        m = self._metrics
        for number, name in enumerate(self._event_types):
            if of_type := int((batch.type == number).sum()):
                m.events_consumed.labels(name).inc(of_type)
        for reason, count in batch.rejected.items():
            m.events_rejected.labels(reason).inc(count)
        for (topic, partition), count in batch.expired.items():
            m.events_expired.labels(topic, str(partition)).inc(count)
            log.error("%s[%d]: the broker had deleted %d records before they were read", topic, partition, count)
        m.events_misrouted.inc(batch.misrouted)
        m.events_duplicate.inc(result.duplicates)
        m.events_trained.inc(result.n_events)

    def _show_model(self, result: LearnResult, effort: Effort) -> None:
        m = self._metrics
        m.events_trained_all.set(self._progress.events_trained)
        m.replay.set(effort.replay)
        m.network_share.set(effort.network)
        m.lessons_share.set(effort.lessons)
        m.items.set(self._learner.items.in_use)
        m.users.set(self._learner.users.in_use)
        if result.taught.loss is not None:
            m.train_loss.set(result.taught.loss)
        figures = self._progress.metrics()
        self._show_floor()
        m.recall.show(figures.get("prequential_recall_at_20"))
        m.ndcg.show(figures.get("prequential_ndcg_at_20"))

    def _show_floor(self) -> None:
        """By how much lists are better than the channels alone, and who orders them. Says where that changes."""
        reranking = self._learner.recommender.reranking
        if reranking is None:
            return
        lead = self._learner.floor.lead
        self._metrics.list_lead.show(None if lead is None else lead[0])
        serves = reranking.serves_name
        if serves != self._serves:
            for name in ("ranker", *(order.name for order in reranking.orders)):
                self._metrics.list_order.labels(name).set(name == serves)
            self._health.fact("lists_ordered_by", serves)
            if self._serves is not None:
                log.info("lists are ordered by %s, which was better than %s lately", serves, self._serves)
            self._serves = serves

    def _tell_limits(self) -> None:
        """Warns once of each limit that is exceeded: nothing is lost, but more memory is used than the limit says."""
        beyond = self._learner.beyond_limits()
        for each in beyond:
            if each.name not in self._limits_told:
                self._limits_told.add(each.name)
                log.warning("%s; set it higher, or TIDEMILL_BATCH_EVENTS lower", _told(each))
        if self._limits_told:
            self._health.fact("beyond_limits", [_told(each) for each in beyond])


def _told(exceeded: Exceeded) -> str:
    name, limit, rows = exceeded
    return f"TIDEMILL_{name.upper()} is {limit}, and {rows} rows are in use: a micro-batch holds more than that"
