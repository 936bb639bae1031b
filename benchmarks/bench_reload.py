"""What does reloading cost who scores meanwhile? p99 of scoring a group of users, with a reloader at work and without.

Both in one process, as in a scorer, in turns of some seconds; what is told is the median over the turns of the quotient
of two neighbours, since a shared machine is another one each turn. A delta has 10,000 rows; one comes every 200 ms.
"""

import argparse
import platform
import time
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.bench_score import K
from benchmarks.synthetic_models import learned
from model_store.codec import encode
from model_store.memory_store import MemoryStore
from model_store.version import BatchRecord, BlobRef, KafkaIds, Manifest, timestamp
from model_store.weights import Rows, Update
from service.health import Health
from service.metrics import ScorerMetrics
from service.model.query import NOT_KNOWN
from service.scoring.reloader import Reloader
from service.scoring.top_k import Ask, best_items

TOUCHED = 10_000
EVERY_S = 0.2
DELTAS = 8  # different ones, which come round and round


class World:
    """A store with a snapshot and `versions` deltas, and a reader that follows the pointer."""

    def __init__(self, items: int, versions: int) -> None:
        self.store = MemoryStore()
        lease = self.store.acquire("trainer", 1e9)
        assert lease is not None
        self._lease = lease
        learner = learned(items)
        full, self._config = learner.snapshot(), learner.config.to_json()
        logarithms = learner.recommender.traits.logarithms
        rng = np.random.default_rng(2)
        self._publish(1, full, self.store.put_blobs(encode(full, logarithms=logarithms)))
        deltas = [_delta(full, np.sort(rng.choice(items, TOUCHED, replace=False)), rng) for _ in range(DELTAS)]
        refs = [self.store.put_blobs(encode(delta, logarithms=logarithms)) for delta in deltas]
        for version in range(2, versions + 2):
            self._publish(version, deltas[version % DELTAS], refs[version % DELTAS])
        self.version, self.last = 0, versions + 1
        self.metrics = ScorerMetrics()
        self.reloader = Reloader(self.store, poll_s=0.02, device="cpu", metrics=self.metrics, health=Health("bench"))
        self.reloader.start()

    def _publish(self, version: int, update: Update, refs: dict[str, BlobRef]) -> None:
        self.store.publish(
            Manifest(
                version=version,
                parent=version - 1 or None,
                kind="snapshot" if update.full else "delta",
                created_at=timestamp(time.time()),
                run_id="bench",
                kafka=KafkaIds(cluster_id="bench"),
                trained_through={"events": {"0": version}},
                events_trained=version,
                batches=(BatchRecord(ranges=(("events", 0, version - 1, version),)),),
                config=self._config,
                config_digest="bench",
                blobs=refs,
            ),
            self._lease,
        )

    def step(self) -> None:
        """One version more goes live."""
        self.version += 1
        self.store.move(self.version, "bench", lease=self._lease)

    def settle(self) -> None:
        """Until the reader has followed."""
        while self.reloader.served is None or self.reloader.served.version != self.version:
            time.sleep(0.01)
        time.sleep(0.05)

    def turn(self, seconds: float, histories: Sequence[Sequence[str]], *, reloading: bool) -> list[float]:
        """Milliseconds of each group scored in a turn."""
        self.settle()
        took = []
        now = time.perf_counter()
        end, due = now + seconds, now
        while now < end:
            if reloading and now >= due and self.version < self.last:
                self.step()
                due += EVERY_S
                now = time.perf_counter()
            served = self.reloader.served
            assert served is not None
            with served.lock:
                best_items(served.recommender, [Ask(history, NOT_KNOWN) for history in histories], K)
            after = time.perf_counter()
            took.append(1e3 * (after - now))
            now = after
        return took


def _delta(full: Update, rows: "np.ndarray[tuple[int], np.dtype[np.int64]]", rng: np.random.Generator) -> Update:
    """What events on so many items change: counts, what their neighbour rows received, and a slot of each row."""
    slots = np.unique(np.asarray(full.tables["neighbours/place"].values)[rows, 0].astype(np.int64))
    tables = {}
    for name, index in (
        ("item/popularity", rows), ("item/events", rows), ("neighbours/mass", rows), ("neighbours/weight", slots)
    ):  # fmt: skip
        values = np.asarray(full.tables[name].values)[index]
        values = values * (1 + 0.01 * rng.random(values.shape)).astype(values.dtype)
        tables[name] = Rows(index, values, full.tables[name].size)
    small = ("ranker/", "stream/", "clock")
    tensors = {name: tensor for name, tensor in full.tensors.items() if name.startswith(small)}
    return Update(False, tables, tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", type=int, help="items of the model: one size alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, one thread to score; deltas of {TOUCHED} rows, one each {1e3 * EVERY_S:.0f} ms")
    for items, users in ((100_000, 64), (1_000_000, 4)):
        if args.only not in (None, items):
            continue
        rng = np.random.default_rng(1)
        histories = [[f"i{n}" for n in rng.integers(0, items, rng.integers(1, 20))] for _ in range(users)]
        world = World(items, int(args.turns * (args.seconds / EVERY_S + 1)) + 10)
        world.step()
        for reloading in (True, False):  # to warm up
            world.turn(1.0, histories, reloading=reloading)
        pairs = []
        for turn in range(args.turns):
            order = (True, False) if turn % 2 else (False, True)
            took = {reloading: world.turn(args.seconds, histories, reloading=reloading) for reloading in order}
            pairs.append([[float(np.percentile(took[r], p)) for r in (False, True)] for p in (50, 99)])
        world.reloader.stop()
        table = np.array(pairs)  # [turns, (p50, p99), (without, with)]
        quotient = np.median(table[:, :, 1] / table[:, :, 0], axis=0)
        without, reloads = np.median(table, axis=0).T
        low, high = np.percentile(table[:, 1, 1] / table[:, 1, 0], (25, 75))
        registry = world.metrics.registry
        count = registry.get_sample_value("tidemill_reload_seconds_count") or 1
        reload_s = (registry.get_sample_value("tidemill_reload_seconds_sum") or 0) / count
        print(
            f"{items:8d} items, {users:2d} users: without p50 {without[0]:6.2f} p99 {without[1]:6.2f} ms, "
            f"reloading p50 {reloads[0]:6.2f} p99 {reloads[1]:6.2f} ms; p50 x {quotient[0]:.2f}, "
            f"p99 x {quotient[1]:.2f} (quartiles {low:.2f}, {high:.2f}); "
            f"{count:.0f} reloads of {1e3 * reload_s:.1f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
