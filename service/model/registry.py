"""Which channels there are, and how a configuration becomes channels. A new channel is one line in `KINDS`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from service.model.blend import Blend
from service.model.channel import BlendedChannel, Channel, LearningChannel
from service.model.channels.learning_network import LearningNetwork
from service.model.channels.neighbours import Neighbours, NeighboursConfig
from service.model.channels.network import Network, NetworkConfig
from service.model.channels.popularity import Popularity, PopularityConfig
from service.model.config import BlendConfig, HistoryConfig, ItemsConfig, Limits, ModelConfig, RankerConfig, Section
from service.model.formats import sections_of


class UnknownConfig(ValueError):
    """A configuration that this build cannot make a model of; the message says which part is unknown."""


@dataclass(frozen=True)
class Place:
    """What a channel may use when it is made: `earlier` are the channels before it in the registry's order."""

    config: ModelConfig
    device: str
    earlier: Mapping[str, Channel]

    @property
    def length(self) -> int:
        """L: items of a history."""
        return self.config.history.length


@dataclass(frozen=True)
class Kind:
    """One kind of channel: its section, and how it is made for readers and for the trainer."""

    section: type[Section]
    reader: Callable[[Any, Place], Channel]
    learner: Callable[[Any, Place], LearningChannel]


KINDS: dict[str, Kind] = {
    "neighbours": Kind(
        NeighboursConfig,
        lambda section, place: Neighbours(section),
        lambda section, place: Neighbours(section),
    ),
    "popularity": Kind(
        PopularityConfig,
        lambda section, place: Popularity(section, place.device),
        lambda section, place: Popularity(section, place.device),
    ),
    "network": Kind(
        NetworkConfig,
        lambda section, place: Network(section, place.length, place.device),
        lambda section, place: LearningNetwork(
            section, place.length, _popularity(place), place.config.seed, place.device
        ),
    ),
}

NEW_MODEL = ModelConfig(
    items=ItemsConfig(remember_unlisted=True),
    channels={
        "neighbours": NeighboursConfig(),
        "popularity": PopularityConfig(half_lives=(300.0, 2_000.0, 20_000.0), events=True),
    },
    ranker=RankerConfig(),
)
"""The configuration of a new model, before settings change it."""

NETWORK = NetworkConfig(dislikes=1.0, history=20)
"""The network of a new model, where a setting switches it on."""


def parse(said: Mapping[str, Any]) -> ModelConfig:
    """The configuration in a manifest of this release or an earlier one. Raises: UnknownConfig."""
    said = sections_of(said)
    known = {"seed", "history", "items", "limits", "channels", "blend", "ranker"}
    channels = said.get("channels", {})
    for unknown in [*sorted(said.keys() - known), *sorted(f"channels.{name}" for name in channels.keys() - KINDS)]:
        raise UnknownConfig(f"{unknown} is not known to this build")
    try:
        return ModelConfig(
            seed=int(said.get("seed", 0)),
            history=HistoryConfig.model_validate(said.get("history", {})),
            items=ItemsConfig.model_validate(said.get("items", {})),
            limits=Limits.model_validate(said.get("limits", {})),
            channels={
                name: kind.section.model_validate(channels[name]) for name, kind in KINDS.items() if name in channels
            },
            blend=BlendConfig.model_validate(said.get("blend", {})),
            ranker=RankerConfig.model_validate(said["ranker"]) if "ranker" in said else None,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnknownConfig(f"{error.title}.{where}: {first['msg']}") from None


def readers(config: ModelConfig, device: str) -> list[Channel]:
    """The channels as scoring needs them."""
    made: dict[str, Channel] = {}
    for name, section in config.channels.items():
        made[name] = KINDS[name].reader(section, Place(config, device, made))
    return list(made.values())


def learners(config: ModelConfig, device: str) -> list[LearningChannel]:
    """The channels as the trainer needs them. Raises: UnknownConfig where a channel that another one uses is off."""
    made: dict[str, LearningChannel] = {}
    for name, section in config.channels.items():
        made[name] = KINDS[name].learner(section, Place(config, device, made))
    return list(made.values())


def blend_of(config: ModelConfig, channels: Sequence[Channel], device: str) -> Blend | None:
    """The blend of these channels; None where a ranker orders lists and no channel learns beside the blend.

    Raises: UnknownConfig where the channels cannot be ranked together."""
    blended = [channel for channel in channels if isinstance(channel, BlendedChannel)]
    personal = [channel.name for channel in blended if channel.personal]
    if len(personal) > 1:
        raise UnknownConfig(f"the blend weighs one channel that depends on histories, not {' and '.join(personal)}")
    if config.ranker is None and len(blended) < len(channels):
        others = " and ".join(channel.name for channel in channels if channel not in blended)
        raise UnknownConfig(f"{others} needs a ranker, and the configuration has none")
    if config.ranker is not None and not channels:
        raise UnknownConfig("no channel is on: nothing proposes items")
    if config.ranker is not None and not personal:
        return None
    width = sum(channel.width for channel in blended if not channel.personal)
    return Blend(config.blend, width, config.history.length, device)


def _popularity(place: Place) -> Popularity:
    found = place.earlier.get("popularity")
    if not isinstance(found, Popularity):
        raise UnknownConfig("the network draws its negatives by popularity, which is off")
    return found
