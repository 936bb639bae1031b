"""What there is to see of a run at one moment, however it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.up.figures import Figures


@dataclass(frozen=True, slots=True)
class ProcessRow:
    name: str
    state: str  # "ok", or what is wrong
    pid: int | None
    port: int | None
    uptime: float | None  # seconds
    restarts: int = 0
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """An item as a line: its title (or id), and its category."""

    title: str
    category: str = ""
    action: str = ""  # what was done with it, in a list of actions
    ago: float = 0.0  # seconds


@dataclass(frozen=True, slots=True)
class WatchedShopper:
    user_id: str
    actions: Sequence[Shown]  # the latest first
    items: Sequence[Shown] | None  # their list, the best first; None: there is none yet
    model_version: int | None = None
    events_seen: int | None = None


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown at one moment."""

    uptime: float  # seconds
    kafka: str
    redis: str
    figures: Figures
    processes: Sequence[ProcessRow] = ()
    traffic: str | None = None  # what is published; None: nothing by us
    traffic_state: str = ""
    published: int = 0
    published_rate: float | None = None
    failed: int = 0  # records that did not reach Kafka, and lines left out
    share: float | None = None  # of the file
    shopper: WatchedShopper | None = None
    messages: Sequence[str] = ()
    rates: Sequence[float] = ()  # learned per second, lately
    recalls: Sequence[float] = ()
    remaining: float | None = None  # seconds until the end that was asked for
