"""`tidemill verify`, as its user meets it: after kills, with everything a stream may hold, it says identical; and it
finds one bit that is not what the events make of it."""

import hashlib
import json
import random
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from service.local import embedded_redis
from tests import brokers
from tests.integration.world import MODEL, World, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

AHEAD_MS = 60_000  # further than the trainer takes; whoever reads it in a minute would take it
SETTINGS = {
    "TIDEMILL_THREADS": "1",
    "TIDEMILL_BATCH_WAIT_MS": "15",
    "TIDEMILL_PUBLISH_INTERVAL_MS": "50",
    "TIDEMILL_FUTURE_TOLERANCE_HOURS": "0.001",
    "TIDEMILL_LEASE_SECONDS": "1",
}
IDENTICAL = re.compile(
    r"version (\d+) is identical: made again from (nothing|version \d+), (\d+) micro-batches and (\d+) events, "
    r"in [\d.]+ s; [\d,]+ values in \d+ tables and tensors are the same, bit for bit\n"
)


def shop(world: World, seed: int, seconds: float) -> int:
    """Traffic of every kind for a while; returns how many events are to be learned."""
    rng, learnable, number = random.Random(seed), 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
        user, item, now = f"u{rng.randrange(60)}", f"i{rng.randrange(80)}", int(time.time() * 1000)
        event: dict[str, Any] = {"user_id": user, "item_id": item, "type": rng.choice(["view", "click", "purchase"])}
        event |= {"ts": now, "event_id": f"{seed}-{number}"}
        match rng.randrange(20):
            case 0:  # sent twice
                world.send(event)
                world.send(event)
                learnable += 1
            case 1:
                world.send(rng.choice([b"", b"{", b'{"user_id": "u1"}', b"\xff"]), key=user)
            case 2:
                world.send(event | {"ts": now + AHEAD_MS})
            case 3:
                world.send({"item_id": item, "title": f"item {item}", "available": rng.random() < 0.8}, topic="items")
            case 4:
                world.send(None, topic="items", key=item)
            case 5:
                world.send({"user_id": user, "type": "search", "query": "kettle", "ts": now})
                learnable += 1
            case _:
                world.send(event)
                learnable += 1
        time.sleep(0.004)
    world.flush()
    return learnable


def learned(world: World, settings: dict[str, str], *, kills: int) -> int:
    """A trainer that is killed so often, and ends in good order; returns the version that is live."""
    learnable, runs = 0, set[str]()

    def begun() -> str | None:
        run: str | None = (world.live() or {}).get("run_id")
        return None if run in runs else run

    for seed in range(kills + 1):
        trainer = world.start("trainer", **settings)
        if seed:
            learnable += shop(world, seed, 0.5)  # while nobody learns
        runs.add(until(begun, 60, "a version of this trainer's"))
        learnable += shop(world, 10 + seed, 3.0)
        if seed < kills:
            world.kill(trainer)
    assert until(world.learned_all, 60, "everything learned")["events_trained"] == learnable
    trainer.terminate()
    assert trainer.wait(30) == 0
    live = world.live()
    assert live is not None
    return int(live["version"])


