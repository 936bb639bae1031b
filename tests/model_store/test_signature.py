import hashlib
import hmac
import json
import re

import pytest

from model_store.errors import DamagedManifest
from model_store.signature import Signer, sign, verify
from model_store.version import Manifest, canonical_json
from tests.model_store.worlds import manifest

KEY, OTHER = b"the key of the trainer", b"somebody else's key"
PLAIN = manifest(7, 6, run="läuft").to_json()
SIGNED = sign(PLAIN, KEY)


def test_it_is_what_the_document_says() -> None:
    """By hand: the HMAC of the canonical JSON without the field, and the field put in."""
    expected = hmac.new(KEY, PLAIN, hashlib.sha256).hexdigest()
    assert json.loads(SIGNED) == {**json.loads(PLAIN), "signature": expected}
    assert canonical_json(json.loads(SIGNED)) == SIGNED
    assert Manifest.from_json(SIGNED).to_json() == SIGNED


def test_what_was_signed_is_read() -> None:
    assert json.loads(verify(SIGNED, [KEY])) == json.loads(SIGNED)
    assert json.loads(verify(SIGNED, [OTHER, KEY])) == json.loads(SIGNED)
    assert sign(SIGNED, KEY) == SIGNED
    assert verify(sign(SIGNED, OTHER), [OTHER]) != SIGNED


def test_the_order_of_fields_does_not_matter() -> None:
    fields = json.loads(SIGNED)
    other = json.dumps(dict(reversed(fields.items())), indent=2).encode()
    assert verify(other, [KEY]) == SIGNED


@pytest.mark.parametrize("field", json.loads(PLAIN))
def test_every_field_is_covered(field: str) -> None:
    fields = json.loads(SIGNED)
    with pytest.raises(DamagedManifest, match="signature is not by"):
        verify(canonical_json({**fields, field: "changed"}), [KEY])
    del fields[field]
    with pytest.raises(DamagedManifest, match="signature is not by"):
        verify(canonical_json(fields), [KEY])


def test_a_signature_that_was_moved_changes_nothing() -> None:
    """It fits what is left without it; wherever it stood, nothing else is read than what was signed."""
    signature = b',"signature":"' + json.loads(SIGNED)["signature"].encode() + b'"'
    assert SIGNED.replace(signature, b"") == PLAIN
    for place in (each.end() for each in re.finditer(rb'[0-9"\]}]', PLAIN)):
        assert json.loads(verify(PLAIN[:place] + signature + PLAIN[place:], [KEY])) == json.loads(SIGNED)


def test_a_field_may_not_be_added() -> None:
    with pytest.raises(DamagedManifest, match="signature is not by"):
        verify(canonical_json({**json.loads(SIGNED), "more": 1}), [KEY])


def test_of_a_field_that_stands_twice_the_one_that_was_signed_is_read() -> None:
    twice = b'{"version":8,' + SIGNED[1:]
    assert verify(twice, [KEY]) == SIGNED
    last = SIGNED[:-1] + b',"version":8}'
    with pytest.raises(DamagedManifest, match="signature is not by"):
        verify(last, [KEY])


@pytest.mark.parametrize("signature", ["", "0" * 64, "ä", "\ud800", 5, ["x"], {}, False])
def test_what_is_no_signature(signature: object) -> None:
    data = json.dumps({**json.loads(PLAIN), "signature": signature}).encode()
    with pytest.raises(DamagedManifest, match="signature is not by"):
        verify(data, [KEY], unsigned_too=True)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"[" * 100_000, b'{"a":NaN}', b'{"a":"\\ud800"}'])
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(DamagedManifest, match="not a JSON object"):
        verify(data, [KEY], unsigned_too=True)


@pytest.mark.parametrize("data", [PLAIN, PLAIN[:-1] + b',"signature":null}'])
def test_what_is_not_signed_is_refused_unless_it_is_adopted(data: bytes) -> None:
    with pytest.raises(DamagedManifest, match="TIDEMILL_SIGNING_KEY is set"):
        verify(data, [KEY])
    assert verify(data, [KEY], unsigned_too=True) == PLAIN
    with pytest.raises(DamagedManifest):
        verify(sign(data, OTHER), [KEY], unsigned_too=True)


def test_a_refusal_tells_neither_the_key_nor_the_right_signature() -> None:
    right = json.loads(SIGNED)["signature"]
    forged = SIGNED.replace(right.encode(), b"0" * 64)
    with pytest.raises(DamagedManifest) as raised:
        verify(forged, [KEY])
    assert right not in str(raised.value)
    assert KEY.decode() not in str(raised.value)
    assert "trainer" not in repr(Signer([KEY]))


@pytest.mark.parametrize("keys", [[], [b""], [KEY, b""]])
def test_an_empty_key_is_none(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="one or more keys"):
        Signer(keys)
