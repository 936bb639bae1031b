"""The proof of a version: it is made again from an earlier one, or from nothing, and the events; and bits compared."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from consumers.micro_batch import MicroBatch
from model_store.chain import ancestors, load
from model_store.store import ModelStore
from model_store.version import BatchRecord, Manifest
from model_store.weights import TRAINER, Array, State, Update
from service.process import Fatal
from service.training.configuration import config_of
from service.training.learner import Learner
from service.training.progress import Progress
from service.training.rebuild import ReadBatch, rebuild, resets


@dataclass(frozen=True, slots=True)
class Plan:
    """From `base` (None: from nothing) over `manifests`, the last of which is the version in question."""

    base: Manifest | None
    manifests: list[Manifest]

    @property
    def version(self) -> Manifest:
        return self.manifests[-1]

    @property
    def batches(self) -> int:
        return sum(len(manifest.batches) for manifest in self.manifests)


@dataclass(frozen=True, slots=True)
class Proof:
    difference: str | None  # the first there is, in words; None: every bit is the same
    departs_at: int | None  # the first version on the way whose weights came out different
    events: int  # learned again
    tables: int  # compared, and tensors
    values: int  # in them


def plan(store: ModelStore, version: int, start: int | None = None) -> Plan:
    """How to make a version again: from the nearest snapshot before it that leaves something to learn, or from nothing.

    start: the version to begin with instead, 0 for nothing.

    Raises: Fatal where the record does not reach that far; DamagedManifest, NoSuchVersion.
    """
    store.manifest(version)
    manifests: list[Manifest] = []
    for manifest in ancestors(store, version):
        if manifests and _may_begin_with(store, manifest, manifests, start):
            return Plan(manifest, manifests[::-1])
        manifests.append(manifest)
    if manifests[-1].parent is None and start in (None, 0):
        return Plan(None, manifests[::-1])
    if start is not None:
        raise Fatal(f"version {version} cannot be made again from {start}: that is no checkpoint on the way to it")
    raise Fatal(
        f"version {version} cannot be made again: versions before {manifests[-1].version} were retired, "
        "and no snapshot before it is left to begin with"
    )


def _may_begin_with(store: ModelStore, base: Manifest, since: list[Manifest], start: int | None) -> bool:
    if start is not None:
        return base.version == start and base.checkpoint and store.manifest_bytes([start]) != [None]
    if base.kind != "snapshot" or not any(manifest.batches for manifest in since):
        return False
    if store.manifest_bytes([base.version]) == [None]:
        return False
    within = {manifest.version for manifest in since}
    elsewhere = [target for target in resets(since) if target not in within]
    return all(data is not None for data in store.manifest_bytes(elsewhere))


def verify(
    store: ModelStore,
    plan: Plan,
    read: ReadBatch,
    device: str,
    *,
    prepare: Callable[[Manifest], None] = lambda manifest: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proof:
    """Learns what the plan says and compares. `progress` is told (batches done, batches in all).

    Raises: Fatal, Damaged (what is stored cannot be read), EventsGone, NoAnswer.
    """
    if plan.base is None:
        learner, made = Learner(config_of(plan.version.config, device)[0]), Progress()
    else:
        config, _ = config_of(plan.base.config, device)
        learner, made = Learner.restore(config, load(store, plan.base.version)), Progress.of(plan.base)
    learner.evaluate_sample = 0  # nothing is measured, and nothing learned depends on it
    before, departs_at, done = made.events_trained, None, 0

    def counted(batch: BatchRecord) -> MicroBatch:
        nonlocal done
        done += 1
        progress(done, plan.batches)
        return read(batch)

    for step in rebuild(learner, made, plan.manifests, counted, lambda n: load(store, n), prepare=prepare):
        if step.same is False and departs_at is None:
            departs_at = step.manifest.version
    version = plan.version
    published = load(store, version.version).snapshot(None if version.checkpoint else _for_readers)
    again = State()
    again.apply(learner.snapshot())
    difference = first_difference(published, again)
    if difference is None and made.events_trained != version.events_trained:
        difference = f"it says that {version.events_trained} events were learned, and there are {made.events_trained}"
    values = [rows.values for rows in published.tables.values()]
    return Proof(
        difference=difference,
        departs_at=departs_at,
        events=made.events_trained - before,
        tables=len(published.tables) + len(published.tensors),
        values=sum(v.size if isinstance(v, np.ndarray) else len(v) for v in [*values, *published.tensors.values()]),
    )


def first_difference(published: Update, again: State) -> str | None:
    """Where a full update and a state differ first, by table and row, in words; None where every bit is the same."""
    if extra := again.tables.keys() - published.tables.keys() - {n for n in again.tables if n.startswith(TRAINER)}:
        return f"{min(extra)}: the events make this table, and it was not published"
    for name, rows in sorted(published.tables.items()):
        if name not in again.tables:
            return f"{name}: published, and the events make no such table"
        made = again.table(name)
        if len(made) != rows.size:
            return f"{name}: {rows.size} rows were published, the events make {len(made)}"
        if (row := _first_row(rows.values, made)) is not None:
            item = f" ({again.table('item/id')[row]!r})" if name.startswith("item/") else ""
            return f"{name} row {row}{item}: {_shown(rows.values[row], made[row])}"
    for name, tensor in sorted(published.tensors.items()):
        if name not in again.tensors:
            return f"{name}: published, and the events make no such tensor"
        if tensor.tobytes() != (other := again.tensor(name)).tobytes() or tensor.shape != other.shape:
            return f"{name}: {_shown(tensor, other)}"
    return None


def _first_row(published: "Array | list[str]", made: "Array | list[str]") -> int | None:
    """The first of equally many rows that differ in a bit."""
    if isinstance(published, list) or isinstance(made, list):
        return next((row for row, (a, b) in enumerate(zip(published, made, strict=True)) if a != b), None)
    if published.dtype != made.dtype or published.shape != made.shape:
        return 0
    if not published.size:
        return None
    n = len(published)
    left, right = (np.ascontiguousarray(each).reshape(n, -1).view(np.uint8) for each in (published, made))  # [n, bytes]
    differs = np.flatnonzero((left != right).any(1))
    return int(differs[0]) if len(differs) else None


def _shown(published: object, made: object) -> str:
    """Both values; of an array the first entry that differs."""
    if not isinstance(published, np.ndarray) or not isinstance(made, np.ndarray):
        return f"{published!r} was published, the events make {made!r}"
    if published.dtype != made.dtype or published.shape != made.shape:
        return f"{published.dtype}{list(published.shape)} was published, the events make {made.dtype}{list(made.shape)}"
    left, right = (each.reshape(-1).view(f"u{each.itemsize}") for each in map(np.ascontiguousarray, (published, made)))
    at = int(np.flatnonzero(left != right)[0])
    where = "" if published.size == 1 else f" at [{', '.join(map(str, np.unravel_index(at, published.shape)))}]"
    return f"{published.reshape(-1)[at]!r} was published{where}, the events make {made.reshape(-1)[at]!r}"


def _for_readers(name: str) -> bool:
    return not name.startswith(TRAINER)
