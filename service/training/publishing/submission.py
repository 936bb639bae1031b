"""What the trainer hands over to become the next version, and what a run begins with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from consumers.records import Offsets
from model_store.changes import Changes
from model_store.codec import TRAINER_GROUP, group_of
from model_store.version import BatchRecord, KafkaIds
from model_store.weights import State, Update
from service.model.config import ModelConfig
from service.training.configuration import config_digest
from service.training.evaluation.measures import PairedSums


@dataclass(frozen=True, slots=True)
class Submission:
    """What was learned since the one before. `update` is full for the first one."""

    update: Update
    batches: tuple[BatchRecord, ...]
    trained_through: Offsets
    events_trained: int
    metrics: Mapping[str, float]
    paired: PairedSums = field(default_factory=PairedSums)  # measured while it was learned, against the reference
    reverted: bool = False  # its weights went back to the reference's


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a submission."""

    version: int | None  # that was made of it; None where none could be
    back_to: int | None = None  # the version whose weights learning should go back to; None: all is well


@dataclass(frozen=True, slots=True)
class Origin:
    """What every manifest of a run says alike."""

    run_id: str
    kafka: KafkaIds
    config_digest: str
    config: Mapping[str, Any]
    environment: Mapping[str, str | int]

    @classmethod
    def of(cls, run_id: str, kafka: KafkaIds, config: ModelConfig, environment: Mapping[str, str | int]) -> "Origin":
        return cls(run_id, kafka, config_digest(config), config.to_json(), environment)

    def making(self, config: ModelConfig) -> "Origin":
        """The same run, making a model of this configuration."""
        return Origin.of(self.run_id, self.kafka, config, self.environment)


def for_trainers(name: str) -> bool:
    return group_of(name) == TRAINER_GROUP


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run finds the store."""

    state: State = field(default_factory=State)  # of version `parent`, and what was learned again since
    parent: int | None = None  # the newest version that can be read; None: there is none
    parent_at: float | None = None  # when it was made, epoch seconds
    newest: int = 0  # the highest version number ever given
    batches: tuple[BatchRecord, ...] = ()  # what `state` has learned since `parent`
    # Whether a delta can follow on `parent`. Not where `state` has learned something that `parent` has not, nor where
    # this run's configuration is written otherwise: readers take no delta whose digest is not its parent's.
    chained: bool = True
    unsaved: Changes = field(default_factory=lambda: Changes(for_trainers))  # of its own state, what `parent` lacks
    events: int = 0  # learned in all
    opened: bool = True  # whether the gate lets versions through
    reference: tuple[int, State] | None = None  # what the gate compares with, where that is not `parent`
