"""What a model store promises, whatever it keeps things in. One law suite holds every implementation to it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from model_store.errors import DamagedManifest, NoSuchVersion
from model_store.lease import Lease
from model_store.signature import Signer
from model_store.version import BlobRef, Head, Manifest, Summary

_Form = TypeVar("_Form", Head, Manifest)

CHAMPION = "champion"  # the live version
CHALLENGER = "challenger"  # the newest one that is published and was not let through; gone once a newer one is live


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

    Blobs first, then the manifest, then the pointer: readers follow the pointer only, so they never see half a
    version. Every method may raise StoreUnavailable, and may then be called again: each is safe to repeat.
    Safe to use from several threads.
    """

    signer: Signer | None = None
    """Where there is one, what is published is signed, and what it did not sign is not read."""

    # -- blobs -------------------------------------------------------------------------------------------------------

    def put_blobs(self, blobs: Mapping[str, bytes]) -> dict[str, BlobRef]:
        """Stores blobs, all in one go, and says where: name -> reference for the manifest.

        Until a version names them they may be dropped after an hour.
        """
        ...

    def get_blobs(self, refs: Sequence[BlobRef]) -> list[bytes | None]:
        """The bytes as they lie there, unchecked, in the order asked for; None where there are none."""
        ...

    def why_missing(self, ref: BlobRef) -> str:
        """What else can be said of a blob that is not there, to be put behind "it is missing"."""
        return ""

    # -- versions ----------------------------------------------------------------------------------------------------

    def publish(self, manifest: Manifest, lease: Lease) -> None:
        """Makes a version exist, in one atomic step with the check of the lease. It does not go live by that.

        Publishing the newest version again, word for word, changes nothing (the answer to the first call was lost).

        Raises: LeaseLost when another one took the lease since; VersionExists unless the version is higher than every
        one before; Incomplete: ParentMissing for a delta whose parent is not here, BlobMissing when a blob is not.
        """
        ...

    def newest(self) -> int | None:
        """The highest version ever published; None when there is none."""
        ...

    def versions(self) -> list[int]:
        """The versions that are here, ascending."""
        ...

    def summaries(self) -> list[Summary]:
        """The versions that are here in brief, ascending. Raises: DamagedManifest."""
        ...

    def manifest_bytes(self, versions: Sequence[int]) -> list[bytes | None]:
        """Manifests as they lie there, unread, in one go and in the order asked for; None where there are none."""
        ...

    def delete(self, versions: Iterable[int], *, lease: Lease | None = None) -> None:
        """Removes versions, and the blobs that no version names any more (those may linger some seconds for a reader
        that is loading them). All of them or, on an error, none. Versions that are not here are passed over.

        Their manifests stay as the record of how later versions were made; see `retired_manifest_bytes`.

        Raises: StillNeeded when one of them is live, newest or under an alias by now; LeaseLost.
        """
        ...

    def retired_manifest_bytes(self, versions: Sequence[int]) -> list[bytes | None]:
        """Manifests of deleted versions, as `manifest_bytes` gave them; the latest tens of thousands are kept."""
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

        With a lease it is the trainer's own promotion: it leaves a pinned champion where it is and returns False.
        Without one it is an operator's, and neither pins nor unpins. Already there is True, and not logged again.
        A champion that moves takes the alias `challenger` away from versions up to its own.

        Raises: LeaseLost, NoSuchVersion; ValueError for a name that is no alias.
        """
        ...

    def rollback(self, version: int, reason: str) -> None:
        """Makes a version live and pins it: later ones are published and do not go live.

        Raises: NoSuchVersion; DamagedManifest for one that no reader would follow to.
        """
        ...

    def promote(self, version: int | None = None, reason: str = "", *, lease: Lease | None = None) -> int:
        """Makes a version live, by default the newest, and unpins. Returns it.

        With a lease it is the trainer's, who lets a pin go that has lasted too long.

        Raises: LeaseLost; NoSuchVersion; DamagedManifest for one that no reader would follow to.
        """
        ...

    # -- the log -----------------------------------------------------------------------------------------------------

    def log(self, limit: int = 100) -> list[LogEntry]:
        """The latest entries, newest first. The log holds about the last 100,000."""
        ...

    def live_at(self, time: float) -> int | None:
        """Which version was live at a time (epoch seconds); None before the first, or before the log begins."""
        ...

    def live_since(self, time: float) -> set[int]:
        """Every version that was live at some moment from `time` (epoch seconds) to now."""
        ...

    # -- readers' wishes ---------------------------------------------------------------------------------------------

    def request_snapshot(self, reason: str) -> None:
        """Asks the trainer for a fresh snapshot. Asking again before it came changes nothing."""
        ...

    def take_snapshot_request(self, lease: Lease) -> str | None:
        """The reason of a request, which is thereby taken; None when there is none. Raises: LeaseLost."""
        ...

    # -- the lease ---------------------------------------------------------------------------------------------------

    def acquire(self, holder: str, ttl: float) -> Lease | None:
        """Takes the lease for `ttl` seconds if nobody holds it, with a token higher than any before; else None.

        A holder's name is its own (host, process, run): the same name does not get the lease a second time.
        """
        ...

    def renew(self, lease: Lease, ttl: float) -> bool:
        """Holds the lease for `ttl` seconds from now. Also after it ran out, if nobody took it since; else False."""
        ...

    def release(self, lease: Lease) -> None:
        """Gives the lease back; nothing can be written with it any more. Nothing happens when it is another's."""
        ...

    def holder(self) -> str | None:
        """Who holds the lease now, for people to read."""
        ...

    # -- the same for every store ------------------------------------------------------------------------------------

    def get_blob(self, ref: BlobRef) -> bytes | None:
        """One blob, unchecked."""
        return self.get_blobs([ref])[0]

    def manifests(self, versions: Sequence[int]) -> list[Manifest | None]:
        """Manifests in one go; None where there are none. Raises: DamagedManifest, naming the version."""
        return [
            None if data is None else self.read(version, data)
            for version, data in zip(versions, self.manifest_bytes(versions), strict=True)
        ]

    def manifest(self, version: int) -> Manifest:
        """Raises: NoSuchVersion, DamagedManifest."""
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
        """The manifest that lies under a version's number. Raises: DamagedManifest, naming the version."""
        return self._read(Manifest, version, data)

    def read_head(self, version: int, data: bytes) -> Head:
        """The same without its micro-batches, for whoever does not learn. Raises: DamagedManifest, as above."""
        return self._read(Head, version, data)

    def _read(self, form: type[_Form], version: int, data: bytes) -> _Form:
        """Every reading goes through here, so that none of them forgets the signature."""
        try:
            found = form.from_json(data if self.signer is None else self.signer.verify(data))
        except DamagedManifest as error:
            raise DamagedManifest(f"version {version}: {error}", version) from None
        if found.version != version:
            raise DamagedManifest(f"version {version}: the manifest of version {found.version} lies there", version)
        return found

    def written(self, manifest: Manifest) -> bytes:
        """What is published of a manifest: its JSON, signed where there is a signer."""
        data = manifest.to_json()
        return data if self.signer is None else self.signer.sign(data)
