"""Configurations of small models, from the fields that a test is about."""

from dataclasses import replace
from typing import Any

from service.model.channels.learning_network import LearningNetwork
from service.model.channels.neighbours import NeighboursConfig
from service.model.channels.network import NetworkConfig
from service.model.channels.popularity import Popularity, PopularityConfig
from service.model.config import BlendConfig, HistoryConfig, ItemsConfig, Limits, ModelConfig, RankerConfig, Section
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


def ranked(network: bool = False, **fields: Any) -> ModelConfig:
    """A small model with neighbours, popularity and a ranker; with other values for fields of sections that `small`
    has."""
    of_small = small(**({"half_lives": (50.0, 500.0, 5000.0)} | fields))
    channels: dict[str, Section] = {
        "neighbours": NeighboursConfig(slots=8, history=4, hops=4, first=10, second=6, half_life=20.0),
        "popularity": of_small.channels["popularity"].model_copy(update={"events": True, "candidates": 5}),
    }
    if network:
        of_network = of_small.channels["network"]
        channels["network"] = of_network.model_copy(update={"candidates": 7})
    ranker = RankerConfig(hidden=8, candidates=15, history=4)
    return replace(of_small, channels=channels, ranker=ranker)


def network_of(learner: Learner) -> LearningNetwork:
    (found,) = [channel for channel in learner.channels if isinstance(channel, LearningNetwork)]
    return found


def popularity_of(learner: Learner) -> Popularity:
    (found,) = [channel for channel in learner.channels if isinstance(channel, Popularity)]
    return found
