"""What the model is made of: numbers with their reasons, one section a channel.

The configuration is data: every manifest carries it, readers build the model from it, and a trainer compares it with
its own before it goes on. It outlives releases, so two rules hold for every section: a missing section means that the
channel is off, and a missing field has its default, which is what the releases before the field did. What a new model
begins with (`NEW_MODEL` in registry.py) may differ from the defaults.

Measurements behind the numbers are in docs/decisions/learning.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from consumers.events import DEFAULT_EVENT_WEIGHTS

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
AtLeastOne = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the configuration. A field that is not known is refused: it may be one that changes the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HistoryConfig(Section):
    """What belongs to a user's history."""

    length: AtLeastOne = 20  # items; sessions are shorter, and raters' older items add little
    # of the event types that are accepted. Zero or less (a dislike, a search): counted, but neither a target nor part
    # of a history
    event_weights: dict[str, FiniteFloat] = Field(default_factory=lambda: dict(DEFAULT_EVENT_WEIGHTS))
    rating_scale: tuple[FiniteFloat, FiniteFloat] | None = None  # lowest and highest; None: every rating counts alike


class Limits(Section):
    """How much is kept. May differ from run to run of one model; None: no limit."""

    max_items: AtLeastOne | None = None  # rows; when they are full, the items unused longest make room
    max_users: AtLeastOne | None = None


class ItemsConfig(Section):
    """How items are kept."""

    # that an item may not be listed is remembered when its row goes to another, else one click brings it back; and the
    # rows of deleted items go first
    remember_unlisted: bool = False


class BlendConfig(Section):
    """The ranker that adds up what the channels know: see ranker.py."""

    scale: Positive = 12.0  # of a personal score, to begin with
    rate: Positive = 1e-2  # of Adam: few parameters, and needed soon


@dataclass(frozen=True)
class ModelConfig:
    """`channels`: name -> its section, in the order in which they are asked. Parsed by `registry.parse`."""

    seed: int = 0
    history: HistoryConfig = field(default_factory=HistoryConfig)
    items: ItemsConfig = field(default_factory=ItemsConfig)
    limits: Limits = field(default_factory=Limits)
    channels: Mapping[str, Section] = field(default_factory=dict)
    blend: BlendConfig = field(default_factory=BlendConfig)

    def to_json(self) -> dict[str, Any]:
        """As a manifest carries it: every field, also those that have their default."""
        return {
            "seed": self.seed,
            "history": self.history.model_dump(mode="json"),
            "items": self.items.model_dump(mode="json"),
            "limits": self.limits.model_dump(mode="json"),
            "channels": {name: section.model_dump(mode="json") for name, section in self.channels.items()},
            "blend": self.blend.model_dump(mode="json"),
        }
