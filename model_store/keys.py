"""Every Redis key of the model store, and what it holds.

The braces are literal: Redis Cluster hashes only the text between them, so all keys of one model are in one slot and
one script may touch them together. Blobs are named by their content and may be in any slot.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one model. `prefix` separates installations on one Redis, `model` the models of an installation."""

    model: str = "model"
    prefix: str = "tidemill"

    def __post_init__(self) -> None:
        # a brace inside would end the hash tag early and scatter one model's keys over several slots
        for name, value in (("model", self.model), ("prefix", self.prefix)):
            if not value or any(c in "{}" or not c.isprintable() for c in value):
                raise ValueError(f"{name} name {value!r}: one or more printable characters without braces")

    def _of(self, name: str) -> str:
        return f"{self.prefix}:{{{self.model}}}:{name}"

    @property
    def live(self) -> str:
        """String: the number of the live version, which is the alias `champion`."""
        return self._of("live")

    def manifest(self, version: int) -> str:
        """String: the manifest of a version, JSON."""
        return f"{self.manifest_prefix}{version}"

    @property
    def manifest_prefix(self) -> str:
        """What the keys of manifests begin with."""
        return self._of("manifest:")

    @property
    def log(self) -> str:
        """Stream: `what`, `alias`, `version`, `reason` of each publish and move; the entry's id is its time in ms."""
        return self._of("log")

    @property
    def lease(self) -> str:
        """String with a time to live: `<token>:<holder>` of the trainer that may publish."""
        return self._of("lease")

    @property
    def lease_token(self) -> str:
        """Integer: the token of the latest lease; grows whenever a lease is taken or given back."""
        return self._of("lease_token")

    @property
    def newest(self) -> str:
        """Integer: the highest version ever published."""
        return self._of("newest")

    @property
    def versions(self) -> str:
        """Sorted set: the versions whose manifests are held, each its own score."""
        return self._of("versions")

    @property
    def summaries(self) -> str:
        """Hash: version -> `kind parent created_ms checksum...`, what retention reads instead of every manifest."""
        return self._of("summaries")

    @property
    def retired(self) -> str:
        """Hash: version -> its manifest, deflated (zlib): how retired versions were made, for `tidemill verify`."""
        return self._of("retired")

    @property
    def references(self) -> str:
        """Hash: blob checksum -> how many held versions name it."""
        return self._of("references")

    @property
    def dropped(self) -> str:
        """Set: checksums of blobs that no version of this model names, until they are removed; among them the files
        that were put into the folder of checkpoints and that no version names yet."""
        return self._of("dropped")

    @property
    def aliases(self) -> str:
        """Set: the names of the aliases other than `champion`."""
        return self._of("aliases")

    def alias(self, name: str) -> str:
        """String: the version under an alias; `champion` is the live pointer itself."""
        if not name or not all(c.isalnum() or c in "-_." for c in name):
            raise ValueError(f"alias {name!r}: one or more letters, digits, '-', '_' or '.'")
        return self.live if name == "champion" else f"{self.alias_prefix}{name}"

    @property
    def alias_prefix(self) -> str:
        """What the keys of aliases begin with."""
        return self._of("alias:")

    @property
    def pinned(self) -> str:
        """String: the version an operator pinned the live pointer to; absent when it follows the trainer."""
        return self._of("pinned")

    @property
    def pinned_at(self) -> str:
        """String: when it was pinned, epoch milliseconds."""
        return self._of("pinned_at")

    @property
    def snapshot_requested(self) -> str:
        """String: the reason why a reader asks the trainer for a fresh snapshot; absent when none does."""
        return self._of("snapshot_requested")

    @property
    def models(self) -> str:
        """Set: the models of this installation. They share blobs, so one must not remove another's."""
        return f"{self.prefix}:models"

    def blob(self, checksum: str) -> str:
        """String: safetensors bytes; with a time to live while no version names it."""
        return f"{self.prefix}:blob:{checksum}"
