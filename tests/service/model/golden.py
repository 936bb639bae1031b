"""A short run of a trainer as a file: manifests, blobs, and the events it learned from.

`python -m tests.service.model.golden NAME` writes tests/golden/models/NAME.json.gz in the form of this release.
"""

import base64
import dataclasses
import gzip
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from consumers.micro_batch import MicroBatch
from consumers.records import OffsetRange
from model_store.memory_store import MemoryStore
from model_store.version import Manifest
from service.training.restart.rebuild import OpenReader
from tests.service.model.configs import ranked
from tests.service.training.runs import RULES, Run, batches, hold, manifests, remembered
from tests.service.training.streams import TYPES, micro_batch

GOLDEN = Path(__file__).parents[2] / "golden" / "models"


@dataclass(frozen=True)
class Model:
    manifests: list[Manifest]
    blobs: list[bytes]
    fed: list[MicroBatch]  # the last one was not learned
    arithmetic: str  # of the machine that learned it, see `arithmetic`

    @classmethod
    def read(cls, path: Path) -> "Model":
        said = json.loads(gzip.decompress(path.read_bytes()))
        return cls(
            manifests=[Manifest.from_json(json.dumps(each).encode()) for each in said["manifests"]],
            blobs=[base64.b64decode(data) for data in said["blobs"].values()],
            fed=[_batch(each) for each in said["fed"]],
            arithmetic=said["arithmetic"],
        )

    def store(self) -> MemoryStore:
        """With all of its versions in it, the newest one live."""
        store = MemoryStore()
        lease = hold(store)
        store.put_blobs({str(number): blob for number, blob in enumerate(self.blobs)})
        for manifest in self.manifests:
            store.publish(manifest, lease)
            store.move(manifest.version, "published", lease=lease)
        return store

    def log(self) -> OpenReader:
        """Kafka, for whoever learns again."""
        return remembered(*self.fed)


def _batch(said: dict[str, Any]) -> MicroBatch:
    events = list(zip(said["users"], said["items"], said["types"], strict=True))
    batch = micro_batch(events, keys=said["keys"])
    return dataclasses.replace(batch, ranges=(OffsetRange(*said["range"]),))


def _said(batch: MicroBatch) -> dict[str, Any]:
    return {
        "users": [batch.users[user] for user in batch.user],
        "items": [None if item < 0 else batch.items[item] for item in batch.item],
        "types": [TYPES[kind] for kind in batch.type],
        "keys": batch.event_key.tolist(),
        "range": list(batch.ranges[0]),
    }


def arithmetic() -> str:
    """A hash of sums like those of learning: they differ in their last bits from one kind of machine to another, also
    where both give the same name. What was learned can be compared bit for bit where it is the same."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    found = hashlib.sha256()
    for rows, inner, columns in ((20, 8, 16), (37, 16, 8), (300, 64, 1030), (15, 11, 45)):
        left, right = (
            torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in ((rows, inner), (inner, columns))
        )
        product = left @ right
        for each in (product, product.exp().sum(1).log(), product.T @ left, product.square().mean(1).sqrt()):
            found.update(np.ascontiguousarray(each.numpy()).tobytes())
    found.update((2.0 ** rng.normal(size=100)).tobytes() + np.logaddexp(*rng.normal(size=(2, 100))).tobytes())
    return found.hexdigest()


def write(path: Path, fed: Sequence[MicroBatch]) -> None:
    """Two lives of a trainer: all batches but the last one."""
    store, rules = MemoryStore(), dataclasses.replace(RULES, chain_limit=3)
    config = ranked(
        network=True, negatives=16, dislikes=1.0, replay_capacity=60, replay_recent=20, max_items=45, max_users=30
    )
    Run(store, rules=rules, config=config).go(fed[:5])
    Run(store, rules=rules, config=config, replay=2).go(fed[5:7])
    made = manifests(store)
    refs = {ref.checksum: ref for manifest in made for ref in manifest.blobs.values()}
    said = {
        "manifests": [json.loads(manifest.to_json()) for manifest in made],
        "blobs": {sha: base64.b64encode(store.get_blobs([ref])[0] or b"").decode() for sha, ref in refs.items()},
        "fed": [_said(batch) for batch in fed],
        "arithmetic": arithmetic(),
    }
    path.write_bytes(gzip.compress(json.dumps(said, sort_keys=True).encode(), 9, mtime=0))


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
    write(GOLDEN / f"{sys.argv[1]}.json.gz", batches(8))
