"""What `tidemill up --demo` publishes: the simulated shop, or a file; on a thread of its own."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import orjson

from consumers.event_file import FileError
from consumers.events import Interaction
from consumers.file_reading import FileLine
from consumers.micro_batch import ItemChange
from consumers.producer import PublishError
from consumers.times import now_ms
from service.shop.pace import Pace
from service.shop.replay import FileReplay, Publish
from service.shop.shop import Shop, ShopConfig
from service.shop.spotlight import Action, Spotlight


class Catalogue:
    """What is known of the items that were published: their titles and categories."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {}

    def note(self, item_id: str, title: object, category: object) -> None:
        self._known[item_id] = (str(title or ""), str(category or ""))

    def title(self, item_id: str) -> str:
        """The title, or the id where there is none."""
        return self._known.get(item_id, ("", ""))[0] or item_id

    def category(self, item_id: str) -> str:
        return self._known.get(item_id, ("", ""))[1]


class Traffic(Protocol):
    """A source of events. `open` publishes the catalogue; `run` the events, until their end or until stopped."""

    name: str

    def open(self) -> None: ...

    def run(self) -> None: ...

    @property
    def share(self) -> float | None:
        """How much of it has been published, 0 to 1; None where there is no end."""
        ...

    @property
    def bad(self) -> int:
        """Lines that could not be published."""
        ...

    def close(self) -> None: ...


class ShopTraffic:
    """The simulated shop."""

    share: float | None = None
    bad = 0

    def __init__(
        self, config: ShopConfig, topics: tuple[str, str], publish: Publish, pace: Pace, catalogue: Catalogue,
        spotlight: Spotlight,
    ) -> None:  # fmt: skip
        self.name = f"simulated shop, {config.rate:g} events/s"
        self._shop = Shop(config)
        self._events, self._items = topics
        self._publish, self._pace = publish, pace
        self._catalogue, self._spotlight = catalogue, spotlight

    def open(self) -> None:
        for message in self._shop.catalogue():
            self._item(message)

    def run(self) -> None:
        for moment in self._shop.moments(now_ms()):
            if not self._pace.until(moment.at):
                return
            message = moment.message
            if moment.topic == "items":
                self._item(message)
                continue
            user = str(message["user_id"])
            self._publish(self._events, user, orjson.dumps(message))
            item, query = message.get("item_id"), message.get("query")
            self._spotlight.note(
                user,
                Action(
                    time.monotonic(),
                    str(message["type"]),
                    None if item is None else str(item),
                    None if query is None else str(query),
                ),
            )

    def _item(self, message: dict[str, object]) -> None:
        item = str(message["item_id"])
        self._catalogue.note(item, message["title"], message["category"])
        self._publish(self._items, item, orjson.dumps(message))

    def close(self) -> None:
        pass


class FileTraffic:
    """A file of events, and one of items."""

    def __init__(
        self, events: FileReplay, items: FileReplay | None, catalogue: Catalogue, spotlight: Spotlight
    ) -> None:
        how = f"{events.rate:g} events/s" if events.speed is None else f"{events.speed:g} times as fast as it happened"
        self.name = f"{Path(events.reading.file.name).name}, {how}"
        self._events, self._items = events, items
        self._catalogue, self._spotlight = catalogue, spotlight
        events.on_line = self._note_event
        if items is not None:
            items.on_line = self._note_item

    @property
    def share(self) -> float | None:
        return self._events.reading.file.share_read

    @property
    def bad(self) -> int:
        return sum(replay.bad for replay in self._replays())

    def open(self) -> None:
        for replay in self._replays():  # while nobody is ready for events, there is time for it
            replay.reading.file.check()
        if self._items is not None:
            self._items.run()

    def run(self) -> None:
        self._events.run()

    def close(self) -> None:
        for replay in self._replays():
            replay.reading.file.close()

    def _replays(self) -> list[FileReplay]:
        return [self._events] if self._items is None else [self._items, self._events]

    def _note_item(self, line: FileLine) -> None:
        if isinstance(line.outcome, ItemChange):
            self._catalogue.note(line.outcome.item_id, line.outcome.title, line.outcome.category)

    def _note_event(self, line: FileLine) -> None:
        event = line.outcome
        if isinstance(event, Interaction):
            self._spotlight.note(event.user_id, Action(time.monotonic(), event.type, event.item_id, event.query))


class TrafficThread:
    """Publishes the catalogue at once, and the events from `go` on. `flush` waits until Kafka has all of it."""

    def __init__(self, traffic: Traffic, stop: threading.Event, flush: Callable[[], object]) -> None:
        self.traffic = traffic
        self._flush = flush
        self.state = "publishing the catalogue"
        self.failure: BaseException | None = None
        self._stop = stop
        self._go = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def go(self) -> None:
        self._go.set()

    @property
    def going(self) -> bool:
        return self._go.is_set()

    def stop(self) -> None:
        """Stop publishing; the thread has ended when this returns, or is stuck in Kafka's client for good."""
        self._stop.set()
        self._go.set()
        if self._thread.is_alive():
            self._thread.join(10.0)
        self.traffic.close()

    def _run(self) -> None:
        try:
            self.traffic.open()
            self._flush()
            self.state = "waiting for the first model and the scorers"
            self._go.wait()
            if self._stop.is_set():
                return
            self.state = "publishing"
            self.traffic.run()
            self._flush()
            self.state = "stopped" if self._stop.is_set() else "all published"
        except (FileError, PublishError) as error:
            self.state = "ended early"
            self.failure = error
        except BaseException as error:
            self.state = "failed"
            self.failure = error
            raise
