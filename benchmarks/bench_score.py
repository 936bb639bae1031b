"""How fast are lists? Top-k of users touched together, and the JSON of their lists, on one core.

The limit aimed at is the matrix product of 64 users with all items; the rest is passes over the scores.
"""

import platform
import time
from collections.abc import Callable

import numpy as np
import torch

from consumers.times import iso, now_ms
from model_store.weights import Update
from service.model.channels.network import NetworkConfig
from service.model.recommender import Recommender
from service.model.registry import NEW_MODEL
from service.scoring.recommendations import list_json
from service.scoring.top_k import best_items
from service.training.learner import Learner
from tests.service.training.streams import micro_batch, random_events

USERS = 64
K = 50
CONFIG, DIM = NEW_MODEL, NetworkConfig().dim


def model(items: int) -> Update:
    """A learned model's shape with `items` random rows."""
    learner = Learner(CONFIG, evaluate_sample=0)
    learner.learn(micro_batch(random_events(400, 0)))
    full = learner.snapshot()
    rng = np.random.default_rng(0)
    values: dict[str, object] = {
        "item/id": [f"i{n}" for n in range(items)],
        "item/row": rng.normal(size=(items, DIM)).astype(np.float32),
        "item/popularity": np.log(rng.pareto(1.0, (items, 2)) + 0.1),
        "item/listable": np.ones(items, np.uint8),
    }
    index = np.arange(items, dtype=np.int64)
    tables = {name: type(rows)(index, values[name], items) for name, rows in full.tables.items() if name in values}  # type: ignore[arg-type]
    return Update(True, tables, full.tensors)


def _milliseconds(work: Callable[[], object], repeats: int = 20) -> float:
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times))


def main() -> None:
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {platform.processor() or 'unknown processor'}, one core; {USERS} users, {K} best")
    rng = np.random.default_rng(1)
    through = {"events": dict.fromkeys("0123", 12345)}
    for items in (1_000, 12_600, 43_000):
        recommender = Recommender(CONFIG)
        recommender.apply(model(items))
        histories = [[f"i{n}" for n in rng.integers(0, items, rng.integers(1, 20))] for _ in range(USERS)]
        ranked = best_items(recommender, histories, K)
        unit, users = torch.randn(items, 64), torch.randn(USERS, 64)
        product = _milliseconds(lambda unit=unit, users=users: users @ unit.T)  # type: ignore[misc]
        score = _milliseconds(lambda r=recommender, h=histories: best_items(r, h, K))  # type: ignore[misc]
        json = _milliseconds(
            lambda ranked=ranked: [  # type: ignore[misc]
                list_json(
                    "u", best, model_version=1, trained_through=through, events_seen=9, generated_at=iso(now_ms())
                )
                for best in ranked
            ]
        )
        print(
            f"{items:6d} items: rank {score:6.2f} ms ({score / product:4.1f} times the bare product), "
            f"JSON {json:5.2f} ms: {USERS / (score + json) * 1e3:7.0f} lists/s"
        )


if __name__ == "__main__":
    main()
