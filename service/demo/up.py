"""`tidemill up`: everything on this machine, in one command, and nothing of it left when it ends.

    embedded or configured Kafka and Redis  →  trainer, scorers (child processes)  →  traffic, if asked  →  the picture

What is started last is ended first. Every child is on a leash (`service.leash`): when this process is killed without
warning, they end too.
"""

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live

from model_store.errors import StoreUnavailable
from model_store.keys import Keys
from model_store.redis_connection import RedisConnection, connect
from service.demo import dashboard
from service.demo.dashboard import ProcessRow, Shown, View, WatchedShopper
from service.demo.observe import Figures, Listed, Observer, Rate, outstanding
from service.demo.pace import Pace
from service.demo.producer import KafkaPublisher, KafkaUnreachableError
from service.demo.replay import FileError
from service.demo.shop import ShopConfig
from service.demo.spotlight import Spotlight
from service.demo.supervisor import GaveUpError, Service, Supervisor
from service.demo.traffic import Catalogue, FileTraffic, ShopTraffic, Traffic, TrafficThread
from service.local import CannotStartError, LocalServer, start_kafka, start_redis

SHOP_RATE = 300.0  # events per second
FILE_RATE = 500.0  # events per second of a file, where neither a rate nor a speed is asked for
GRACE_SECONDS = 10.0  # from SIGTERM to SIGKILL
_PICTURE_EVERY = 0.5  # seconds; at four a second the picture alone took a tenth of a core
_LINE_EVERY = 5.0  # seconds
_TRAFFIC_WAITS_AT_MOST = 30.0  # seconds for the scorers, once there is a model
# The embedded Kafka keeps about 5 MB a partition, of four, and forgets what is older. Publishing waits while more than
# this is not yet learned from: a half of it, for partitions are not filled evenly.
_EMBEDDED_BYTES = 10_000_000
_CHECK_EVERY = 100  # records
_TRAINER = "trainer"


def _command(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "service.cli", name)


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `tidemill up` was asked. Wrong combinations are a ValueError whose message is one line."""

    demo: bool = False
    events: Path | None = None  # a file in place of the simulated shop; needs demo
    items: Path | None = None  # the catalogue to that file
    rate: float | None = None  # events per second; 300 for the shop, 500 for a file
    speed: float | None = None  # how many times faster than the file's own `ts`
    seconds: float | None = None  # end by itself after so long
    scorers: int = 1
    bootstrap: str | None = None  # None: an embedded Kafka
    redis_url: str | None = None  # None: an embedded Redis
    events_topic: str = "events"
    items_topic: str = "items"
    kafka: Mapping[str, str | int | float | bool] = field(default_factory=dict)  # further librdkafka settings
    keys: Keys = field(default_factory=Keys)
    seed: int = 0  # of the simulated shop
    logs: Path | None = None  # keep each process's log in this folder
    trainer_command: tuple[str, ...] = field(default_factory=lambda: _command("trainer"))
    scorer_command: tuple[str, ...] = field(default_factory=lambda: _command("scorer"))
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))  # of the child processes

    def __post_init__(self) -> None:
        if not self.demo and (self.events or self.items or self.rate or self.speed):
            raise ValueError("--events, --items, --rate and --speed need --demo")
        if self.rate is not None and self.speed is not None:
            raise ValueError("--rate and --speed exclude each other")
        if self.events is None and (self.items is not None or self.speed is not None):
            raise ValueError("--items and --speed need --events")
        for name, value in (("--rate", self.rate), ("--speed", self.speed), ("--seconds", self.seconds)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} is a number above 0")
        if self.scorers < 1:
            raise ValueError("--scorers is at least 1")


def run_up(options: UpOptions, *, plain: bool | None = None) -> int:
    """Run until asked to end (Ctrl-C, SIGTERM, `seconds`). 0: ended as asked; 1: something failed, said on stderr.

    plain: lines in place of the picture; None: as the terminal is. There is a picture only with traffic of our own:
    otherwise what stands on the terminal are addresses to copy.
    """
    console = Console(soft_wrap=True, markup=False, highlight=False)
    if plain is None:
        plain = not console.is_terminal or not options.demo
    with _ending() as ending:
        return _Up(options, ending, console, plain).run()


class _Ending:
    """Whether we were asked to end, and whether somebody is in a hurry."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.times = 0

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.times += 1
        self.asked.set()

    def hurry(self) -> bool:
        """True once asked again: do not wait for anyone."""
        return self.times > 1


