"""What the model is made of: numbers with their reasons, one section a channel.

The configuration is data: every manifest carries it, readers build the model from it, and a trainer compares it with
its own before it goes on. Manifests of earlier releases are read too, so two rules hold: a missing section means that
the channel is off, and a missing field has its default, which is what releases without that field did. A new model
(`NEW_MODEL` in registry.py) may begin with other values than the defaults.

Measurements behind the numbers are in docs/decisions/learning.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from consumers.events import DEFAULT_EVENT_WEIGHTS

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeastZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
AtLeastOne = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the configuration. An unknown field is refused: it may change the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HistoryConfig(Section):
    """What belongs to a user's history."""

    length: AtLeastOne = 20  # items
    # accepted event type -> its weight. Events of zero or less (a dislike, a search) are counted, and are neither
    # targets nor part of a history
    event_weights: dict[str, FiniteFloat] = Field(default_factory=lambda: dict(DEFAULT_EVENT_WEIGHTS))
    rating_scale: tuple[FiniteFloat, FiniteFloat] | None = None  # lowest and highest; None: every rating counts alike


class Limits(Section):
    """How much is kept; None: no limit. May differ from run to run of one model."""

    max_items: AtLeastOne | None = None  # rows; when they are full, the items unused longest make room
    max_users: AtLeastOne | None = None


class ItemsConfig(Section):
    """How items are kept."""

    # remembers which items may not be listed after their rows were expired (else one click would list them again), and
    # expires the rows of deleted items first
    remember_unlisted: bool = False


class BlendConfig(Section):
    """The blend, which adds up the channels' scores: see blend.py."""

    scale: Positive = 12.0  # the initial scale of personal scores
    rate: Positive = 1e-2  # Adam's; high, because the parameters are few and needed soon


class RankerConfig(Section):
    """The ranker of candidates: see ranker.py."""

    hidden: AtLeastOne = 32  # of 64 HR@20 is .0003 to .0018 more, at twice the price of a score
    rate: Positive = 3e-3  # Adam's, of a step of 32 histories
    average: Share = 0.99  # what the average keeps of itself at a step of 32 histories
    share: Share = 1.0  # of a micro-batch's events that teach, while the trainer is not behind
    purchases: Share = 0.0  # how much the chance of a purchase counts in the score, beside that of any event
    without: tuple[str, ...] = ()  # features whose names begin so are 0: for ablations
    history: AtLeastOne = 20  # latest items of a history that are candidates themselves
    candidates: AtLeastOne = 100  # of a history, at least: with fewer by the channels, popular items are added


@dataclass(frozen=True)
class ModelConfig:
    """`channels`: name -> its section, in the registry's order, which is the order of scoring. See `registry.parse`."""

    seed: int = 0
    history: HistoryConfig = field(default_factory=HistoryConfig)
    items: ItemsConfig = field(default_factory=ItemsConfig)
    limits: Limits = field(default_factory=Limits)
    channels: Mapping[str, Section] = field(default_factory=dict)
    blend: BlendConfig = field(default_factory=BlendConfig)
    ranker: RankerConfig | None = None  # None: the blend ranks the whole catalogue, as in earlier releases

    def to_json(self) -> dict[str, Any]:
        """As a manifest carries it: with every field, also where it has its default."""
        return {
            "seed": self.seed,
            "history": self.history.model_dump(mode="json"),
            "items": self.items.model_dump(mode="json"),
            "limits": self.limits.model_dump(mode="json"),
            "channels": {name: section.model_dump(mode="json") for name, section in self.channels.items()},
            "blend": self.blend.model_dump(mode="json"),
            **({} if self.ranker is None else {"ranker": self.ranker.model_dump(mode="json")}),
        }
