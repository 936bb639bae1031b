"""What can go wrong with a model store, each by its own name.

A reader catches `Damaged` (stay on the version it has, say so, ask for a snapshot) and `StoreUnavailable` (try again).
A trainer also meets the refusals of `publish` and `move`.
"""


class ModelStoreError(Exception):
    """The root of every error raised here on purpose."""


class StoreUnavailable(ModelStoreError):
    """The store did not answer or could not serve the call (down, loading, full, failing over): try again later."""


class LeaseLost(ModelStoreError):
    """Another trainer has taken the lease: this one can write nothing more."""


class VersionExists(ModelStoreError):
    """The version is not above the newest one that was published."""


class Incomplete(ModelStoreError):
    """The store lacks the parent or a blob of a version (it lost its last second in a restart, say).

    The trainer then publishes a snapshot instead, and puts its blobs anew.
    """


class ParentMissing(Incomplete):
    """A delta whose parent is not in the store."""


class BlobMissing(Incomplete):
    """A version with a blob that is not in the store, or not at its full length."""


class NoSuchVersion(ModelStoreError):
    """The version is not in the store: never published, or retired."""


class StillNeeded(ModelStoreError):
    """A version that was to be deleted is live, newest or under an alias: nothing was deleted, plan again."""


class InvalidUpdate(ModelStoreError):
    """An update that contradicts itself or the state it is applied to: a gap in the rows, another dtype or shape."""


class Damaged(ModelStoreError):
    """Something stored is not what was published. `version` is the version it belongs to, if known."""

    def __init__(self, message: str, version: int | None = None) -> None:
        super().__init__(message)
        self.version = version


class DamagedBlob(Damaged):
    """A blob that is missing, of another size or checksum, or not what docs/wire-format.md says."""


class DamagedManifest(Damaged):
    """A manifest that cannot be read: not JSON, a field amiss, or of a format that is not known here."""


class BrokenChain(Damaged):
    """A version that cannot be built: a manifest in its chain is missing, damaged or of another configuration."""
