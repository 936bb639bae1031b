"""Does the whole pipeline lose, double or leak anything while it is killed, frozen and cut off from Redis?

    python -m benchmarks.bench_soak --seconds 600

Two trainers (one stands by) and two scorers under 1,000 events a second, some of them sent twice, some of them garbage;
every few seconds something is done to one of them. A real broker where tests/brokers.py finds one; else the embedded
one, which keeps 5 MB a partition, so that a soak of more than three minutes needs the real one. Ends with status 1 when
anything was lost or doubled, or a list was not as it must be.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import platform
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer

from model_store.errors import StoreUnavailable
from service.local import embedded_kafka
from tests.brokers import RealBroker, has_real_broker
from tests.integration.world import MODEL, World, until
from tests.redis_server import RedisServer, redis_server

RATE = 1000
USERS, ITEMS = 2000, 1000
TWICE, GARBAGE = 0.01, 0.005
FAULT_EVERY_S = 4.0, 8.0
RECOVERY_S = 120.0  # after the last fault, until nothing is outstanding


class Traffic:
    """Events with ids, sent by a thread of its own."""

    def __init__(self, world: World, seed: int) -> None:
        self.sent: Counter[str] = Counter()  # user -> events, each counted once
        self.twice = self.garbage = 0
        self.recent: deque[dict[str, Any]] = deque(maxlen=200)  # events
        self.began = time.time()
        self._world, self._random = world, random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._world.flush()

    def _run(self) -> None:
        began, number = time.monotonic(), 0
        while not self._over.wait(max(0.0, began + number / RATE - time.monotonic())):
            for _ in range(10):
                self._send(number := number + 1)

    def _send(self, number: int) -> None:
        rng = self._random
        user = rng.randrange(USERS)
        name, item = f"u{user}", rng.randrange(ITEMS // 10) * 10 + user % 10
        event = {"user_id": name, "item_id": f"i{item}", "type": "click", "ts": int(time.time() * 1000)}
        self._world.send(event | {"event_id": f"e{number}"})
        self.sent[name] += 1
        self.recent.append(event | {"event_id": f"e{number}"})
        if rng.random() < TWICE:
            self.twice += 1
            self._world.send(rng.choice(self.recent))
        if rng.random() < GARBAGE:
            self.garbage += 1
            self._world.send(b'{"user_id": "u1", "item_id": \xff', key=name)


class Processes:
    """Two trainers and two scorers, started again when they end; and what can be done to them."""

    def __init__(self, world: World, redis: RedisServer, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._world, self._redis, self._random = world, redis, random.Random(seed)
        self._running = [(role, world.start(role)) for role in ("trainer", "trainer", "scorer", "scorer")]
        self._faults = [
            self.kill_trainer,
            self.kill_standby,
            self.kill_feeder,
            self.kill_scorer,
            self.freeze_trainer,
            self.restart_redis,
        ]

    def tend(self) -> None:
        self._running = [(r, p if p.poll() is None else self._world.start(r)) for r, p in self._running]

    def fault(self) -> None:
        """Each kind as often as the others, in random order."""
        fewest = min(self.done[f.__name__] for f in self._faults)
        chosen = self._random.choice([f for f in self._faults if self.done[f.__name__] == fewest])
        self.done[chosen.__name__] += 1
        chosen()

    def kill_trainer(self) -> None:
        self._signal(self._leader(), signal.SIGKILL)

    def kill_standby(self) -> None:
        leader = self._leader()
        for pid in self._pids("trainer"):
            if pid != leader:
                self._signal(pid, signal.SIGKILL)

    def kill_feeder(self) -> None:
        for pid in children(self._leader()):
            self._signal(pid, signal.SIGKILL)

    def kill_scorer(self) -> None:
        self._signal(self._random.choice(self._pids("scorer")), signal.SIGKILL)

    def freeze_trainer(self) -> None:
        """Now for less time than the lease lasts, now for more."""
        leader = self._leader()
        self._signal(leader, signal.SIGSTOP)
        time.sleep(self._random.uniform(0.5, 5.0))
        self._signal(leader, signal.SIGCONT)

    def restart_redis(self) -> None:
        self._redis.kill()
        time.sleep(self._random.uniform(0.0, 1.0))
        self._redis.start()

    def memory(self) -> Counter[str]:
        """MB resident, of the largest of each kind."""
        largest: Counter[str] = Counter()
        for role, process in self._running:
            largest |= Counter({role: resident_mb(process.pid)})
            if role == "trainer":
                for pid in filter(is_feeder, children(process.pid)):
                    largest |= Counter({"feeder": resident_mb(pid)})
        return largest

    def _pids(self, role: str) -> list[int]:
        return [process.pid for r, process in self._running if r == role and process.poll() is None]

    def _leader(self) -> int:
        """The trainer that holds the lease (`token:host:pid:run`); any while nobody does."""
        ours = self._pids("trainer")
        with contextlib.suppress(StoreUnavailable):
            held = self._world.redis.call("GET", MODEL + "lease")
            holder = 0 if held is None else int(held.decode().split(":")[-2])
            return holder if holder in ours else ours[0]
        return ours[0]

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Watch:
    """Looks at the lists of users who acted lately, some times a second."""

    def __init__(self, world: World, traffic: Traffic) -> None:
        self.read = 0
        self.wrong: list[str] = []
        self.longest_gap = 0.0  # in which no list was written at all
        self.longest_wait = 0.0  # of an event for a list that knows of it
        self._world, self._traffic = world, traffic
        self._seen: Counter[str] = Counter()  # user -> events_seen when last looked
        self._newest = ""  # `generated_at` of the newest list seen
        self._waiting: list[tuple[float, str, int]] = []  # since when, user, how many events their list is to know

    def look(self) -> bool:
        """Whether there has been any list yet."""
        now, recent = time.time(), [event["user_id"] for event in self._traffic.recent.copy()]
        if not recent:
            return False
        self._waiting.append((now, recent[-1], self._traffic.sent[recent[-1]]))
        users = sorted({*recent, *(user for _, user, _ in self._waiting)})
        with contextlib.suppress(StoreUnavailable):
            lists = self._world.redis.call("MGET", *(f"tidemill:recs:{user}" for user in users))
            for user, raw in zip(users, lists, strict=True):
                if raw is not None:
                    self._check(user, json.loads(raw))
        if self._newest:
            self.longest_gap = max(self.longest_gap, now - datetime.fromisoformat(self._newest).timestamp())
            self.longest_wait = max([self.longest_wait, *(now - since for since, _, _ in self._waiting)])
        self._waiting = [each for each in self._waiting if self._seen[each[1]] < each[2]]
        return self.read > 0

    def _check(self, user: str, found: dict[str, Any]) -> None:
        ids = [item["item_id"] for item in found["items"]]
        scores = [item["score"] for item in found["items"]]
        self.read += 1
        self._newest = max(self._newest, found["generated_at"])
        if (
            found["user_id"] != user
            or not 0 < len(ids) <= 50
            or len(set(ids)) < len(ids)
            or not all(map(math.isfinite, scores))
            or scores != sorted(scores, reverse=True)
            or found["events_seen"] < self._seen[user]
        ):
            self.wrong.append(f"{user}, before {self._seen[user]} events: {json.dumps(found)[:300]}")
        self._seen[user] = found["events_seen"]


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_feeder(pid: int) -> bool:
    """Not yet in the moment between fork and exec, when it has its parent's memory."""
    try:
        return b"consumers.feeder_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def resident_mb(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1_000_000
    except OSError:
        return 0


