"""How many events a second one core learns from, part by part, and how close that is to what the core can do.

The stream is synthetic: 3,000 users, 20,000 items, popular ones more often, every history full, which is the dearest
case. The parts: taking in (rows, duplicates, histories), ranking what teaches, the ranker's steps, counting. The
limits: counting is a matter of memory, since each event touches twenty slots at random places, and the ranker's steps
are one of products.
"""

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from consumers.micro_batch import MicroBatch
from service.model.registry import NETWORK, NEW_MODEL
from service.training.effort import FULL, Effort, affordable
from service.training.learner import Learner

USERS, ITEMS = 3_000, 20_000


def batch_of(n: int, number: int, rng: np.random.Generator) -> MicroBatch:
    users, user = np.unique(rng.integers(USERS, size=n), return_inverse=True)
    items, item = np.unique((ITEMS * rng.random(n) ** 2).astype(int), return_inverse=True)
    return MicroBatch(
        users=tuple(f"u{u}" for u in users),
        items=tuple(f"i{i}" for i in items),
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        type=np.ones(n, np.int16),
        ts=np.zeros(n, np.int64),
        value=np.full(n, np.nan),
        event_key=np.arange(1 + number * n, 1 + (number + 1) * n),
        kafka_ts=np.zeros(n, np.int64),
        catalogue=(),
        ranges=(),
    )


class Parts:
    """Processor seconds spent in methods, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, owner: Any, method: str, name: str) -> None:
        action: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return action(*arguments, **named)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began

        setattr(owner, method, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    a, b = torch.randn(4096, 64), torch.randn(64, 64)
    began = time.process_time()
    for _ in range(200):
        torch.mm(a, b)
    rate = 200 * 2 * 4096 * 64 * 64 / (time.process_time() - began) / 1e9
    print(
        f"{platform.machine()}, one core, torch {torch.__version__}: a product of the ranker's shape {rate:.0f} GFLOP/s"
    )
    network = replace(NEW_MODEL, channels={**NEW_MODEL.channels, "network": NETWORK})
    behind = affordable(100.0, 1)
    for what, config, size, effort in (
        ("every event teaches", NEW_MODEL, 1024, FULL),
        ("every event teaches", NEW_MODEL, 64, FULL),
        ("far behind", NEW_MODEL, 1024, behind),
        ("with the network", network, 1024, FULL),
        ("with the network, far behind", network, 1024, behind),
    ):
        measure(what, config, size, effort, arguments.steps)


def measure(what: str, config: Any, size: int, effort: Effort, steps: int) -> None:
    rng, learner, parts = np.random.default_rng(0), Learner(config), Parts()
    fill = 20 * 1024 // size
    for number in range(fill):
        learner.learn(batch_of(size, number, rng), affordable(100.0, 1))
    parts.watch(learner, "_take_in", "take in")
    parts.watch(learner, "_examine", "rank")
    parts.watch(learner, "_teach_ranker", "ranker")
    for channel in learner.channels:
        parts.watch(channel, "observe", "count")
        parts.watch(channel, "learn", "network")
    batches = [batch_of(size, fill + n, rng) for n in range(steps)]
    began = time.process_time()
    for batch in batches:
        learner.learn(batch, effort)
    whole = time.process_time() - began
    n = size * steps
    learner.drain()
    learner.learn(batch_of(size, 10**6, rng), effort)
    update = learner.drain()
    for_readers = sum(
        rows.values.nbytes + rows.index.nbytes
        for name, rows in update.tables.items()
        if not name.startswith("trainer/") and not isinstance(rows.values, list)
    )
    print(
        f"{what}, batches of {size}: {n / whole:,.0f} events/s; us an event: "
        + ", ".join(f"{name} {1e6 * seconds / n:.1f}" for name, seconds in parts.seconds.items())
        + f", all {1e6 * whole / n:.1f}; {for_readers / size:,.0f} bytes an event for readers"
    )


if __name__ == "__main__":
    main()
