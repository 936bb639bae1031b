"""The contract of a model store. tests/contracts/model_store/ runs its laws on every implementation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from model_store.errors import DamagedManifest, NoSuchVersion
from model_store.lease import Lease
from model_store.signature import Signer
from model_store.version import BlobRef, Head, Manifest, Summary

_Form = TypeVar("_Form", Head, Manifest)

CHAMPION = "champion"  # the live version
CHALLENGER = "challenger"  # the newest version that was held back; removed once a version from it on is live
LOG_ENTRIES = 100_000  # about how many the log keeps


class LogEntry(NamedTuple):
    """One line of the log: `what` is publish, move, rollback or promote."""

    time: float  # epoch seconds, by the store's clock
    what: str
    alias: str  # "" for publish
    version: int
    reason: str  # for publish: the version's kind

    @property
    def moved_live(self) -> bool:
        return self.alias == CHAMPION


class ModelStore(Protocol):
    """Versions, their blobs, and the pointer to the live one.

    Blobs are stored first, then the manifest, then the pointer is moved: readers follow the pointer, so they never see
    half a version. Every method may block, may raise StoreUnavailable, and is safe to repeat. Safe to use from several
    threads.
    """

    signer: Signer | None = None
    """If there is one, manifests are signed when published, and an unsigned or foreign one is DamagedManifest."""

    # -- blobs -------------------------------------------------------------------------------------------------------

    def put_blobs(self, blobs: Mapping[str, bytes]) -> dict[str, BlobRef]:
        """Stores blobs; returns name -> reference for the manifest.

        Blobs that no version names may be removed after an hour.
        """
        ...

    def get_blobs(self, refs: Sequence[BlobRef]) -> list[bytes | None]:
        """The stored bytes, unchecked, in the order asked for; None for a blob that is missing."""
        ...

    def why_missing(self, ref: BlobRef) -> str:
        """More about a missing blob, to be appended to "it is missing"; '' if there is nothing to say."""
        return ""

    # -- versions ----------------------------------------------------------------------------------------------------

    def publish(self, manifest: Manifest, lease: Lease) -> None:
        """Adds a version, in one atomic step with the check of the lease. It does not go live by that.

        Publishing the same manifest again while it is the newest changes nothing.

        Raises: LeaseLost if another trainer has taken the lease; VersionExists unless the version is above every one
        before; Incomplete: ParentMissing for a delta whose parent is not in the store, BlobMissing if a blob is not.
        """
        ...

    def newest(self) -> int | None:
        """The highest version ever published; None when there is none."""
        ...

    def versions(self) -> list[int]:
        """The versions in the store, ascending."""
        ...

    def summaries(self) -> list[Summary]:
        """The summaries of the versions in the store, ascending. Raises: DamagedManifest."""
        ...

    def manifest_bytes(self, versions: Sequence[int]) -> list[bytes | None]:
        """The stored manifests, unchecked, in the order asked for; None for a version that is not in the store."""
        ...

    def delete(self, versions: Iterable[int], *, lease: Lease | None = None) -> None:
        """Deletes versions, all or, on an error, none, and the blobs that only they named. Those may stay readable for
        some seconds, for a reader that is loading them. Versions that are not in the store are passed over.

        Their manifests are kept, since they say how later versions were made: see `retired_manifest_bytes`.

        Raises: StillNeeded if one of them is live, newest or under an alias; LeaseLost.
        """
        ...

    def retired_manifest_bytes(self, versions: Sequence[int]) -> list[bytes | None]:
        """The manifests of deleted versions, as `manifest_bytes` gave them; the latest tens of thousands are kept."""
        ...

    # -- the live pointer and other aliases --------------------------------------------------------------------------

    def live(self) -> int | None:
        """The live version (the alias `champion`); None when nothing is live yet. Raises: DamagedManifest when the
        pointer is no number."""
        ...

    def aliases(self) -> dict[str, int]:
        """Every alias that is set, `champion` among them, and its version."""
        ...

    def pinned(self) -> int | None:
        """The version that an operator pinned the live pointer to; None when it follows the trainer."""
        ...

    def pinned_since(self) -> float | None:
        """When the live pointer was pinned (epoch seconds, by the store's clock); None when it is not."""
        ...

    def move(self, version: int, reason: str, *, alias: str = CHAMPION, lease: Lease | None = None) -> bool:
        """Points an alias at a version, in one atomic step with the check of the lease, and logs it.

        With a lease (the trainer's call) a pinned champion is not moved, and the result is False. Without one (an
        operator's call) it is moved and stays pinned or unpinned. If the alias is at the version already, the result is
        True and nothing is logged. A champion that moves removes the alias `challenger` from versions up to its own.

        Raises: LeaseLost, NoSuchVersion; ValueError for a name that is no alias.
        """
        ...

    def rollback(self, version: int, reason: str) -> None:
        """Makes a version live and pins it: later ones are published and do not go live.

        Raises: NoSuchVersion; DamagedManifest if readers could not read it.
        """
        ...

    def promote(self, version: int | None = None, reason: str = "", *, lease: Lease | None = None) -> int:
        """Makes a version live, by default the newest, and unpins. Returns the version.

        The trainer calls it with its lease, when a pin has lasted too long.

        Raises: LeaseLost; NoSuchVersion; DamagedManifest if readers could not read it.
        """
        ...

    # -- the log -----------------------------------------------------------------------------------------------------

    def log(self, limit: int = 100) -> list[LogEntry]:
        """The latest entries, newest first. The log keeps about the last LOG_ENTRIES."""
        ...

    def live_at(self, time: float) -> int | None:
        """Which version was live at a time (epoch seconds); None before the first, or before the log begins."""
        ...

    def live_since(self, time: float) -> set[int]:
        """Every version that was live at some time from `time` (epoch seconds) until now."""
        ...

    # -- requests of readers -----------------------------------------------------------------------------------------

    def request_snapshot(self, reason: str) -> None:
        """Asks the trainer for a fresh snapshot. Does nothing while a request is waiting."""
        ...

    def take_snapshot_request(self, lease: Lease) -> str | None:
        """Takes the waiting request, and returns its reason; None if there is none. Raises: LeaseLost."""
        ...

    # -- the lease ---------------------------------------------------------------------------------------------------

    def acquire(self, holder: str, ttl: float) -> Lease | None:
        """Takes the lease for `ttl` seconds if nobody holds it, with a token higher than any before; else None.

        holder: a name for people to read. It must be unique (host, process, run); it gives no right to a held lease.
        """
        ...

    def renew(self, lease: Lease, ttl: float) -> bool:
        """Extends the lease to `ttl` seconds from now, even if it ran out; False if another trainer has taken it."""
        ...

    def release(self, lease: Lease) -> None:
        """Gives the lease back: nothing can be written with it afterwards. Does nothing if another trainer has it."""
        ...

    def holder(self) -> str | None:
        """The name of the lease's holder; None if nobody holds it."""
        ...

    # -- the same for every store ------------------------------------------------------------------------------------

    def manifests(self, versions: Sequence[int]) -> list[Manifest | None]:
        """Manifests; None for a version that is not in the store. Raises: DamagedManifest, naming the version."""
        return [
            None if data is None else self.read(version, data)
            for version, data in zip(versions, self.manifest_bytes(versions), strict=True)
        ]

    def manifest(self, version: int) -> Manifest:
        """The manifest of a version. Raises: NoSuchVersion, DamagedManifest."""
        (found,) = self.manifests([version])
        if found is None:
            raise NoSuchVersion(f"version {version} is not in the store")
        return found

    def head(self, version: int) -> Head:
        """A manifest without its micro-batches. Raises: NoSuchVersion, DamagedManifest."""
        (data,) = self.manifest_bytes([version])
        if data is None:
            raise NoSuchVersion(f"version {version} is not in the store")
        return self.read_head(version, data)

    def read(self, version: int, data: bytes) -> Manifest:
        """The manifest from the bytes stored for a version, its signature checked. Raises: DamagedManifest."""
        return self._read(Manifest, version, data)

    def read_head(self, version: int, data: bytes) -> Head:
        """As `read`, without the micro-batches. Raises: DamagedManifest."""
        return self._read(Head, version, data)

    def _read(self, form: type[_Form], version: int, data: bytes) -> _Form:
        try:
            found = form.from_json(data if self.signer is None else self.signer.verify(data))
        except DamagedManifest as error:
            raise DamagedManifest(f"version {version}: {error}", version) from None
        if found.version != version:
            raise DamagedManifest(f"version {version}: the manifest of version {found.version} lies there", version)
        return found

    def written(self, manifest: Manifest) -> bytes:
        """The bytes to store for a manifest: its JSON, signed if there is a signer."""
        data = manifest.to_json()
        return data if self.signer is None else self.signer.sign(data)