def longest_gap_in_versions(world: World, began: float, ended: float) -> float:
    """Seconds between two versions, by the model's log."""
    log = world.redis.call("XRANGE", MODEL + "log", int(began * 1000), int(ended * 1000))
    times = [began, *(int(entry.split(b"-")[0]) / 1000 for entry, _ in log), ended]
    return max(after - before for before, after in itertools.pairwise(times))


def dead_letters(bootstrap: str, expected: int) -> tuple[int, int]:
    """Of `events.dlq`: how many records, and of how many different source offsets."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "soak", "auto.offset.reset": "earliest"})
    consumer.subscribe(["events.dlq"])
    sources: set[tuple[Any, Any]] = set()
    records, end = 0, time.monotonic() + 20
    while time.monotonic() < end and len(sources) < expected:
        for message in consumer.consume(1000, 1.0):
            if message.error() is None:
                headers = dict(message.headers() or [])
                sources.add((headers["source.partition"], headers["source.offset"]))
                records += 1
    consumer.close()
    return records, len(sources)


@contextmanager
def _kafka() -> Iterator[str]:
    if not has_real_broker():
        with embedded_kafka() as bootstrap:
            yield bootstrap
        return
    broker = RealBroker()
    broker.start()
    try:
        yield broker.bootstrap
    finally:
        broker.remove()


def soak(seconds: float, seed: int) -> bool:
    """Whether nothing was lost, doubled or wrong."""
    with (
        tempfile.TemporaryDirectory() as logs,
        _kafka() as bootstrap,
        redis_server("--appendonly", "yes") as redis,
        contextlib.closing(World(bootstrap, redis.url, Path(logs))) as world,
    ):
        processes, rng = Processes(world, redis, seed), random.Random(seed)
        until(world.live, 60, "a first version")
        traffic = Traffic(world, seed)
        try:
            watch = Watch(world, traffic)
            until(watch.look, 60, "a first list")
            began, memory = time.time(), [Counter[str]() for _ in range(4)]
            fault_at = began + rng.uniform(*FAULT_EVERY_S)
            while (now := time.time()) < began + seconds:
                processes.tend()
                watch.look()
                if now >= fault_at:
                    processes.fault()
                    fault_at = time.time() + rng.uniform(*FAULT_EVERY_S)
                memory[int(4 * (now - began) / seconds)] |= processes.memory()
                time.sleep(0.2)
        finally:
            traffic.stop()
        ended = time.time()

        def counted() -> Counter[str]:
            users = sorted(traffic.sent)
            lists = world.redis.call("MGET", *(f"tidemill:recs:{user}" for user in users))
            return Counter({u: json.loads(raw)["events_seen"] for u, raw in zip(users, lists, strict=True) if raw})

        def settled() -> bool:
            processes.tend()
            return world.learned_all() is not None and counted() == traffic.sent

        with contextlib.suppress(AssertionError):  # what is outstanding then is reported as lost
            until(settled, RECOVERY_S, "everything learned and every history exact")
        trained, seen, total = (world.live() or {})["events_trained"], counted(), traffic.sent.total()
        lost, doubled = (traffic.sent - seen).total(), (seen - traffic.sent).total()
        rejected, sources = dead_letters(bootstrap, traffic.garbage)
        faults = ", ".join(f"{count} {name}" for name, count in sorted(processes.done.items()))
        print(f"{seconds:.0f} s at {total / (ended - traffic.began):.0f} events/s; faults: {faults}")
        print(f"sent: {total} events, {traffic.twice} of them twice, and {traffic.garbage} records of garbage")
        print(f"learned: {trained}; lost {max(0, total - trained)}, doubled {max(0, trained - total)}")
        print(f"in lists: {seen.total()}; lost {lost}, doubled {doubled}")
        print(f"dead letters: {rejected}, of {sources} records")
        print(f"lists read: {watch.read}, wrong: {len(watch.wrong)}")
        print(f"longest gap between versions: {longest_gap_in_versions(world, began, ended):.1f} s, in lists: ", end="")
        print(f"{watch.longest_gap:.1f} s; longest wait of an event for its list: {watch.longest_wait:.1f} s")
        for role in memory[0]:
            print(f"resident MB of the largest {role}, by quarter: {' '.join(str(each[role]) for each in memory)}")
        print("\n".join(watch.wrong[:5]), end="")
        return trained == total and seen == traffic.sent and sources == traffic.garbage and not watch.wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {'real' if has_real_broker() else 'embedded'} broker")
    sys.exit(0 if soak(args.seconds, args.seed) else 1)


if __name__ == "__main__":
    main()
