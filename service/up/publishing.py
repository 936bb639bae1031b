"""Traffic of our own in a run: the catalogue at once, the events as soon as there is somebody to take them in."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from consumers.file_reading import open_reading
from consumers.producer import KafkaPublisher
from service.shop.pace import Pace
from service.shop.replay import FileReplay, Publish
from service.shop.shop import ShopConfig
from service.shop.spotlight import Spotlight
from service.shop.traffic import Catalogue, FileTraffic, ShopTraffic, Traffic, TrafficThread
from service.up.back_pressure import BackPressure
from service.up.figures import Figures
from service.up.options import UpOptions
from service.up.recent import Rate

SHOP_RATE = 300.0  # events per second
FILE_RATE = 500.0  # events per second of a file, where neither a rate nor a speed is asked for
_WAITS_AT_MOST = 30.0  # seconds for the scorers, once there is a model


class Publishing:
    """The shop or the file that was asked for, being published, and what there is to say of it.

    `tell(line)` gets what is wrong. Raises FileError where a file cannot be opened.
    """

    def __init__(
        self,
        options: UpOptions,
        publisher: KafkaPublisher,
        figures: Callable[[], Figures],
        limit_bytes: float,  # of events that are not yet learned from
        tell: Callable[[str], None],
    ) -> None:
        self.catalogue = Catalogue()
        self.spotlight = Spotlight()
        self.ended_early = False  # and it was told why
        self._publisher = publisher
        self._topic = options.events_topic
        self._tell = tell
        self._rate = Rate()
        self._live_since: float | None = None
        stop = threading.Event()
        back_pressure = BackPressure(publisher, options.events_topic, figures, limit_bytes, stop)
        self._traffic = self._chosen(options, back_pressure.publish, Pace(stop=stop))
        self._thread = TrafficThread(self._traffic, stop, lambda: publisher.flush(10.0))

    def _chosen(self, options: UpOptions, publish: Publish, pace: Pace) -> Traffic:
        if options.events is None:
            config = ShopConfig(seed=options.seed, rate=options.rate or SHOP_RATE)
            topics = (options.events_topic, options.rules.items_topic)
            return ShopTraffic(config, topics, publish, pace, self.catalogue, self.spotlight)

        def replay(path: Path, topic: str, rate: float | None = None, speed: float | None = None) -> FileReplay:
            return FileReplay(open_reading(path, topic, options.rules), publish, pace, self._tell, rate, speed)

        rate = FILE_RATE if options.rate is None and options.speed is None else options.rate
        events = replay(options.events, options.events_topic, rate, options.speed)
        items = None if options.items is None else replay(options.items, options.rules.items_topic)
        return FileTraffic(events, items, self.catalogue, self.spotlight)

    def start(self) -> None:
        """Publish the catalogue, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def tend(self, now: float, figures: Figures, processes: Iterable[str]) -> None:
        """To be called a few times a second: lets the events go when it is time, and tells when they ended early.

        now: seconds, by a clock that only grows. processes: those that are to be well before there are events.
        """
        self._rate.note(now, self.published)
        if figures.live_version is not None and self._live_since is None:
            self._live_since = now
        if not self._thread.going and self._live_since is not None:
            well = all(figures.health.get(process) == "ok" for process in processes)
            if well or now - self._live_since > _WAITS_AT_MOST:
                self._thread.go()
        if self._thread.failure is not None and not self.ended_early:
            self.ended_early = True
            self._tell(f"the traffic ended early: {self._thread.failure}")

    @property
    def name(self) -> str:
        return self._traffic.name

    @property
    def state(self) -> str:
        return self._thread.state

    @property
    def published(self) -> int:
        """Events that Kafka has confirmed."""
        return self._publisher.delivered[self._topic]

    @property
    def rate(self) -> float | None:
        """Of these, per second, lately."""
        return self._rate.per_second()

    @property
    def failed(self) -> int:
        """Records that did not reach Kafka, and lines left out."""
        return self._publisher.failures.total() + self._traffic.bad

    @property
    def share(self) -> float | None:
        """How much of a file has been published, 0 to 1; None for the shop."""
        return self._traffic.share
