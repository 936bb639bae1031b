"""Manifests that are not what the trainer wrote."""

import pytest

from model_store.errors import (
    DamagedManifest,
)
from tests.contracts.model_store.labs import Lab, chain


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b'{"format":1}', b"[" * 100_000])
def test_damaged_manifests_are_named(lab: Lab, data: bytes) -> None:
    store, _ = lab.store, chain(lab, "s", "d")
    lab.put_manifest(2, data)
    with pytest.raises(DamagedManifest, match="version 2") as raised:
        store.manifest(2)
    assert raised.value.version == 2
    assert store.manifest_bytes([1, 2])[1] == data


def test_a_manifest_under_another_number(lab: Lab) -> None:
    store, _ = lab.store, chain(lab, "s", "s")
    lab.put_manifest(2, store.manifest(1).to_json())
    with pytest.raises(DamagedManifest, match="the manifest of version 1 lies there"):
        store.manifest(2)
