"""How fast is the whole pipeline on this machine? Events learned a second, and freshness at 500 events/s.

Embedded Kafka and Redis, one trainer, one scorer, all sharing this machine's cores with the publisher.
"""

import os
import platform
import random
import re
import tempfile
import time
import urllib.request
from pathlib import Path

from service.local import free_port
from tests.integration.world import World, embedded_world, until

EVENTS = 60_000  # the embedded Kafka keeps about 5 MB a partition
RATE = 500
SECONDS = 20


def _event(rng: random.Random, users: int) -> dict[str, object]:
    user = rng.randrange(users)
    item = rng.randrange(100) * 10 + user % 10
    return {"user_id": f"u{user}", "item_id": f"i{item}", "type": "click", "ts": int(time.time() * 1000)}


def _quantile(metrics: str, stage: str, q: float) -> float:
    """Seconds, between the buckets of the histogram that hold the q-th freshness."""
    found = re.findall(rf'to_recommendation_seconds_bucket{{le="([^"]+)",stage="{stage}"}} ([0-9.e+]+)', metrics)
    buckets = [(float(le.replace("+Inf", "inf")), float(count)) for le, count in found]
    want, below, at = q * buckets[-1][1], 0.0, 0.0
    for le, count in buckets:
        if count >= want:
            return at + (min(le, 60.0) - at) * (want - below) / max(count - below, 1.0)
        below, at = count, le
    return float("inf")


def _throughput(world: World, rng: random.Random) -> None:
    began = time.perf_counter()
    for _ in range(EVENTS):
        world.send(_event(rng, 20_000))
    world.flush()
    until(world.learned_all, 300, "everything learned")
    print(f"throughput: {EVENTS / (time.perf_counter() - began):.0f} events/s learned and published")


def _freshness(world: World, rng: random.Random, port: int) -> None:
    began = time.perf_counter()
    for number in range(RATE * SECONDS):
        while time.perf_counter() - began < number / RATE:
            time.sleep(0.001)
        world.send(_event(rng, 200))
    world.flush()
    until(world.learned_all, 60, "everything learned")
    time.sleep(1)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    for stage in ("history", "learned"):
        p50, p99 = _quantile(metrics, stage, 0.5), _quantile(metrics, stage, 0.99)
        print(f"freshness, {stage}: p50 {p50:.3f} s, p99 {p99:.3f} s at {RATE} events/s")


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores")
    for measure in ("throughput", "freshness"):
        with tempfile.TemporaryDirectory() as logs, embedded_world(Path(logs)) as world:
            port = free_port()
            world.start("trainer")
            world.start("scorer", TIDEMILL_METRICS_PORT=str(port))
            rng = random.Random(1)
            for item in range(1000):
                world.send({"item_id": f"i{item}", "title": f"item {item}"}, topic="items")
            world.send(_event(rng, 200))
            world.flush()
            until(world.learned_all, 60, "the first event learned")
            until(lambda world=world: world.redis.call("GET", "tidemill:recs_default"), 60, "a list")  # type: ignore[misc]
            if measure == "throughput":
                _throughput(world, rng)
            else:
                _freshness(world, rng, port)


if __name__ == "__main__":
    main()
