"""Updates and manifests for tests: drawn by hypothesis, or made to order."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from model_store.codec import encode
from model_store.lease import Lease
from model_store.store import ModelStore
from model_store.version import BatchRecord, BlobRef, KafkaIds, Kind, Manifest, timestamp
from model_store.weights import Array, Rows, State, Update

LOGARITHMS = {"item/popularity"}

# name -> (dtype, shape of a row); strings where the dtype is None
TABLES: dict[str, tuple[str | None, tuple[int, ...]]] = {
    "item/id": (None, ()),
    "item/row": ("float32", (4,)),
    "item/popularity": ("float64", ()),  # logarithms
    "item/flag": ("bool", ()),
    "trainer/item/adagrad": ("float32", ()),
    "trainer/user/id": (None, ()),
    "trainer/user/history": ("int64", (3,)),
}
TENSORS = {"network/weight": ("float32", (2, 3)), "trainer/rng": ("uint8", (5,)), "trainer/nothing": ("float16", (0,))}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def index(*rows: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array(rows, dtype=np.int64)


def same(left: "Array | list[str]", right: "Array | list[str]") -> bool:
    """Bit for bit: NaN is itself and -0.0 is not 0.0."""
    if isinstance(left, list) or isinstance(right, list):
        return isinstance(left, list) and isinstance(right, list) and left == right
    return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


def assert_same(left: Update, right: Update) -> None:
    assert left.full == right.full
    assert left.tables.keys() == right.tables.keys()
    assert left.tensors.keys() == right.tensors.keys()
    for name, rows in left.tables.items():
        other = right.tables[name]
        assert rows.size == other.size, name
        assert same(rows.index, other.index), name
        assert same(rows.values, other.values), name
    for name, tensor in left.tensors.items():
        assert same(tensor, right.tensors[name]), name


def values(name: str, n: int, seed: int) -> "Array | list[str]":
    """n rows of a table of TABLES, from a seed."""
    rng = np.random.default_rng([seed, len(name)])
    dtype, shape = TABLES[name]
    if dtype is None:
        letters = ["a", "ü", "日", "😀", "\x00", " "]
        return ["".join(rng.choice(letters, rng.integers(0, 5))) for _ in range(n)]
    found = rng.standard_normal((n, *shape)) * 100
    if name == "item/popularity" and n:
        found[rng.random(n) < 0.2] = -np.inf
    if name.startswith("trainer/") and dtype == "float32" and n:
        found[rng.random(n) < 0.2] = np.nan
    return (found > 0) if dtype == "bool" else found.astype(dtype)


@st.composite
def histories(draw: st.DrawFn, most: int = 5) -> list[Update]:
    """A full update and partial ones, each of which fits what was before."""
    names = draw(st.lists(st.sampled_from(sorted(TABLES)), unique=True, max_size=4))
    tensors = draw(st.lists(st.sampled_from(sorted(TENSORS)), unique=True))
    sizes = {name: draw(st.integers(0, 12)) for name in names}
    updates = [
        Update(True, {n: every(n, sizes[n], draw(st.integers(0, 99))) for n in names}, tensor_values(tensors, 0))
    ]
    for step in range(draw(st.integers(0, most))):
        tables = {}
        for name in draw(st.lists(st.sampled_from(names), unique=True)) if names else []:
            old = sizes[name]
            size = old + draw(st.integers(0, 9))
            touched = draw(st.lists(st.integers(0, old - 1), unique=True)) if old else []
            rows = index(*sorted(touched), *range(old, size))
            tables[name] = Rows(rows, values(name, len(rows), draw(st.integers(0, 99))), size)
            sizes[name] = size
        updates.append(
            Update(
                False,
                tables,
                tensor_values(draw(st.lists(st.sampled_from(tensors), unique=True)) if tensors else [], step),
            )
        )
    return updates


def every(name: str, size: int, seed: int) -> Rows:
    return Rows(np.arange(size, dtype=np.int64), values(name, size, seed), size)


def tensor_values(names: Sequence[str], seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: (rng.random(TENSORS[name][1]) * 100).astype(TENSORS[name][0]) for name in names}


def state_of(updates: Sequence[Update]) -> State:
    state = State()
    for update in updates:
        state.apply(update)
    return state


def manifest(
    version: int,
    parent: int | None = None,
    *,
    kind: Kind | None = None,
    blobs: dict[str, BlobRef] | None = None,
    created: float = 1_700_000_000.0,
    run: str = "run",
    digest: str = "c0ffee",
) -> Manifest:
    return Manifest(
        version=version,
        parent=parent,
        kind=kind or ("snapshot" if parent is None else "delta"),
        created_at=timestamp(created),
        run_id=run,
        kafka=KafkaIds(cluster_id="cluster", topics={"events": "topic-id"}),
        trained_through={"events": {"0": version * 10}},
        events_trained=version * 10,
        batches=(BatchRecord(ranges=(("events", 0, version * 10 - 10, version * 10),), replay=1),),
        config_digest=digest,
        metrics={"loss": 0.5},
        blobs=blobs or {},
    )


def small(seed: int = 0, *, full: bool = True, rows: int = 4) -> Update:
    """A small update of every kind of thing; partial ones change the rows 1 and 2."""
    if full:
        return Update(True, {n: every(n, rows, seed) for n in TABLES}, tensor_values(sorted(TENSORS), seed))
    return Update(
        False, {n: Rows(index(1, 2), values(n, 2, seed), rows) for n in TABLES}, tensor_values(["network/weight"], seed)
    )


def publish(
    store: ModelStore, lease: Lease, version: int, parent: int | None, update: Update, *, digest: str = "c0ffee"
) -> Manifest:
    """Blobs, then the manifest."""
    refs = store.put_blobs(encoded(update))
    made = manifest(version, parent, kind="snapshot" if update.full else "delta", blobs=refs, digest=digest)
    store.publish(made, lease)
    return made


def encoded(update: Update, **options: int) -> dict[str, bytes]:
    """As `encode`, with the one table of these worlds that holds logarithms."""
    return encode(update, logarithms=LOGARITHMS, **options)
