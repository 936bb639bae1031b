"""All that runs, from its start to its end: Kafka and Redis, trainer and scorers, the observer, the traffic."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from consumers.event_file import FileError
from consumers.producer import KafkaPublisher
from model_store.keys import Keys
from model_store.redis_connection import RedisConnection, connect
from service.local import CannotStartError, start_kafka, start_redis
from service.up.back_pressure import EMBEDDED_BYTES
from service.up.observe import Observer
from service.up.options import UpOptions
from service.up.publishing import Publishing
from service.up.servers import Server, configured_or_embedded
from service.up.supervisor import GaveUpError, Service, Supervisor

GRACE_SECONDS = 10.0  # from SIGTERM to SIGKILL


@dataclass(frozen=True, slots=True)
class Run:
    """What runs, as long as its context is open. Times are of `time.monotonic`."""

    began: float
    until: float | None  # when it is to end by itself
    kafka: Server
    redis: Server
    first_version: int | None  # live before anything of ours ran
    supervisor: Supervisor
    observer: Observer
    publishing: Publishing | None  # None: no traffic of our own

    def tend(self, now: float) -> None:
        """To be called a few times a second. Raises GaveUpError when this run cannot go on."""
        self.kafka.check()
        self.redis.check()
        self.supervisor.tend()
        if self.observer.failure is not None:
            raise GaveUpError(f"cannot watch any more: {self.observer.failure!r}")
        if self.publishing is not None:
            names = [service.name for service in self.supervisor.services]
            self.publishing.tend(now, self.observer.figures, names)

    def versions_published(self) -> int | None:
        live = self.observer.figures.live_version
        return None if live is None else live - (self.first_version or 0)


@contextmanager
def running(options: UpOptions, tell: Callable[[str], None], hurry: Callable[[], bool]) -> Iterator[Run]:
    """Start everything; at the end of the context what was started last is ended first.

    `tell(line)` gets what happens; `hurry()` is asked whether nobody is to be waited for at the end. Everything is made
    and asked for before anything of ours runs, so that what is not there is said at once.

    Raises CannotStartError, KafkaUnreachableError, StoreUnavailable, FileError.
    """
    began = time.monotonic()
    until = None if options.seconds is None else began + options.seconds
    with ExitStack() as stack:
        _make_log_folder(options)
        kafka = stack.enter_context(configured_or_embedded("Kafka", options.bootstrap, start_kafka))
        redis = stack.enter_context(configured_or_embedded("Redis", options.redis_url, start_redis))
        connection = connect(redis.address, timeout=2.0, retries=0)
        stack.callback(connection.close)
        first_version = live_version(connection, options.keys)
        if kafka.embedded and first_version is not None and not options.fresh:
            raise CannotStartError(_of_another_kafka(first_version))

        supervisor = Supervisor(services(options), environment(options, kafka, redis), tell, logs=options.logs)
        trainer, *scorers = supervisor.services
        for group in ([trainer], scorers):
            stack.callback(supervisor.stop, group, GRACE_SECONDS, hurry)
        observer = Observer(connection, options.keys, supervisor.endpoints, options.events_topic)
        stack.callback(observer.stop)

        publisher = KafkaPublisher(kafka.address, options.kafka)
        stack.callback(lambda: publisher.close(0.5 if hurry() else 5.0))
        publisher.check()
        publisher.prepare_topics(options.events_topic, options.rules.items_topic)
        publishing = None
        if options.demo:
            limit = EMBEDDED_BYTES if kafka.embedded else math.inf
            publishing = Publishing(options, publisher, lambda: observer.figures, limit, tell)
            stack.callback(publishing.stop)

        supervisor.start()
        observer.start()
        if publishing is not None:
            publishing.start()
        yield Run(began, until, kafka, redis, first_version, supervisor, observer, publishing)


def services(options: UpOptions) -> list[Service]:
    """The trainer, and after it the scorers."""
    names = ["scorer"] if options.scorers == 1 else [f"scorer-{n}" for n in range(1, options.scorers + 1)]
    return [Service("trainer", options.trainer_command), *(Service(name, options.scorer_command) for name in names)]


def environment(options: UpOptions, kafka: Server, redis: Server) -> dict[str, str]:
    """What a child process finds in its environment: ours, and where it is to work."""
    return {
        **options.environment,
        "TIDEMILL_KAFKA_BOOTSTRAP": kafka.address,
        "TIDEMILL_REDIS_URL": redis.address,
        "TIDEMILL_METRICS_HOST": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",  # a process that is killed must have said its last words
    }


def live_version(redis: RedisConnection, keys: Keys) -> int | None:
    """The number at the live pointer; None where there is none, or something else. Raises StoreUnavailable."""
    answer = redis.call("GET", keys.live)
    return int(answer) if answer is not None and bytes(answer).isdigit() else None


def _of_another_kafka(version: int) -> str:
    return (
        f"this Redis holds version {version}, whose offsets mean nothing to an embedded Kafka, which is always a new "
        "one: TIDEMILL_FRESH=1 begins anew, another TIDEMILL_MODEL_NAME leaves that model as it is, and "
        "TIDEMILL_KAFKA_BOOTSTRAP names the Kafka that it learned from"
    )


def _make_log_folder(options: UpOptions) -> None:
    if options.logs is not None:
        try:
            options.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot keep logs in {options.logs}: {error.strerror}") from None
