"""What the trainer submits for the next version, what becomes of it, and what a run of the publisher begins with."""

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
    """What was learned since the last submission. The first one of a new model has a full `update`."""

    update: Update
    batches: tuple[BatchRecord, ...]
    trained_through: Offsets
    events_trained: int
    metrics: Mapping[str, float]
    paired: PairedSums = field(default_factory=PairedSums)  # the comparison with the reference on its events
    reverted: bool = False  # learning went back to the reference's weights since the last submission


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a submission."""

    version: int | None  # the version made of it; None where none could be made
    back_to: int | None = None  # the version whose weights learning should go back to; None: it should not


@dataclass(frozen=True, slots=True)
class Origin:
    """What is the same in every manifest of a run."""

    run_id: str
    kafka: KafkaIds
    config_digest: str
    config: Mapping[str, Any]
    environment: Mapping[str, str | int]

    @classmethod
    def of(cls, run_id: str, kafka: KafkaIds, config: ModelConfig, environment: Mapping[str, str | int]) -> "Origin":
        return cls(run_id, kafka, config_digest(config), config.to_json(), environment)

    def making(self, config: ModelConfig) -> "Origin":
        """The same run with another configuration."""
        return Origin.of(self.run_id, self.kafka, config, self.environment)


def for_trainers(name: str) -> bool:
    """Whether only trainers load the table or tensor of this name."""
    return group_of(name) == TRAINER_GROUP


@dataclass(frozen=True, slots=True)
class Standing:
    """What the publisher of a run goes on from. The default: an empty store."""

    state: State = field(default_factory=State)  # that of version `parent`, and what was learned again since
    parent: int | None = None  # the newest version that can be read; None: there is none
    parent_at: float | None = None  # when it was made, epoch seconds
    newest: int = 0  # the highest version number ever given
    batches: tuple[BatchRecord, ...] = ()  # what `state` has learned since `parent`
    # Whether a delta can follow on `parent`. Not where `state` has learned more than `parent`, nor where the digest of
    # this run's configuration is another one, since readers refuse a delta whose digest is not its parent's.
    chained: bool = True
    # rows of trainers' tables that `parent` lacks
    unsaved: Changes = field(default_factory=lambda: Changes(for_trainers))
    events: int = 0  # learned in all
    opened: bool = True  # whether the gate lets versions through
    reference: tuple[int, State] | None = None  # the gate's reference and its state, where it is not `parent`
