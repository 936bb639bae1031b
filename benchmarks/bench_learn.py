"""How many events a second one core learns from, and how close that is to what the core can do.

The stream is synthetic: 3,000 users, 20,000 items, popular ones more often, every history full (20 items), which is the
dearest case. The machine's limits are measured beside it: a product of the softmax's shape, and a copy.
"""

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from consumers.micro_batch import MicroBatch
from service.model.channels.network import NetworkConfig
from service.model.registry import NEW_MODEL
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


def seconds(action: Callable[[], Any], times: int = 20) -> float:
    """The shortest of several runs: what the core can do when nothing else has it."""
    action()
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - began)
    return best


def flops_of_step(config: NetworkConfig, contexts: int) -> float:
    """Of the products alone: logits and their two gradients, the dense layers and theirs."""
    softmax = 3 * 2 * contexts * config.negatives * config.dim
    layers = 3 * 2 * contexts * config.hidden * 3 * config.dim
    return float(softmax + layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    a, b = torch.randn(256, 64), torch.randn(64, 1024)
    out = torch.empty(256, 1024)
    peak = 2 * 256 * 64 * 1024 / seconds(lambda: torch.mm(a, b, out=out), 200)
    large = torch.randn(16 << 20)
    other = torch.empty_like(large)
    bandwidth = 2 * large.numel() * 4 / seconds(lambda: other.copy_(large))
    print(f"machine: {platform.processor() or platform.machine()}, one thread, torch {torch.__version__}")
    print(f"  a product of the softmax's shape: {peak / 1e9:.0f} GFLOP/s; a copy: {bandwidth / 1e9:.1f} GB/s")
    config = NEW_MODEL
    for size, replay in ((1024, 2), (1024, 1), (1024, 0), (256, 1)):
        rng = np.random.default_rng(0)
        learner = Learner(config)
        fill = 80 * 1024 // size
        for number in range(fill):
            learner.learn(batch_of(size, number, rng), 0)
        batches = [batch_of(size, fill + n, rng) for n in range(arguments.steps + 3)]
        walls, cpus, contexts = [], [], 0
        for n, batch in enumerate(batches):
            wall, cpu = time.perf_counter(), time.process_time()
            result = learner.learn(batch, replay)
            if n >= 3:
                walls.append(time.perf_counter() - wall)
                cpus.append(time.process_time() - cpu)
                contexts = result.taught.fresh + result.taught.replayed
        wall_s, cpu_s = float(np.median(walls)), float(np.median(cpus))
        flops = flops_of_step(NetworkConfig(), contexts)
        print(
            f"batches of {size}, replay {replay}: {size / wall_s:,.0f} events/s ({size / cpu_s:,.0f} a CPU second), "
            f"{wall_s * 1e3:.1f} ms a step, products {flops / wall_s / 1e9:.0f} GFLOP/s = {flops / wall_s / peak:.0%}"
        )
    learner.drain()
    learner.learn(batch_of(256, 10**6, rng), 2)
    began = time.perf_counter()
    update = learner.drain()
    cost = time.perf_counter() - began
    size = sum(rows.values.nbytes for rows in update.tables.values() if not isinstance(rows.values, list))
    print(f"drain after 256 events: {cost * 1e3:.1f} ms, {size / 1e6:.2f} MB")
    histories = rng.integers(0, learner.recommender.size, (64, 20))
    model = learner.recommender
    print(f"top 50 of {model.size:,} items for 64 users: {seconds(lambda: model.top_k(histories, 50)) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