def proven(world: World, settings: dict[str, str], *arguments: str) -> tuple[str, ...]:
    """What it says of a version that is identical: its number, where it began, batches, events."""
    done = world.run("verify", *arguments, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    said = IDENTICAL.fullmatch(done.stdout)
    assert said is not None, done.stdout
    return said.groups()


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line on stderr of a command that failed."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("tidemill: ")
    return line


def doctor(world: World) -> None:
    """The lowest bit of one weight of the live version, and every checksum with it."""
    live = world.live()
    assert live is not None
    ref = live["blobs"]["weights/0"]
    raw = bytearray(world.redis.call("GET", ref["key"]))
    (size,) = struct.unpack("<Q", raw[:8])
    first = json.loads(raw[8 : 8 + size])["item/popularity:values"]["data_offsets"][0]
    raw[8 + size + first] ^= 1
    digest = hashlib.sha256(raw).hexdigest()
    world.redis.call("SET", f"tidemill:blob:{digest}", bytes(raw))
    live["blobs"]["weights/0"] = ref | {"key": f"tidemill:blob:{digest}", "checksum": digest}
    world.redis.call("SET", f"{MODEL}manifest:{live['version']}", json.dumps(live))


@pytest.mark.parametrize("variant", ["every version a checkpoint", "a checkpoint now and then", "checkpoints in files"])
def test_whatever_was_killed_the_live_version_is_what_the_events_make_of_it(
    world: World, tmp_path: Path, variant: str
) -> None:
    settings = dict(SETTINGS)
    if variant == "a checkpoint now and then":
        settings["TIDEMILL_CHECKPOINT_INTERVAL_S"] = "2"
    if variant == "checkpoints in files":
        (tmp_path / "checkpoints").mkdir()
        settings["TIDEMILL_CHECKPOINT_URL"] = f"file://{tmp_path}/checkpoints"
    live = learned(world, settings, kills=2)
    version, since, batches, events = proven(world, settings)
    assert (int(version), since.startswith("version ")) == (live, True)
    whole = proven(world, settings, "--from", "0")
    assert whole[:2] == (str(live), "nothing")
    assert int(whole[2]) > int(batches)
    manifest = world.live()
    assert manifest is not None
    assert int(whole[3]) == manifest["events_trained"] > int(events) > 0
    assert len({int(p) for p in manifest["trained_through"]["events"]}) == 4
    if variant == "a checkpoint now and then":
        first = next(n for n in range(live, 0, -1) if not checkpoint(world, n))
        assert proven(world, settings, str(first))[0] == str(first)
        assert "learning again what versions" in world.log("trainer")
        assert "comes out different" not in world.log("trainer")
        line = refused(world.run("verify", str(live), "--from", str(first - 1), **settings))
        assert "that is no checkpoint on the way to it" in line or checkpoint(world, first - 1)
    if variant == "checkpoints in files":
        line = refused(world.run("verify", **SETTINGS))
        assert "it lies in a folder, and TIDEMILL_CHECKPOINT_URL is not set" in line

    doctor(world)
    done = world.run("verify", **settings)
    assert done.returncode == 1
    assert re.fullmatch(
        rf"version {live} is NOT identical: item/popularity row \d+ \('i\d+'\): \S+ was published at \[0\], "
        rf"the events make \S+ \(made again from version \d+, .*; the first version that departs is {live}\)\n",
        done.stdout,
    ), done.stdout


def checkpoint(world: World, version: int) -> bool:
    raw = world.redis.call("GET", f"{MODEL}manifest:{version}")
    return raw is None or bool(json.loads(raw)["checkpoint"])


def test_what_cannot_be_verified_is_said_in_a_line(world: World) -> None:
    assert refused(world.run("verify")) == "tidemill: there is no live version yet: has a trainer run?"
    live = learned(world, SETTINGS, kills=0)
    line = refused(world.run("verify", "99999"))
    assert line == "tidemill: version 99999 cannot be made again: version 99999 is not in the store"
    assert "that is no checkpoint on the way" in refused(world.run("verify", "--from", str(live)))
    line = refused(world.run("verify", TIDEMILL_KAFKA_BOOTSTRAP="127.0.0.1:9"))
    assert "Kafka at 127.0.0.1:9 cannot be asked" in line
    wrong = world.run("verify", "x")
    assert wrong.returncode == 2
    assert "'x' is not a whole number from 1 on" in wrong.stderr


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[World, str]]:
    broker = brokers.new_real_broker()
    with embedded_redis() as url:
        made = World(broker.bootstrap, url, tmp_path)
        try:
            yield made, broker.bootstrap
        finally:
            made.close()
            broker.remove()


def test_events_that_have_expired_are_named(real: tuple[World, str]) -> None:
    world, bootstrap = real
    live = learned(world, SETTINGS, kills=1)
    assert proven(world, SETTINGS, "--from", "0")[0] == str(live)
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    partition, end = max(world.ends.items(), key=lambda each: each[1])
    gone = TopicPartition("events", int(partition), end - 1)
    for deleted in admin.delete_records([gone]).values():
        deleted.result()
    line = refused(world.run("verify", "--from", "0", **SETTINGS))
    assert re.fullmatch(
        rf"tidemill: version {live} cannot be made again: events\[{partition}\] \d+\.\.\d+ is needed, "
        rf"and everything before {end - 1} has expired",
        line,
    ), line
