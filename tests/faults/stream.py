"""One topic, one model, and the trainers that learn the one into the other, one after another, as they are killed."""

import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import orjson
from confluent_kafka import Producer

from model_store.chain import load
from model_store.keys import Keys
from model_store.redis_connection import connect
from model_store.redis_store import RedisStore
from model_store.version import Manifest
from model_store.weights import State
from tests.faults.reference import fingerprint
from tests.faults.trainers import start_trainer
from tests.patience import PATIENCE

LEASE_S = 0.4  # a killed trainer's successor waits for no longer

Record = tuple[bytes, bytes]  # key, value


@dataclass
class Traffic:
    """Records without end, and what is to become of them. The same seed gives the same records."""

    seed: int
    events: int = 0  # accepted by the decoder: what fills batches
    duplicates: int = 0  # of those, how many the learner is to know again
    rejects: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._last = b"", b""

    def take(self, events: int) -> list[Record]:
        """The next records, so many that `events` are accepted; the last one is among those."""
        return list(itertools.chain.from_iterable(self._next() for _ in range(events)))

    def _next(self) -> Iterator[Record]:
        """One event, perhaps after garbage. One in fifty is the event before once more."""
        rng = self._random
        if rng.random() < 0.02:
            self.rejects += 1
            yield b"u1", rng.choice([b"", b'{"user_id": "u1"}', b"\xff{", b"[" * 100])
        self.events += 1
        if self.events > 1 and rng.random() < 0.02:
            self.duplicates += 1
        else:
            user = f"u{rng.randrange(60)}"
            event = {
                "user_id": user,
                "item_id": f"i{int(150 * rng.random() ** 2)}",
                "type": rng.choice(["view", "click", "click", "purchase", "dislike"]),
                "ts": 1_767_700_000_000 + self.events,
                "event_id": f"{self.seed}-{self.events}",
            }
            self._last = user.encode(), orjson.dumps(event)
        yield self._last


