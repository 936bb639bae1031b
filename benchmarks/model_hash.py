"""Do two commits make the same model? Hashes of all weights and lists after a fixed stream.

Run it in each of the two working trees, on one machine. A change that is meant to change nothing shows the same lines;
for one that changes something, the names of the tables that differ say where it begins. Micro-batches are cut by size,
so nothing depends on time.
"""

import argparse
import gzip
import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from consumers.batcher import MicroBatcher
from consumers.decode import DecodeRules, decode
from consumers.micro_batch import MicroBatch
from consumers.records import Record
from model_store.weights import Update
from service.model.config import Limits
from service.model.recommender import Recommender
from service.model.registry import NEW_MODEL
from service.training.effort import Effort
from service.training.learner import Learner

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "movietweetings.events.jsonl.gz"
BATCH, USERS, K = 256, 600, 50
NOW_MS = 1 << 42


def batches(path: Path, events: int) -> Iterator[MicroBatch]:
    rules = DecodeRules()
    batcher = MicroBatcher(BATCH, 0.0, list(rules.event_types), time.monotonic)
    with gzip.open(path) as file:
        lines = enumerate(islice(file, events))
        while part := list(islice(lines, 4096)):
            records = [Record("events", 0, n, -1, None, line.rstrip()) for n, line in part]
            yield from batcher.add(decode(records, rules, NOW_MS))
    if (last := batcher.flush()) is not None:
        yield last


def parts(full: Update) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, rows in full.tables.items():
        values = rows.values
        found[name] = "\0".join(values).encode() if isinstance(values, list) else np.ascontiguousarray(values).tobytes()
    return found | {name: np.ascontiguousarray(tensor).tobytes() for name, tensor in full.tensors.items()}


def lists(learner: Learner) -> bytes:
    """Of the first users, by a reader that has loaded the weights."""
    reader = Recommender(learner.config)
    reader.apply(learner.snapshot())
    users, length = learner.users, learner.users.length
    n = min(USERS, users.size)
    slots = (users.counts.array[:n, 1][:, None] + np.arange(length)) % length + np.arange(n)[:, None] * length
    rows, scores = reader.top_k(users.history.array[slots], K)
    trending, values = reader.top_k(np.array([[-1]]), K)
    return b"".join(array.tobytes() for array in (rows, scores, trending, values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=DATA)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--names", action="store_true", help="a hash of each table and tensor")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
    crowded = replace(NEW_MODEL, seed=5, limits=Limits(max_items=1_500, max_users=2_000))
    for what, config, share, replay in (("roomy", NEW_MODEL, 1.0, 1), ("crowded", crowded, 0.3, 2)):
        learner = Learner(config)
        for batch in batches(arguments.file, int(share * arguments.events)):
            learner.learn(batch, Effort(replay))
        weights, trainer = hashlib.sha256(), hashlib.sha256()
        for name, data in sorted(parts(learner.snapshot()).items()):
            (trainer if name.startswith("trainer/") else weights).update(name.encode() + data)
            if arguments.names:
                print(f"  {name} {hashlib.sha256(data).hexdigest()[:16]}")
        print(
            f"{what}: {learner.clock:,} events, weights {weights.hexdigest()[:16]}, "
            f"trainer's {trainer.hexdigest()[:16]}, lists {hashlib.sha256(lists(learner)).hexdigest()[:16]}"
        )


if __name__ == "__main__":
    main()
