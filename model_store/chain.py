"""Loads a version: finds its chain back to a snapshot, and applies the updates forward from there.

Size, SHA-256, format and configuration of everything are verified. Any fault is an error that names the version and the
blob; a reader then keeps the version that it has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from model_store.codec import checksum, decode
from model_store.errors import BrokenChain, Damaged, DamagedBlob, DamagedManifest, InvalidUpdate
from model_store.store import ModelStore
from model_store.version import BlobRef, Head, Manifest
from model_store.weights import TRAINER, State, Update, Want

# a parent is mostly one below its child, so manifests are fetched in blocks before it is known which are needed
_BLOCK = 64
_LARGEST_BLOCK = 1024
_BYTES_AT_ONCE = 64 << 20


def manifests_between(store: ModelStore, have: int | None, want: int) -> list[Head]:
    """The versions to apply, in order, to get from `have` (None: nothing) to `want`.

    They begin with the one after `have`, or with the newest snapshot if that is on the way.

    Raises: BrokenChain, naming the version whose manifest is missing, damaged or of another configuration.
    """
    found: dict[int, bytes | None] = {}
    block = _BLOCK if have is None else max(1, min(want - have + 1, _BLOCK))

    def fetch(version: int) -> bytes | None:
        nonlocal block
        if version not in found:
            numbers = range(version, max(0, version - block), -1)
            found.update(zip(numbers, store.manifest_bytes(numbers), strict=True))
            block = min(2 * max(block, _BLOCK), _LARGEST_BLOCK)
        return found[version]

    chain: list[Head] = []
    version = want
    while version != have:
        data = fetch(version)
        if data is None:
            raise BrokenChain(f"version {want}: the manifest of version {version} is missing", version)
        manifest = _read(store, want, version, data)
        chain.append(manifest)
        if manifest.kind == "snapshot":
            break
        assert manifest.parent is not None  # a delta has one: Head checks it
        version = manifest.parent
        before = found.get(version) if version == have else fetch(version)
        if before is not None and _read(store, want, version, before).config_digest != manifest.config_digest:
            raise BrokenChain(
                f"version {want}: version {manifest.version} is of another configuration than its parent {version}",
                manifest.version,
            )
    return chain[::-1]


def updates_between(
    store: ModelStore, have: int | None, want: int, *, readers: bool = True, names: Want | None = None
) -> list[tuple[Head, Update]]:
    """The updates that bring a reader from version `have` (None: nothing) to version `want`, all verified.

    If the chain begins with a snapshot, the first update is full and replaces what the reader has. But a snapshot that
    only writes its parent out whole is passed by if the deltas before it are cheaper to load; its update is then
    partial and empty. Empty if have == want.

    readers: leave out the blobs under `trainer/`. names: which tables and tensors are wanted.

    Raises: BrokenChain, DamagedBlob (both are Damaged and name the version), StoreUnavailable.
    """
    way = manifests_between(store, have, want)
    if have is not None and way and way[0].kind == "snapshot":
        before = _before(store, have, way[0], readers)
        if before is not None:
            try:
                return list(_updates(store, [*before, *way], readers, names, passing=True))
            except Damaged:
                pass  # the damage is before the snapshot, which does not need it
    return list(_updates(store, way, readers, names))


def _before(store: ModelStore, have: int, snapshot: Head, readers: bool) -> list[Head] | None:
    """The versions after `have` up to the snapshot's parent, if the snapshot adds nothing to its parent and they are
    fewer bytes to load than it; they may hold further such snapshots. None if not, or if they cannot be read."""
    way: list[Head] = []
    limit = _bytes(snapshot, readers)
    try:
        while not snapshot.learned and snapshot.parent is not None and snapshot.parent >= have:
            part = manifests_between(store, have, snapshot.parent)
            parent = part[-1] if part else _fetched(store, have)
            if parent.config_digest != snapshot.config_digest:
                return None
            if not (readers or parent.checkpoint):  # the trainer's state of that moment is in the snapshot only
                return None
            way = part + way
            if sum(_bytes(each, readers) for each in way if each.kind == "delta") >= limit:
                return None
            if not part or part[0].kind == "delta":
                return way
            snapshot = part[0]
    except BrokenChain:
        pass
    return None


def load(
    store: ModelStore,
    version: int,
    *,
    known: tuple[State, int] | None = None,
    readers: bool = False,
    names: Want | None = None,
) -> State:
    """The whole state of a version, by default with the trainer's part.

    known: a state and its version, which is brought forward in place and returned. Updates are verified before the
    first is applied; if they then do not fit each other (BrokenChain), the state is left between two versions and must
    be thrown away.

    Raises: BrokenChain, DamagedBlob, StoreUnavailable.
    """
    if known is None:
        state, found = State(), _updates(store, manifests_between(store, None, version), readers, names)
    else:
        state = known[0]
        found = iter(updates_between(store, known[1], version, readers=readers, names=names))
    for manifest, update in found:
        _apply(state, manifest, update)
    return state


@dataclass(frozen=True, slots=True)
class Found:
    """The newest whole version, and the damaged ones above it: (version, what is wrong with it)."""

    version: int
    manifest: Head
    state: State
    skipped: list[tuple[int, str]] = field(default_factory=list)


def newest_whole(store: ModelStore, at_most: int | None = None, *, readers: bool = False) -> Found | None:
    """For a cold start: the newest version, at or below `at_most`, whose whole chain is sound; None if there is none.

    Damaged versions are loaded once, and versions built on them not at all. If a chain breaks in the middle, the part
    before the break counts as loaded.

    Raises: StoreUnavailable.
    """
    try:
        parents = {each.version: None if each.kind == "snapshot" else each.parent for each in store.summaries()}
    except DamagedManifest:
        parents = dict.fromkeys(store.versions())
    bad: set[int] = set()
    skipped: list[tuple[int, str]] = []
    best: Found | None = None
    for candidate in sorted(parents, reverse=True):
        if at_most is not None and candidate > at_most:
            continue
        if best is not None and candidate <= best.version:
            break
        if _is_built_on(candidate, parents, bad):
            continue
        state, last, at = State(), None, candidate
        try:
            for manifest, update in _updates(store, manifests_between(store, None, candidate), readers, None):
                at = manifest.version
                _apply(state, manifest, update)
                last = manifest
        except Damaged as error:
            at = at if error.version is None else error.version
            bad.add(at)
            skipped.append((at, str(error)))
            if last is not None and (best is None or last.version > best.version):
                best = Found(last.version, last, state, skipped)
            continue
        if last is not None:
            return Found(candidate, last, state, skipped)
    return best


def newest_checkpoint(store: ModelStore) -> Found | None:
    """Where a trainer continues: the newest checkpoint whose whole chain is sound; None if there is none.

    Versions after it hold weights alone; their manifests say which events to learn again.

    Raises: StoreUnavailable; Damaged if the chain was damaged in the meantime.
    """
    found = newest_whole(store)
    if found is None or found.manifest.checkpoint:
        return found
    at = checkpoint_of(store, found.version)
    return Found(at.version, at, load(store, at.version), found.skipped)


def checkpoint_of(store: ModelStore, version: int) -> Head:
    """The newest checkpoint among a version and those that it is built on.

    Raises: BrokenChain, StoreUnavailable.
    """
    chain = manifests_between(store, None, version)
    return next(manifest for manifest in reversed(chain) if manifest.checkpoint)  # every snapshot is a checkpoint


def ancestors(store: ModelStore, version: int) -> Iterator[Manifest]:
    """The manifests of a version, its parent and so on, retired ones too, as far back as they are kept.

    Raises: DamagedManifest, StoreUnavailable.
    """
    found: dict[int, bytes | None] = {}
    at: int | None = version
    while at is not None:
        if at not in found:
            numbers = list(range(at, max(0, at - _LARGEST_BLOCK), -1))
            here, retired = store.manifest_bytes(numbers), store.retired_manifest_bytes(numbers)
            found = dict(zip(numbers, (a or b for a, b in zip(here, retired, strict=True)), strict=True))
        data = found[at]
        if data is None:
            return
        manifest = store.read(at, data)
        yield manifest
        at = manifest.parent


def _fetched(store: ModelStore, version: int) -> Head:
    (data,) = store.manifest_bytes([version])
    if data is None:
        raise BrokenChain(f"the manifest of version {version} is missing", version)
    return _read(store, version, version, data)


def _read(store: ModelStore, want: int, version: int, data: bytes) -> Head:
    try:
        return store.read_head(version, data)
    except DamagedManifest as error:
        raise BrokenChain(f"version {want}: {error}", version) from None


def _is_built_on(version: int | None, parents: dict[int, int | None], bad: set[int]) -> bool:
    while version is not None and bad:
        if version in bad:
            return True
        version = parents.get(version)
    return False


def _apply(state: State, manifest: Head, update: Update) -> None:
    try:
        state.apply(update)
    except InvalidUpdate as error:
        raise BrokenChain(
            f"version {manifest.version} does not fit what it is built on: {error}", manifest.version
        ) from None


def _updates(
    store: ModelStore, manifests: Sequence[Head], readers: bool, names: Want | None, *, passing: bool = False
) -> Iterator[tuple[Head, Update]]:
    """The decoded updates in order; blobs are fetched in batches of about 64 MB.

    passing: snapshots add nothing to their parents; they are not fetched, and their updates are empty.
    """
    ahead: list[tuple[Head, dict[str, BlobRef] | None]] = []
    waiting = 0
    for place, manifest in enumerate(manifests, 1):
        refs = None if passing and manifest.kind == "snapshot" else _blobs(manifest, readers)
        ahead.append((manifest, refs))
        waiting += sum(ref.bytes for ref in (refs or {}).values())
        if waiting > _BYTES_AT_ONCE or place == len(manifests):
            blobs = iter(store.get_blobs([ref for _, refs in ahead for ref in (refs or {}).values()]))
            for each, wanted in ahead:
                if wanted is None:
                    yield each, Update(full=False)
                else:
                    found = {name: (ref, next(blobs)) for name, ref in wanted.items()}
                    yield each, _decoded(store, each, found, names)
            ahead, waiting = [], 0


def _blobs(manifest: Head, readers: bool) -> dict[str, BlobRef]:
    return {name: ref for name, ref in manifest.blobs.items() if not (readers and name.startswith(TRAINER))}


def _bytes(manifest: Head, readers: bool) -> int:
    return sum(ref.bytes for ref in _blobs(manifest, readers).values())


def _decoded(
    store: ModelStore, manifest: Head, blobs: dict[str, tuple[BlobRef, bytes | None]], names: Want | None
) -> Update:
    version = manifest.version
    whole: dict[str, bytes] = {}
    for name, (ref, data) in blobs.items():
        if data is None:
            why = store.why_missing(ref)
            raise DamagedBlob(f"version {version}: blob {name} ({ref.key}) is missing{why}", version)
        if len(data) != ref.bytes:
            raise DamagedBlob(f"version {version}: blob {name} has {len(data)} bytes, not {ref.bytes}", version)
        if (found := checksum(data)) != ref.checksum:
            raise DamagedBlob(f"version {version}: blob {name} hashes to {found}, not {ref.checksum}", version)
        whole[name] = data
    try:
        return decode(whole, full=manifest.kind == "snapshot", want=names)
    except DamagedBlob as error:
        raise DamagedBlob(f"version {version}: {error}", version) from None