class Stream:
    """`partition` -1: the key decides. Settings are environment variables of the trainers."""

    def __init__(
        self, bootstrap: str, redis_url: str, directory: Path, name: str, *, partition: int, **settings: str
    ) -> None:
        self.topic = f"events-{name}"
        self.sent: list[Record] = []
        self.ends: dict[str, int] = {}  # partition -> offset after the last record delivered
        self._partition, self._log = partition, directory / f"{name}.log"
        self._connection = connect(redis_url)
        self._keys = Keys(model=name, prefix=name)
        self.store = RedisStore(self._connection, self._keys)
        self._environment = {
            "TIDEMILL_KAFKA_BOOTSTRAP": bootstrap,
            "TIDEMILL_REDIS_URL": redis_url,
            "TIDEMILL_EVENTS_TOPIC": self.topic,
            "TIDEMILL_ITEMS_TOPIC": f"items-{name}",
            "TIDEMILL_KEY_PREFIX": name,
            "TIDEMILL_MODEL_NAME": name,
            "TIDEMILL_METRICS_PORT": "0",
            "TIDEMILL_THREADS": "1",
            "TIDEMILL_DEVICE": "cpu",
            "TIDEMILL_LEASE_SECONDS": str(LEASE_S),
            "TIDEMILL_READER_GRACE_SECONDS": "3600",  # every version stays, to be looked at
        } | settings
        self._producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "log_level": 0})
        self._trainers: list[ForkServerProcess] = []

    def start(self, **environment: str) -> ForkServerProcess:
        trainer = start_trainer(self._environment | environment, self._log)
        self._trainers.append(trainer)
        return trainer

    def send(self, records: Sequence[Record]) -> None:
        """Returns once they are delivered."""

        def delivered(error: object, message: object) -> None:
            assert error is None, error
            partition = str(message.partition())  # type: ignore[attr-defined]
            self.ends[partition] = max(self.ends.get(partition, 0), message.offset() + 1)  # type: ignore[attr-defined]

        for key, value in records:
            if self._partition < 0:
                self._producer.produce(self.topic, value, key, on_delivery=delivered)
            else:
                self._producer.produce(self.topic, value, key, self._partition, on_delivery=delivered)
        assert self._producer.flush(30) == 0
        self.sent += records

    def manifests(self) -> list[Manifest]:
        """Of every version, oldest first."""
        raw = self.store.manifest_bytes(self.store.versions())
        return [Manifest.from_json(data) for data in raw if data is not None]

    def learned_through(self) -> dict[str, int]:
        """What the newest version says."""
        newest = self.store.newest()
        raw = None if newest is None else self.store.manifest_bytes([newest])[0]
        return {} if raw is None else Manifest.from_json(raw).trained_through.get(self.topic, {})

    def finish(self, trainer: ForkServerProcess) -> None:
        """Wait until everything sent is learned, then end the trainer in good order."""
        self._until(lambda: self.learned_through() == self.ends or not trainer.is_alive(), 60, "everything learned")
        self.end(trainer)

    def end(self, trainer: ForkServerProcess) -> None:
        trainer.terminate()
        trainer.join(PATIENCE * 20)
        assert trainer.exitcode == 0, self._what(f"the trainer ended with {trainer.exitcode}")

    def kill(self, trainer: ForkServerProcess) -> None:
        trainer.kill()
        self.wait_killed(trainer, 10)

    def wait_killed(self, trainer: ForkServerProcess, seconds: float) -> None:
        trainer.join(PATIENCE * seconds)
        assert trainer.exitcode == -signal.SIGKILL, self._what(f"the trainer ended with {trainer.exitcode}")

    def feed_until(self, ask: Callable[[], bool], seconds: float, more: Callable[[], Sequence[Record]]) -> None:
        """On a busy machine fewer versions come of as many events, so after a while there are more."""
        feed_at, end = time.monotonic() + 3.0, time.monotonic() + PATIENCE * seconds
        while not ask():
            assert time.monotonic() < end, self._what(f"it was not killed within {PATIENCE * seconds:g} s")
            if time.monotonic() > feed_at:
                self.send(more())
            time.sleep(0.05)

    def fingerprints(self) -> dict[tuple[int, bool], set[str]]:
        """Of every version, by its offset in the partition and whether it is a checkpoint.

        Each is loaded from the one before or its own snapshot, and the last one once more, from nothing.
        """
        found: dict[tuple[int, bool], set[str]] = {}
        state, have = State(), None
        for manifest in self.manifests():
            known = None if have is None else (state, have)
            state, have = load(self.store, manifest.version, known=known), manifest.version
            at = manifest.trained_through.get(self.topic, {}).get("0", 0), manifest.checkpoint
            found.setdefault(at, set()).add(fingerprint(state, checkpoint=manifest.checkpoint))
        assert have is not None
        assert self.store.live() == have
        assert fingerprint(load(self.store, have), checkpoint=manifest.checkpoint) in found[at]
        return found

    def close(self) -> None:
        for trainer in self._trainers:
            if trainer.is_alive():
                trainer.kill()
            trainer.join(10)
            trainer.close()
        self._producer.flush(5)
        self._connection.close()

    def _until(self, ask: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + PATIENCE * seconds
        while not ask():
            assert time.monotonic() < end, self._what(f"not within {PATIENCE * seconds:g} s: {what}")
            time.sleep(0.01)

    def _what(self, happened: str) -> str:
        return f"{happened}; the end of the log:\n{self._log.read_text()[-3000:]}"


@contextmanager
def stream(
    servers: tuple[str, str], directory: Path, name: str, *, partition: int, **settings: str
) -> Iterator[Stream]:
    """`servers`: bootstrap and Redis URL."""
    made = Stream(*servers, directory, f"{name}-{os.getpid()}", partition=partition, **settings)
    try:
        yield made
    finally:
        made.close()
