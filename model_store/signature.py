"""Signs manifests: HMAC-SHA256 over the canonical JSON, with a key that the trainer and its readers share.

A manifest names the SHA-256 of every blob, so a signature covers the whole version. docs/wire-format.md says what it
does not cover.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from model_store.errors import DamagedManifest
from model_store.version import canonical_json

FIELD = "signature"
_WRITTEN = re.compile(rb',"signature":"([0-9a-f]{64})"(?!.*"signature":)', re.DOTALL)  # where canonical JSON has it


@dataclass(frozen=True, slots=True)
class Signer:
    """The first key signs, and each is accepted, so that a key can be changed while everything runs.

    unsigned_too: also accept manifests without a signature, for a trainer that continues from versions older than the
    key. A wrong signature is never accepted.
    """

    keys: Sequence[bytes] = field(repr=False)
    unsigned_too: bool = False

    def __post_init__(self) -> None:
        if not self.keys or not all(self.keys):
            raise ValueError("a signer has one or more keys, none of them empty")

    def sign(self, data: bytes) -> bytes:
        return sign(data, self.keys[0])

    def verify(self, data: bytes) -> bytes:
        return verify(data, self.keys, unsigned_too=self.unsigned_too)


def sign(data: bytes, key: bytes) -> bytes:
    """A manifest with its signature, which replaces one that is there. Canonical JSON in, canonical JSON out."""
    fields = json.loads(data)
    fields.pop(FIELD, None)
    return canonical_json({**fields, FIELD: _hmac(canonical_json(fields), key)})


def verify(data: bytes, keys: Sequence[bytes], *, unsigned_too: bool = False) -> bytes:
    """The JSON of a manifest that one of the keys has signed.

    Parse the result and not `data`: of a field that occurs twice, two parsers may take different ones.

    Raises: DamagedManifest, whose message never holds the right signature.
    """
    if (found := _WRITTEN.search(data)) is not None:
        # The form that `sign` writes: without the signature these are the bytes that were signed, so nothing need be
        # parsed. The signature is put at the end, because the match may have been anywhere, within a string too.
        body = data[: found.start()] + data[found.end() :]
        matches = [hmac.compare_digest(_hmac(body, key).encode(), found[1]) for key in keys]
        if any(matches):
            return body[:-1] + b"," + found[0][1:] + b"}"
    try:
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise ValueError
        said = fields.pop(FIELD, None)
        right = [_hmac(canonical_json(fields), key) for key in keys]
    except (ValueError, RecursionError):
        raise DamagedManifest("manifest: not a JSON object, so it has no signature") from None
    if said is None:
        if unsigned_too:
            return canonical_json(fields)
        raise DamagedManifest("manifest: it is not signed, and TIDEMILL_SIGNING_KEY is set")
    # every key is compared, each in constant time: the duration gives away nothing about the keys
    matches = [hmac.compare_digest(each.encode(), str(said).encode(errors="replace")) for each in right]
    if not any(matches):
        raise DamagedManifest("manifest: its signature is not by TIDEMILL_SIGNING_KEY")
    return canonical_json({**fields, FIELD: said})


def _hmac(body: bytes, key: bytes) -> str:
    return hmac.new(key, body, hashlib.sha256).hexdigest()
