"""One trainer publishes, whoever else believes that it may."""

import json
import os
import random
import re
import signal
import subprocess
import time
import zlib
from typing import Any

import pytest

from tests.integration.world import MODEL, World, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LEASE_S = 1.0
SETTINGS = {"TIDEMILL_THREADS": "1", "TIDEMILL_LEASE_SECONDS": str(LEASE_S), "TIDEMILL_PUBLISH_INTERVAL_MS": "50"}
Process = subprocess.Popen[bytes]


def clicks(world: World, first: int, n: int, rng: random.Random) -> None:
    for number in range(first, first + n):
        event = {"user_id": f"u{rng.randrange(50)}", "item_id": f"i{rng.randrange(60)}", "type": "click"}
        world.send(event | {"ts": int(time.time() * 1000), "event_id": f"e{number}"})
        time.sleep(0.002)
    world.flush()


def published(world: World) -> list[dict[str, Any]]:
    """Of every version that is there: number, run and batches, oldest first; with those that were retired."""
    newest = int(world.redis.call("GET", MODEL + "newest") or 0)
    found = []
    for version in range(1, newest + 1):
        raw = world.redis.call("GET", f"{MODEL}manifest:{version}")
        if raw is None:
            raw = zlib.decompress(world.redis.call("HGET", MODEL + "retired", version))
        found.append(json.loads(raw))
    return found


def freeze(process: Process, number: int) -> None:
    """The trainer and its feeder: both stop and go on together."""
    os.killpg(process.pid, number)


def learned_once(world: World, events: int) -> None:
    live = until(world.learned_all, 60, "everything learned")
    assert live["events_trained"] == events
    through: dict[int, int] = {}
    for manifest in published(world):
        for batch in manifest["batches"]:
            for topic, partition, start, end in batch["ranges"]:
                if topic == "events":
                    assert start == through.get(partition, 0)  # nothing twice, nothing left out
                    through[partition] = end
    assert {str(partition): end for partition, end in through.items()} == world.ends


def test_a_frozen_trainer_is_replaced_and_publishes_nothing_when_it_thaws(world: World) -> None:
    rng = random.Random(1)
    first = world.start("trainer", **SETTINGS)
    before = until(world.live, 60, "a first version")
    clicks(world, 0, 300, rng)
    until(world.learned_all, 30, "the first events learned")
    standby = world.start("trainer", **SETTINGS)
    until(lambda: "standing by" in world.log("trainer"), 30, "a standby")
    clicks(world, 300, 300, rng)
    freeze(first, signal.SIGSTOP)  # amid its work
    frozen = time.monotonic()
    clicks(world, 600, 300, rng)

    def taken_over() -> dict[str, Any] | None:
        live = world.live()
        return live if live is not None and live["run_id"] != before["run_id"] else None

    over = until(taken_over, 30, "the standby has published")
    took = time.monotonic() - frozen
    until(world.learned_all, 30, "the standby has learned everything")
    last_of_first = max(m["version"] for m in published(world) if m["run_id"] == before["run_id"])
    lines = len(world.log("trainer").splitlines())
    freeze(first, signal.SIGCONT)
    clicks(world, 900, 300, rng)
    assert first.wait(30) == 1
    learned_once(world, 1200)
    assert standby.poll() is None
    assert max(m["version"] for m in published(world) if m["run_id"] == before["run_id"]) == last_of_first
    runs = [m["run_id"] for m in published(world)]
    assert runs == [before["run_id"]] * runs.count(before["run_id"]) + [over["run_id"]] * runs.count(over["run_id"])
    said = world.log("trainer").splitlines()[lines:]
    (end,) = [line for line in said if line.startswith("tidemill: ")]
    assert end.startswith("tidemill: this trainer may not publish any more: ")
    assert "another trainer has taken" in end
    assert not any("Traceback" in line for line in said)
    print(f"\ntaken over {took - LEASE_S:.1f} s after the lease had run out")
    assert took < LEASE_S + 15  # 5 s on a machine that has the time


def test_of_two_that_start_at_once_one_publishes(world: World) -> None:
    rng = random.Random(2)
    both = [world.start("trainer", **SETTINGS) for _ in range(2)]
    until(world.live, 60, "a first version")
    clicks(world, 0, 500, rng)
    learned_once(world, 500)
    assert len({manifest["run_id"] for manifest in published(world)}) == 1
    assert [process.poll() for process in both] == [None, None]

    def answers() -> list[int]:
        return [world.health(process)[0] for process in both]

    until(lambda: sorted(answers()) == [200, 503], 60, "one leads and the other one stands by")
    leading = answers()
    leader, standby = (both[leading.index(status)] for status in (200, 503))
    assert [world.metric(each, "trainer_leads") for each in (leader, standby)] == [1, 0]
    for of_the_model in ("model_age_seconds", "model_version", "gate_open"):
        assert world.metric(leader, of_the_model) is not None
        assert world.metric(standby, of_the_model) is None  # it has none: a 0 would pass for one
    leader.terminate()
    assert leader.wait(30) == 0
    clicks(world, 500, 300, rng)
    learned_once(world, 800)
    assert len({manifest["run_id"] for manifest in published(world)}) == 2


def test_a_port_that_was_chosen_and_is_taken_is_an_error_and_the_default_one_is_not(world: World) -> None:
    first = world.start("trainer", **SETTINGS)
    until(lambda: world.health(first)[0], 60, "the first one serves")
    port = world.port(first)
    refused = world.run("trainer", TIDEMILL_METRICS_PORT=port)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1] == (
        f"tidemill: [Errno 98] cannot serve metrics at 127.0.0.1:{port}: Address already in use"
    )
    assert "Traceback" not in refused.stderr

    both = [world.start_as_it_is("trainer", **SETTINGS) for _ in range(2)]

    def serving() -> set[str]:
        return set(re.findall(r"metrics and health at http://127.0.0.1:(\d+)/metrics", world.log("trainer"))) - {port}

    until(lambda: len(serving()) == 2, 60, "each has found a port")
    assert all(int(each) >= 9401 for each in serving())
    assert [process.poll() for process in both] == [None, None]
