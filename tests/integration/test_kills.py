"""Killed at any hop, a trainer ends with the versions that one makes that nobody kills, bit for bit.

`TIDEMILL_TEST_KILLS=full pytest -s tests/integration/test_kills.py` kills at each hop with ten seeds, and 50 times at
random moments.
"""

import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from multiprocessing import get_context
from pathlib import Path

import pytest

from service.local import embedded_kafka, embedded_redis
from tests.faults.kill_points import FEEDER_HOPS, TRAINER_HOPS, order
from tests.faults.reference import fingerprints
from tests.faults.stream import Stream, Traffic, stream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FULL = os.environ.get("TIDEMILL_TEST_KILLS") == "full"
SEEDS = range(10 if FULL else 1)
RANDOM_KILLS = 50 if FULL else 8

BATCH = 100
BATCHES = 20  # and two more when somebody has been killed
QUICK_VERSIONS = {"TIDEMILL_PUBLISH_INTERVAL_MS": "0", "TIDEMILL_CHAIN_LIMIT": "3"}  # many, and many snapshots
# Cut by size alone, so that a batch is the same whatever came between. Replay depends on the load and the gate on when
# versions are published: both are in the manifests, and here they are off.
BY_SIZE = QUICK_VERSIONS | {
    "TIDEMILL_BATCH_EVENTS": str(BATCH),
    "TIDEMILL_BATCH_WAIT_MS": "60000",
    "TIDEMILL_REPLAY": "0",
    "TIDEMILL_ADAPT": "false",  # else what is learned depends on the load
    "TIDEMILL_GATE": "0",
}
PASSAGES = {"before the commit to Kafka": 2, "during a checkpoint": 3}  # at most; elsewhere 6


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, str]]:
    with embedded_kafka() as bootstrap, embedded_redis() as url:
        yield bootstrap, url


@pytest.fixture(scope="module")
def unkilled() -> Iterator[ProcessPoolExecutor]:
    """Where the reference is made: arithmetic is set up in it as in a trainer."""
    with ProcessPoolExecutor(1, get_context("forkserver")) as pool:
        yield pool


def by_size(servers: tuple[str, str], directory: Path, seed: int, **settings: str) -> AbstractContextManager[Stream]:
    name = f"size-{seed}-{time.monotonic_ns()}"
    return stream(servers, directory, name, partition=0, TIDEMILL_SEED=str(seed), **BY_SIZE | settings)


def check_versions(made: Stream, seed: int, pool: ProcessPoolExecutor) -> tuple[str, int]:
    """Every version is, bit for bit, what one learner that nobody kills makes of the same batches.

    Returns the last fingerprint and how many versions there were.
    """
    expected = pool.submit(fingerprints, made.topic, made.sent, seed, BATCH).result()
    found = made.fingerprints()
    assert found.keys() <= expected.keys()
    assert {at: {expected[at]} for at in found} == found
    assert max(found)[0] == len(made.sent) == max(expected)[0]
    assert len(set(expected.values())) == len(expected)  # no two alike: equal means something
    return expected[len(made.sent), True], len(made.manifests())


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_killed(servers: tuple[str, str], unkilled: ProcessPoolExecutor, tmp_path: Path, seed: int) -> None:
    traffic = Traffic(seed)
    with by_size(servers, tmp_path, seed) as whole:
        trainer = whole.start()
        for _ in range(BATCHES + 2):
            whole.send(traffic.take(BATCH))
        whole.finish(trainer)
        last, versions = check_versions(whole, seed, unkilled)
        assert whole.manifests()[-1].events_trained == traffic.events - traffic.duplicates
    print(f"\nnobody killed, seed {seed}: {versions} versions, {last[:16]}")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("hop", [*FEEDER_HOPS, *TRAINER_HOPS])
def test_killed_at_a_hop(
    servers: tuple[str, str], unkilled: ProcessPoolExecutor, tmp_path: Path, hop: str, seed: int
) -> None:
    passage = random.Random(seed).randint(2, PASSAGES.get(hop, 6))
    mark = tmp_path / "killed"
    traffic = Traffic(seed)
    with by_size(servers, tmp_path, seed) as killed:
        trainer = killed.start(**order(hop, passage, mark))
        for _ in range(BATCHES):
            killed.send(traffic.take(BATCH))
            time.sleep(0.02)
        killed.feed_until(mark.exists, 30, lambda: traffic.take(BATCH))
        if hop in TRAINER_HOPS or hop.endswith("with the trainer"):
            killed.wait_killed(trainer, 10)
            trainer = killed.start()
        killed.send(traffic.take(2 * BATCH))
        killed.finish(trainer)
        last, versions = check_versions(killed, seed, unkilled)
        assert killed.manifests()[-1].events_trained == traffic.events - traffic.duplicates
    print(f"\n{hop}, passage {passage}, seed {seed}: {versions} versions, {last[:16]}")