@contextmanager
def _ending() -> Iterator[_Ending]:
    """Signals set a flag and interrupt nothing, so that no moment of starting or ending can be torn apart."""
    ending = _Ending()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # it is under nohup
        numbers.append(signal.SIGHUP)
    before = {}
    if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
        before = {number: signal.signal(number, ending.on_signal) for number in numbers}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Up:
    def __init__(self, options: UpOptions, ending: _Ending, console: Console, plain: bool) -> None:
        self._options = options
        self._ending = ending
        self._console = console
        self._errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
        self._plain = plain
        self._began = time.monotonic()
        self._messages: deque[str] = deque(maxlen=200)
        self._live: Live | None = None
        self._kafka: LocalServer | None = None
        self._redis: LocalServer | None = None
        self._bootstrap = ""
        self._redis_url = ""
        self._traffic: TrafficThread | None = None
        self._publisher: KafkaPublisher | None = None
        self._stop_traffic = threading.Event()
        self._catalogue = Catalogue()
        self._spotlight = Spotlight()
        self._published = Rate()
        self._rates: deque[float] = deque(maxlen=60)
        self._recalls: deque[float] = deque(maxlen=60)
        self._learned: Figures | None = None  # the last figures whose course was noted
        self._live_since: float | None = None
        self._first_version: int | None = None
        self._ended_early = False
        self._sent = 0  # events handed to Kafka's client

    def run(self) -> int:
        status = 0
        try:
            with ExitStack() as stack:
                self._start(stack)
                self._watch()
        except (CannotStartError, KafkaUnreachableError, StoreUnavailable, FileError, GaveUpError) as error:
            self._errors.print(f"tidemill up: {error}")
            status = 1
        return 1 if self._ended_early else status

    # Starting. The stack ends in reverse: traffic, observer, scorers, trainer, Redis, Kafka.

    def _start(self, stack: ExitStack) -> None:
        options = self._options
        if options.logs is not None:
            try:
                options.logs.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FileError(f"cannot keep logs in {options.logs}: {error.strerror}") from None
        if options.bootstrap is None:
            self._kafka = start_kafka()
            stack.callback(self._kafka.child.close)
        self._bootstrap = self._kafka.address if self._kafka is not None else str(options.bootstrap)
        if options.redis_url is None:
            self._redis = start_redis()
            stack.callback(self._redis.child.close)
        self._redis_url = self._redis.address if self._redis is not None else str(options.redis_url)
        redis = connect(self._redis_url, timeout=2.0, retries=0)
        stack.callback(redis.close)
        redis.call("PING")
        self._publisher = KafkaPublisher(self._bootstrap, options.kafka)
        self._publisher.check()
        self._publisher.prepare_topics(options.events_topic, options.items_topic)
        self._first_version = _live_version(redis, options.keys)
        traffic = (
            self._make_traffic() if options.demo else None
        )  # a file that is not there is said before anything runs

        self._supervisor = Supervisor(self._services(), self._environment(), self._tell, logs=options.logs)
        trainer, *scorers = self._supervisor.services
        for group in ([trainer], scorers):
            stack.callback(self._supervisor.stop, group, GRACE_SECONDS, self._ending.hurry)
        self._supervisor.start()

        self._observer = Observer(redis, options.keys, self._endpoints, options.events_topic)
        stack.callback(self._observer.stop)
        self._observer.start()
        stack.callback(self._end_publishing)
        if traffic is not None:
            publisher = self._publisher
            self._traffic = TrafficThread(traffic, self._stop_traffic, lambda: publisher.flush(10.0))
            self._traffic.start()

    def _services(self) -> list[Service]:
        options = self._options
        names = ["scorer"] if options.scorers == 1 else [f"scorer-{n}" for n in range(1, options.scorers + 1)]
        return [Service(_TRAINER, options.trainer_command), *(Service(name, options.scorer_command) for name in names)]

    def _environment(self) -> dict[str, str]:
        return {
            **self._options.environment,
            "TIDEMILL_KAFKA_BOOTSTRAP": self._bootstrap,
            "TIDEMILL_REDIS_URL": self._redis_url,
            "TIDEMILL_METRICS_HOST": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",  # a process that is killed must have said its last words
        }

    def _make_traffic(self) -> Traffic:
        options = self._options
        topics = (options.events_topic, options.items_topic)
        pace = Pace(stop=self._stop_traffic)
        if options.events is None:
            config = ShopConfig(seed=options.seed, rate=options.rate or SHOP_RATE)
            return ShopTraffic(config, topics, self._publish, pace, self._catalogue, self._spotlight)
        rate = FILE_RATE if options.rate is None and options.speed is None else options.rate
        return FileTraffic(
            options.events, options.items, topics, self._publish, pace, self._tell, self._catalogue, self._spotlight,
            rate=rate, speed=options.speed,
        )  # fmt: skip

    # Publishing, on the traffic's thread

    def _publish(self, topic: str, key: str, value: bytes) -> None:
        assert self._publisher is not None
        publisher = self._publisher
        publisher.publish(topic, key, value, stopped=self._stop_traffic.is_set)
        if self._kafka is not None and topic == self._options.events_topic:
            self._sent += 1
            if self._sent % _CHECK_EVERY == 0:
                while self._behind_bytes() > _EMBEDDED_BYTES and not self._stop_traffic.wait(0.05):
                    publisher.poll()

    def _behind_bytes(self) -> float:
        """Roughly how much of the events lies in Kafka and is not yet learned from."""
        assert self._publisher is not None
        publisher, topic = self._publisher, self._options.events_topic
        delivered = publisher.delivered[topic]
        if delivered == 0:
            return 0.0
        figures = self._observer.figures
        behind = outstanding(publisher.ends.get(topic, {}), figures.trained_through.get(topic, {}))
        return max(behind, figures.scorer_lag or 0.0) * publisher.delivered_bytes[topic] / delivered

    def _end_publishing(self) -> None:
        if self._traffic is not None:
            self._traffic.stop()
        if self._publisher is not None:
            self._publisher.close(0.5 if self._ending.hurry() else 5.0)

    # Watching

    def _watch(self) -> None:
        if self._plain:
            self._introduce()
            self._loop(_LINE_EVERY)
            if self._options.demo:
                self._sum_up()
            return
        try:
            with Live(console=self._console, screen=True, auto_refresh=False, redirect_stderr=False) as self._live:
                self._loop(_PICTURE_EVERY)
        finally:  # the picture is gone, and what was said in it with it
            self._live = None
            for message in self._messages:
                self._errors.print(message)
        self._sum_up()

    def _loop(self, show_every: float) -> None:
        shown = self._began
        while not self._ending.asked.wait(0.1):
            now = time.monotonic()
            if self._options.seconds is not None and now - self._began >= self._options.seconds:
                return
            self._tend()
            if now - shown >= show_every:
                shown = now
                self._show()

    def _tend(self) -> None:
        for name, server in (("Kafka", self._kafka), ("Redis", self._redis)):
            if server is not None and server.child.poll() is not None:
                raise GaveUpError(f"the embedded {name} has died, and everything that was in it: start again")
        self._supervisor.tend()
        if self._observer.failure is not None:
            raise GaveUpError(f"cannot watch any more: {self._observer.failure!r}")
        figures = self._observer.figures
        now = time.monotonic()
        if self._publisher is not None:
            self._published.note(now, self._publisher.delivered[self._options.events_topic])
        if figures is not self._learned:
            self._learned = figures
            if figures.learned_rate is not None:
                self._rates.append(figures.learned_rate)
            if figures.recall is not None:
                self._recalls.append(figures.recall)
        if figures.live_version is not None and self._live_since is None:
            self._live_since = now
        self._tend_traffic(figures, now)

    def _tend_traffic(self, figures: Figures, now: float) -> None:
        traffic = self._traffic
        if traffic is None:
            return
        if not traffic.going and self._live_since is not None:
            well = all(figures.health.get(service.name) == "ok" for service in self._supervisor.services)
            if well or now - self._live_since > _TRAFFIC_WAITS_AT_MOST:
                traffic.go()
        if traffic.failure is not None and not self._ended_early:
            self._ended_early = True
            self._tell(f"the traffic ended early: {traffic.failure}")

    def _endpoints(self) -> dict[str, str]:
        return {service.name: f"http://127.0.0.1:{service.port}" for service in self._supervisor.services}

    # Showing

    def _tell(self, message: str) -> None:
        """Something happened: at once where there are lines, in the picture and again at the end where there is one."""
        self._messages.append(message)
        if self._live is None:
            self._errors.print(message)

    def _introduce(self) -> None:
        for note in self._notes():
            self._console.print(note)
        self._flush()

    def _notes(self) -> list[str]:
        kafka, redis = self._addresses()
        notes = [f"Kafka {kafka}", f"Redis {redis}"]
        if self._options.demo:
            return notes
        return [
            *notes,
            "",
            "Publish an event:",
            '  echo \'{"user_id":"u1","item_id":"i1","type":"click","ts":"2026-01-05T10:00:00Z"}\' |',
            f"    TIDEMILL_KAFKA_BOOTSTRAP={self._bootstrap} tidemill replay /dev/stdin",
            "Read the user's list:",
            f"  TIDEMILL_REDIS_URL={self._redis_url} tidemill recs u1",
            "Ctrl-C ends everything.",
        ]

    def _addresses(self) -> tuple[str, str]:
        return (
            self._bootstrap + (" (embedded)" if self._kafka is not None else ""),
            _without_password(self._redis_url) + (" (embedded)" if self._redis is not None else ""),
        )

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(dashboard.render(self._view()), refresh=True)
        elif self._options.demo:
            view = self._view()
            self._console.print(dashboard.line(view))
            if (shopper := dashboard.shopper_line(view)) is not None:
                self._console.print(shopper)
            self._flush()

    def _sum_up(self) -> None:
        view = self._view()
        live = view.figures.live_version
        made = None if live is None else live - (self._first_version or 0)
        restarts = sum(service.restarts for service in self._supervisor.services)
        for text in dashboard.summary(view, made, restarts):
            self._console.print(text)
        self._flush()

    def _flush(self) -> None:
        self._console.file.flush()

    def _view(self) -> View:
        now = time.monotonic()
        options, figures = self._options, self._observer.figures
        kafka, redis = self._addresses()
        traffic, publisher = self._traffic, self._publisher
        failed = (publisher.failures.total() if publisher else 0) + (traffic.traffic.bad if traffic else 0)
        return View(
            uptime=now - self._began,
            kafka=kafka,
            redis=redis,
            figures=figures,
            processes=[self._row(service, figures) for service in self._supervisor.services],
            traffic=None if traffic is None else traffic.traffic.name,
            traffic_state="" if traffic is None else traffic.state,
            published=publisher.delivered[options.events_topic] if publisher else 0,
            published_rate=self._published.per_second(),
            failed=failed,
            share=None if traffic is None else traffic.traffic.share,
            shopper=self._watched(now),
            messages=[f"Redis: {figures.redis}", *self._messages] if figures.redis else list(self._messages),
            rates=list(self._rates),
            recalls=list(self._recalls),
            remaining=None if options.seconds is None else max(0.0, options.seconds - (now - self._began)),
        )

    def _row(self, service: Service, figures: Figures) -> ProcessRow:
        running = service.running
        if running:
            state = figures.health.get(service.name, "starting")
            if state == "no answer" and self._supervisor.uptime(service) < 30:
                state = "starting"
        else:
            state = "ended, to be started again"
        return ProcessRow(
            name=service.name,
            state=state,
            pid=service.child.pid if running and service.child is not None else None,
            port=service.port,
            uptime=self._supervisor.uptime(service) if running else None,
            restarts=service.restarts,
            version=figures.versions.get(service.name),
        )

    def _watched(self, now: float) -> WatchedShopper | None:
        watched = self._spotlight.watched(now)
        if watched is None:
            return None
        user, actions = watched
        listed: Listed | None = self._observer.list_of(user)
        return WatchedShopper(
            user_id=user,
            actions=[
                Shown(
                    self._catalogue.title(action.item_id) if action.item_id else f'"{action.query or ""}"',
                    self._catalogue.category(action.item_id) if action.item_id else "",
                    action.type,
                    now - action.at,
                )
                for action in actions
            ],
            items=None
            if listed is None
            else [Shown(self._catalogue.title(item), self._catalogue.category(item)) for item in listed.item_ids[:20]],
            model_version=None if listed is None else listed.model_version,
            events_seen=None if listed is None else listed.events_seen,
        )


def _live_version(redis: RedisConnection, keys: Keys) -> int | None:
    answer = redis.call("GET", keys.live)
    return int(answer) if answer is not None and bytes(answer).isdigit() else None


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://…@{rest.rpartition('@')[2]}" if "@" in rest else url
