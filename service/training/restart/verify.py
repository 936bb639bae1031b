"""Proves a version: makes it again from its events and an earlier version, or from nothing, and compares every bit."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from consumers.micro_batch import MicroBatch
from consumers.records import by_topic, from_topics
from model_store.chain import ancestors, load
from model_store.errors import BrokenChain
from model_store.store import ModelStore
from model_store.version import BatchRecord, Manifest
from model_store.weights import TRAINER, Array, State, Update
from service.model.config import ModelConfig
from service.model.formats import upgraded
from service.process import Fatal
from service.training.configuration import config_of, continued
from service.training.learner import Learner
from service.training.progress import Progress
from service.training.restart.rebuild import ReadBatch, rebuild, resets


@dataclass(frozen=True, slots=True)
class Route:
    """The versions to make again: `manifests`, beginning with the state of `base`; None: with nothing."""

    base: Manifest | None
    manifests: list[Manifest]

    @property
    def version(self) -> Manifest:
        """The version that is to be proved."""
        return self.manifests[-1]

    @property
    def batches(self) -> int:
        """How many micro-batches are to be learned."""
        return sum(len(manifest.batches) for manifest in self.manifests)


@dataclass(frozen=True, slots=True)
class Proof:
    """What `verify` found."""

    difference: str | None  # the first one, in words; None: every bit is the same
    departs_at: int | None  # the first version on the route whose weights came out different
    events: int  # learned again
    tables: int  # tables and tensors compared
    values: int  # values compared


def route_to(store: ModelStore, version: int, start: int | None = None) -> Route:
    """How to make a version again: from the nearest snapshot before it with batches in between, or from nothing.

    start: the checkpoint to begin with instead; 0: nothing.

    Raises: Fatal where the record does not reach that far; DamagedManifest, NoSuchVersion.
    """
    store.manifest(version)
    manifests: list[Manifest] = []
    for manifest in ancestors(store, version):
        if manifests and _may_begin_with(store, manifest, manifests, start):
            return Route(manifest, manifests[::-1])
        manifests.append(manifest)
    if manifests[-1].parent is None and start in (None, 0):
        return Route(None, manifests[::-1])
    if start is not None:
        raise Fatal(
            f"version {version} cannot be made again from {start}: that is no checkpoint on the way to it, or retired"
        )
    raise Fatal(
        f"version {version} cannot be made again: how versions before {manifests[-1].version} were made "
        "is not on record any more, and no snapshot before it is left to begin with"
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
    route: Route,
    read: ReadBatch,
    device: str,
    *,
    prepare: Callable[[Manifest], None] = lambda manifest: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proof:
    """Makes the versions of a route again and compares the last one with what was published.

    progress: called with (batches done, batches in all). Raises: Fatal; Damaged where something stored cannot be read;
    EventsGone; NoAnswer.
    """
    if route.base is None:
        learner, made = Learner(config_of(route.version), device), Progress()
    else:
        config = _on_the_way(route)
        learner = Learner.restore(config, load(store, route.base.version), device)
        made = Progress.of(route.base)
    learner.evaluate_sample = 0  # nothing is measured, and nothing learned depends on it
    before, departs_at, done = made.events_trained, None, 0

    def counted(batch: BatchRecord) -> MicroBatch:
        nonlocal done
        done += 1
        progress(done, route.batches)
        return read(batch)

    for step in rebuild(learner, made, route.manifests, counted, lambda n: load(store, n), prepare=prepare):
        if step.same is False and departs_at is None:
            departs_at = step.manifest.version
    version = route.version
    published = upgraded(load(store, version.version).snapshot(None if version.checkpoint else _for_readers))
    again = State()
    again.apply(learner.snapshot())
    difference = first_difference(published, again)
    difference = difference or _other_progress(version, made)
    values = [rows.values for rows in published.tables.values()]
    return Proof(
        difference=difference,
        departs_at=departs_at,
        events=made.events_trained - before,
        tables=len(published.tables) + len(published.tensors),
        values=sum(v.size if isinstance(v, np.ndarray) else len(v) for v in [*values, *published.tensors.values()]),
    )


def _on_the_way(route: Route) -> ModelConfig:
    """The configuration to learn a route with. Event types may have been added on the way: they are those of the
    version that is to be proved, since its events are read by them."""
    assert route.base is not None
    try:
        return continued(config_of(route.base), config_of(route.version))
    except ValueError as error:
        raise BrokenChain(
            f"version {route.version.version} is of another configuration than {route.base.version} ({error})",
            route.version.version,
        ) from None


def first_difference(published: Update, again: State) -> str | None:
    """The first difference of a full update and a state, by table and row, in words; None where every bit is the
    same."""
    there = published.tables.keys() | published.tensors.keys()
    for name in sorted({*again.tables, *again.tensors} - there):
        if not name.startswith(TRAINER):
            return f"{name}: the events make it, and it was not published"
    for name, rows in sorted(published.tables.items()):
        if name not in again.tables:
            return f"{name}: published, and the events make no such table"
        made = again.table(name)
        if (left := _form(rows.values)) != (right := _form(made)):
            return f"{name}: {left} were published, the events make {right}"
        if (row := _first_row(rows.values, made)) is not None:
            of_item = name.removeprefix(TRAINER).startswith("item/")
            item = f" ({again.table('item/id')[row]!r})" if of_item else ""
            return f"{name} row {row}{item}: {_shown(rows.values[row], made[row])}"
    for name, tensor in sorted(published.tensors.items()):
        if name not in again.tensors:
            return f"{name}: published, and the events make no such tensor"
        other = again.tensor(name)
        if tensor.dtype != other.dtype or tensor.shape != other.shape:
            shapes = [f"{each.dtype}{list(each.shape)}" for each in (tensor, other)]
            return f"{name}: {shapes[0]} was published, the events make {shapes[1]}"
        if tensor.tobytes() != other.tobytes():
            return f"{name}: {_shown(tensor, other)}"
    return None


def _other_progress(version: Manifest, made: Progress) -> str | None:
    """How the manifest's events and offsets differ from those of its batches, in words; None where they do not."""
    if made.events_trained != version.events_trained:
        return f"it says that {version.events_trained} events were learned, and there are {made.events_trained}"
    if made.trained_through != from_topics(version.trained_through):
        through = by_topic(made.trained_through)
        return f"it says trained through {version.trained_through}, and its batches go to {through}"
    return None


