"""The bytes of docs/wire-format.md, pinned: versions that were written must be read for ever.

A test that fails here means another format number, not another golden file. For a new format:
`python -m tests.model_store.test_golden` writes the files anew.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from model_store.codec import checksum, decode
from model_store.signature import sign, verify
from model_store.version import BatchRecord, BlobRef, KafkaIds, Manifest
from model_store.weights import Rows, Update
from tests.model_store.worlds import assert_same, encoded, index

GOLDEN = Path(__file__).parents[1] / "golden"

SNAPSHOT = Update(
    full=True,
    tables={
        "item/id": Rows(index(0, 1, 2), ["i7", "", "ä😀"], 3),
        "item/row": Rows(index(0, 1, 2), np.array([[1.0, -2.5], [0.0, -0.0], [3e-45, 3.4e38]], np.float32), 3),
        "item/popularity": Rows(index(0, 1, 2), np.array([0.5, -np.inf, -1.25]), 3),
        "trainer/item/adagrad": Rows(index(0, 1, 2), np.array([0.25, np.nan, np.inf], np.float32), 3),
    },
    tensors={
        "network/scale": np.array(16.0, np.float32),
        "network/weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "trainer/rng": np.arange(5, dtype=np.uint8),
    },
)

DELTA = Update(
    full=False,
    tables={
        "item/id": Rows(index(3), ["i9"], 4),
        "item/row": Rows(index(1, 3), np.array([[0.5, 0.25], [-1.0, 1.0]], np.float32), 4),
    },
    tensors={"network/scale": np.array(15.5, np.float32)},
)

# as `echo -n CANONICAL_JSON | openssl dgst -sha256 -hmac KEY` says
KEY = b"a key for the golden manifest"
SIGNATURE = "33973f17fdf0891e05a1302a64aa21acd9db5ce4868c5841235f83ece96bd2c2"

UPDATES = {"snapshot": SNAPSHOT, "delta": DELTA}


def blobs(name: str) -> dict[str, bytes]:
    return {f"{name}-{blob.replace('/', '-')}.safetensors": data for blob, data in encoded(UPDATES[name]).items()}


def golden_manifest() -> Manifest:
    refs = {
        name: BlobRef(key=f"tidemill:blob:{checksum(data)}", bytes=len(data), checksum=checksum(data))
        for name, data in encoded(DELTA).items()
    }
    return Manifest(
        version=118,
        parent=117,
        kind="delta",
        created_at="2026-01-05T10:00:00.123Z",
        run_id="run-1",
        kafka=KafkaIds(cluster_id="cluster", topics={"events": "topic-id"}),
        trained_through={"events": {"0": 9917, "1": 10021}},
        events_trained=19930,
        batches=(
            BatchRecord(ranges=(("events", 0, 9900, 9917), ("events", 1, 10000, 10010)), replay=1.5),
            BatchRecord(
                ranges=(("events", 1, 10010, 10021),),
                records=11,
                skipped=True,
                ahead=(("events", 1, 10012),),
                weights_of_version=110,
                extra={"learning_rate": 0.05},
            ),
        ),
        config_digest="c0ffee",
        config={"seed": 7, "dim": 64},
        environment={"torch": "2.13.0", "threads": 2},
        metrics={"recall": 0.25},
        blobs=refs,
    )


@pytest.mark.parametrize("name", UPDATES)
def test_the_bytes_that_are_written(name: str) -> None:
    written = blobs(name)
    assert written.keys() == {path.name for path in GOLDEN.glob(f"{name}-*.safetensors")}
    for file, data in written.items():
        assert (GOLDEN / file).read_bytes() == data


@pytest.mark.parametrize("name", UPDATES)
def test_the_bytes_that_were_written_are_read(name: str) -> None:
    files = GOLDEN.glob(f"{name}-*.safetensors")
    found = {file.stem.removeprefix(f"{name}-").replace("-", "/"): file.read_bytes() for file in files}
    assert_same(decode(found, full=UPDATES[name].full), UPDATES[name])


def test_the_library_reads_them_too() -> None:
    found = safetensors.numpy.load((GOLDEN / "snapshot-weights-0.safetensors").read_bytes())
    assert bytes(found["item/id:utf8"]).decode() == "i7ä😀"
    assert found["item/id:lengths"].tolist() == [2, 0, 6]
    assert found["network/weight"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_manifest() -> None:
    data = (GOLDEN / "manifest.json").read_bytes()
    assert golden_manifest().to_json() == data
    assert Manifest.from_json(data) == golden_manifest()


def test_the_signed_manifest() -> None:
    data = (GOLDEN / "manifest-signed.json").read_bytes()
    assert sign(golden_manifest().to_json(), KEY) == data
    assert json.loads(verify(data, [KEY])) == json.loads(data)
    assert Manifest.from_json(data).signature == SIGNATURE


def test_the_format_is_written_down_with_these_very_bytes() -> None:
    """The document shows the delta's blob; what it shows must be what is written."""
    document = (GOLDEN.parents[1] / "docs" / "wire-format.md").read_text()
    assert hexdump(encoded(DELTA)["weights/0"]) in document
    assert checksum(encoded(DELTA)["weights/0"]) in document


def hexdump(data: bytes) -> str:
    lines = []
    for start in range(0, len(data), 16):
        line = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
        lines.append(f"{start:04x}  {line.hex(' '):<47}  {text}")
    return "\n".join(lines)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in UPDATES:
        for file, data in blobs(each).items():
            (GOLDEN / file).write_bytes(data)
    (GOLDEN / "manifest.json").write_bytes(golden_manifest().to_json())
    (GOLDEN / "manifest-signed.json").write_bytes(sign(golden_manifest().to_json(), KEY))
    print(hexdump(encoded(DELTA)["weights/0"]), checksum(encoded(DELTA)["weights/0"]), sep="\n\n")
