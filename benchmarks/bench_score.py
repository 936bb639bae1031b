"""How fast are lists, stage by stage, on one core, and how does that grow with the catalogue?

    candidates (looks and their union) → features → scores → order → ids → JSON

The limits aimed at: of candidates and features the reading of some forty neighbour rows (768 bytes each) and a few
numbers of each candidate, at the machine's rate for random lines of memory; of scores the product's rate.
"""

import argparse
import platform
import time

import numpy as np
import torch

from benchmarks.synthetic_models import histories_of, learned
from consumers.times import iso, now_ms
from service.model import order
from service.model.channels.neighbours import Neighbours
from service.model.query import NOT_KNOWN
from service.model.reranking import Kept
from service.scoring.recommendations import list_json
from service.scoring.top_k import Ask, ScoredItems, best_items

USERS, K, KEEP = 1_920, 50, 80
GROUP = 64


class Stages:
    """Seconds of processor time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._at = time.process_time()

    def end(self, stage: str) -> None:
        now = time.process_time()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._at
        self._at = now


def random_lines(megabytes: int = 256, lines: int = 2_000_000) -> float:
    """Lines of 64 bytes a second that one core reads at random places."""
    table = np.ones((megabytes << 14, 8))
    at = np.random.default_rng(0).integers(len(table), size=lines)
    began = time.process_time()
    table[at, 0].sum()
    return lines / (time.process_time() - began)


def measure(items: int) -> tuple[float, float]:
    """Prints the stages; returns microseconds a list, and a list made again."""
    model = learned(items).recommender
    assert model.reranking is not None
    reranking, rng = model.reranking, np.random.default_rng(1)
    histories = histories_of(items, USERS, rng).astype(np.int64)
    ids = model.ids
    asked = [Ask([ids[row] for row in history], NOT_KNOWN) for history in histories]
    for warm in (True, False):
        stages, pairs_made = Stages(), 0
        for begin in range(0, USERS if not warm else 4 * GROUP, GROUP):
            query = model.query(histories[begin : begin + GROUP])
            looks = [channel.look(query) for channel in model.channels]
            pairs = reranking._union.of(query, looks)
            stages.end("candidates")
            x = reranking.features.of(query, looks, pairs)
            stages.end("features")
            scores = reranking.scores(x)
            stages.end("scores")
            order.best(pairs, scores, K)
            stages.end("order")
            pairs_made += len(pairs.rows)
    began = time.process_time()
    kept: list[Kept | None] = []
    ranked: list[ScoredItems] = []
    for begin in range(0, USERS, GROUP):
        best, some = best_items(model, asked[begin : begin + GROUP], K, keep=KEEP)
        kept += some
        ranked += best
    whole = time.process_time() - began
    again = 0.0
    for _ in range(2):  # what is popular joins the kept candidates the first time
        rested = [Ask(ask.history, ask.last, kept=each) for ask, each in zip(asked, kept, strict=True)]
        kept, began = [], time.process_time()
        for begin in range(0, USERS, GROUP):
            kept += best_items(model, rested[begin : begin + GROUP], K)[1]
        again = time.process_time() - began
    began = time.process_time()
    for items_of_user in ranked:
        list_json("u", items_of_user, model_version=1, trained_through={}, events_seen=9, generated_at=iso(now_ms()))
    json = time.process_time() - began
    of_list = {name: 1e6 * seconds / USERS for name, seconds in stages.seconds.items()}
    total, flops = sum(of_list.values()), 2 * sum(w.numel() for w in reranking.ranker.weights.views.values())
    (neighbours,) = [channel for channel in model.channels if isinstance(channel, Neighbours)]
    rows = neighbours.neighbour_rows.place.array[:items, 2].mean()
    print(
        f"{items:9,d} items, {rows:4.1f} slots each, {pairs_made / USERS:4.0f} candidates: "
        + ", ".join(f"{name} {us:5.1f} us" for name, us in of_list.items())
        + f"; list {total:6.1f} us = {1e6 / total:7,.0f}/s; with ids {1e6 * whole / USERS:6.1f} us, "
        f"JSON {1e6 * json / USERS:4.1f} us; again from kept candidates {1e6 * again / USERS:5.1f} us; "
        f"scores at {flops * pairs_made / stages.seconds['scores'] / 1e9:4.1f} GFLOP/s"
    )
    return total, 1e6 * again / USERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 40_000, 1_000_000])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    a, b = torch.randn(8192, 64), torch.randn(64, 64)
    a @ b
    began = time.process_time()
    for _ in range(20):
        a @ b
    rate = 20 * 2 * 8192 * 64 * 64 / (time.process_time() - began) / 1e9
    print(
        f"{platform.machine()}, one core: a product of that shape {rate:.0f} GFLOP/s, "
        f"{random_lines() / 1e6:.0f} million random lines/s"
    )
    found = [measure(items) for items in arguments.items]
    for items, (total, _) in zip(arguments.items, found, strict=True):
        print(f"{items:9,d} items: {total / found[0][0]:.2f} of the time with {arguments.items[0]:,}")


if __name__ == "__main__":
    main()