def _form(values: "Array | list[str]") -> str:
    """The number and type of rows, in words."""
    row = "strings" if isinstance(values, list) else f"{values.dtype}{list(values.shape[1:])}"
    return f"{len(values)} rows of {row}"


def _first_row(published: "Array | list[str]", made: "Array | list[str]") -> int | None:
    """The first row that differs in any bit; None: none does. Both have the same form (`_form`)."""
    if isinstance(published, list) or isinstance(made, list):
        return next((row for row, (a, b) in enumerate(zip(published, made, strict=True)) if a != b), None)
    if not published.size:
        return None
    n = len(published)
    left, right = (np.ascontiguousarray(each).reshape(n, -1).view(np.uint8) for each in (published, made))  # [n, bytes]
    differs = np.flatnonzero((left != right).any(1))
    return int(differs[0]) if len(differs) else None


def _shown(published: object, made: object) -> str:
    """Both values, in words; of two arrays of one form, the first entry that differs."""
    where = ""
    if isinstance(published, np.ndarray) and isinstance(made, np.ndarray):
        left, right = (np.ascontiguousarray(each).reshape(-1) for each in (published, made))
        at = int(np.flatnonzero(left.view(f"u{left.itemsize}") != right.view(f"u{right.itemsize}"))[0])
        if left.size > 1:
            where = f" at [{', '.join(map(str, np.unravel_index(at, published.shape)))}]"
        published, made = left[at], right[at]
    return f"{_written(published)} was published{where}, the events make {_written(made)}"


def _written(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)  # numpy's str has all digits that tell two apart


def _for_readers(name: str) -> bool:
    return not name.startswith(TRAINER)