@pytest.mark.parametrize("checkpoint_interval_s", ["0", "1.5"])
def test_killed_at_random(
    servers: tuple[str, str], unkilled: ProcessPoolExecutor, tmp_path: Path, checkpoint_interval_s: str
) -> None:
    """Many a trainer dies before it has learned anything, others amid it, some with nothing left to do.

    Where not every version is a checkpoint, what was published since the last one is learned again.
    """
    rng, traffic = random.Random(1), Traffic(1)
    settings = {"TIDEMILL_CHECKPOINT_INTERVAL_S": checkpoint_interval_s}
    if checkpoint_interval_s != "0":
        settings["TIDEMILL_CHAIN_LIMIT"] = "1000"  # a snapshot is a checkpoint
    with by_size(servers, tmp_path, 1, **settings) as killed, by_size(servers, tmp_path, 1) as whole:
        for _ in range(RANDOM_KILLS):
            trainer = killed.start()
            until = time.monotonic() + rng.uniform(0.0, 4.0)
            killed.send(traffic.take(BATCH))
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(left, 0.1))
                killed.send(traffic.take(20))
            killed.kill(trainer)
        trainer = killed.start()
        killed.send(traffic.take(2 * BATCH - traffic.events % BATCH))
        killed.finish(trainer)
        last, versions = check_versions(killed, 1, unkilled)
        manifests = killed.manifests()
        runs = {manifest.run_id for manifest in manifests}

        trainer = whole.start()
        whole.send(killed.sent)
        whole.finish(trainer)
        assert whole.fingerprints()[len(whole.sent), True] == {last}
    checkpoints = sum(manifest.checkpoint for manifest in manifests)
    assert (checkpoints == len(manifests)) == (checkpoint_interval_s == "0")
    print(
        f"\n{RANDOM_KILLS} random kills, {traffic.events} events: {versions} versions of {len(runs)} runs, "
        f"{checkpoints} of them checkpoints, {last[:16]}"
    )


def test_killed_at_random_while_time_cuts_the_batches(servers: tuple[str, str], tmp_path: Path) -> None:
    """Four partitions: events trained = offsets advanced - rejects - duplicates, over all runs together."""
    rng, traffic = random.Random(2), Traffic(2)
    name = f"time-{time.monotonic_ns()}"
    with stream(servers, tmp_path, name, partition=-1, TIDEMILL_BATCH_WAIT_MS="20", **QUICK_VERSIONS) as killed:
        for _ in range(RANDOM_KILLS):
            trainer = killed.start()
            until = time.monotonic() + rng.uniform(0.0, 4.0)
            while (left := until - time.monotonic()) > 0:
                killed.send(traffic.take(rng.randrange(20)))
                time.sleep(min(left, 0.05))
            killed.kill(trainer)
        trainer = killed.start()
        killed.send(traffic.take(100))
        killed.finish(trainer)
        manifests = killed.manifests()
    learned: dict[str, int] = {}
    for manifest in manifests:
        for topic, partition, start, end in (each for batch in manifest.batches for each in batch.ranges):
            assert topic == killed.topic
            assert start == learned.get(str(partition), 0)  # nothing twice, nothing left out
            learned[str(partition)] = end
        assert manifest.trained_through.get(killed.topic, {}) == learned
    assert learned == killed.ends
    offsets, last = sum(learned.values()), manifests[-1]
    assert offsets == len(killed.sent)
    assert last.events_trained == offsets - traffic.rejects - traffic.duplicates
    runs = {manifest.run_id for manifest in manifests}
    print(
        f"\n{RANDOM_KILLS} random kills: {last.events_trained} events trained = {offsets} offsets - {traffic.rejects} "
        f"rejects - {traffic.duplicates} duplicates, {len(manifests)} versions of {len(runs)} runs"
    )
