"""Configurations of small models, from the fields that a test is about."""

from typing import Any

from service.model.channels.learning_network import LearningNetwork
from service.model.channels.network import NetworkConfig
from service.model.channels.popularity import Popularity, PopularityConfig
from service.model.config import BlendConfig, HistoryConfig, ItemsConfig, Limits, ModelConfig
from service.training.learner import Learner

LOGARITHMS = frozenset({"item/popularity"})  # what may hold -inf in a model with these channels

SMALL: dict[str, Any] = {
    "dim": 8,
    "hidden": 16,
    "length": 5,
    "negatives": 32,
    "replay_capacity": 200,
    "replay_recent": 50,
    "half_lives": (50.0, 500.0),
}


def small(**fields: Any) -> ModelConfig:
    """A small model, with other values for fields of its sections, by their names: no two sections share one."""
    left = SMALL | {"remember_unlisted": True} | fields

    def of(section: type[Any]) -> Any:
        return section(**{name: left.pop(name) for name in section.model_fields if name in left})

    made = ModelConfig(
        seed=left.pop("seed", 0),
        history=of(HistoryConfig),
        items=of(ItemsConfig),
        limits=of(Limits),
        channels={"popularity": of(PopularityConfig), "network": of(NetworkConfig)},
        blend=of(BlendConfig),
    )
    assert not left, f"no section has the field {min(left)}"
    return made


def network_of(learner: Learner) -> LearningNetwork:
    (found,) = [channel for channel in learner.channels if isinstance(channel, LearningNetwork)]
    return found


def popularity_of(learner: Learner) -> Popularity:
    (found,) = [channel for channel in learner.channels if isinstance(channel, Popularity)]
    return found
