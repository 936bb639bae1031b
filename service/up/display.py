"""Where a run is seen: lines, or a picture that fills the terminal. What is in them is the dashboard's."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.live import Live

from service.up import dashboard
from service.up.servers import Server
from service.up.view import View

_MESSAGES = 200  # the latest


class Display(ABC):
    """`tell` may be called at any time and by any thread, `show` while it is open."""

    every: float  # seconds from one `show` to the next

    def __init__(self, console: Console, errors: Console) -> None:
        self._console = console
        self._errors = errors
        self.messages: deque[str] = deque(maxlen=_MESSAGES)

    def tell(self, message: str) -> None:
        """Something happened."""
        self.messages.append(message)
        self._errors.print(message)

    @abstractmethod
    def open(self, introduction: Sequence[str]) -> AbstractContextManager[None]:
        """introduction: said first, where what is said stays."""

    @abstractmethod
    def show(self, view: View) -> None: ...

    @abstractmethod
    def sum_up(self, view: View, versions_published: int | None) -> None:
        """What stays on the terminal."""

    def _print(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._console.print(line)
        self._console.file.flush()


class Lines(Display):
    """Figures only where there is traffic of our own: otherwise what stands there are addresses to copy."""

    every = 5.0

    @contextmanager
    def open(self, introduction: Sequence[str]) -> Iterator[None]:
        self._print(introduction)
        yield

    def show(self, view: View) -> None:
        if view.traffic is not None:
            shopper = dashboard.shopper_line(view)
            self._print([dashboard.line(view)] if shopper is None else [dashboard.line(view), shopper])

    def sum_up(self, view: View, versions_published: int | None) -> None:
        if view.traffic is not None:
            self._print(dashboard.summary(view, versions_published))


class Picture(Display):
    """On a terminal's second screen. What was told stands in the picture, and again on the first one afterwards."""

    every = 0.5  # at four a second the picture alone took a tenth of a core

    def __init__(self, console: Console, errors: Console) -> None:
        super().__init__(console, errors)
        self._live: Live | None = None

    def tell(self, message: str) -> None:
        if self._live is None:
            super().tell(message)
        else:
            self.messages.append(message)

    @contextmanager
    def open(self, introduction: Sequence[str]) -> Iterator[None]:
        try:
            with Live(console=self._console, screen=True, auto_refresh=False, redirect_stderr=False) as self._live:
                yield
        finally:  # the picture is gone, and what was said in it with it
            self._live = None
            for message in list(self.messages):
                self._errors.print(message)

    def show(self, view: View) -> None:
        assert self._live is not None
        self._live.update(dashboard.render(view), refresh=True)

    def sum_up(self, view: View, versions_published: int | None) -> None:
        self._print(dashboard.summary(view, versions_published))


def introduction(kafka: Server, redis: Server, *, traffic: bool) -> list[str]:
    """Where everything is and, without traffic of our own, how to publish and read."""
    addresses = [f"Kafka {kafka.shown}", f"Redis {redis.shown}"]
    if traffic:
        return addresses
    return [
        *addresses,
        "",
        "Publish an event:",
        '  echo \'{"user_id":"u1","item_id":"i1","type":"click","ts":"2026-01-05T10:00:00Z"}\' |',
        f"    TIDEMILL_KAFKA_BOOTSTRAP={kafka.address} tidemill replay -",
        "Read the user's list:",
        f"  TIDEMILL_REDIS_URL={redis.address} tidemill recs u1",
        "Ctrl-C ends everything.",
    ]
