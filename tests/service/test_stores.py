"""What the settings say of the store is what the store does."""

import os
from pathlib import Path

import pytest

from model_store.errors import DamagedManifest, ModelStoreError
from model_store.signature import sign
from service.settings import CommandSettings, TrainerSettings
from service.stores import model_store
from tests.model_store.worlds import manifest, publish, small
from tests.redis_server import redis_server


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("TIDEMILL_")]:
        monkeypatch.delenv(name)


def test_trainer_and_commands_mean_the_same_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with redis_server() as server:
        for name, value in {
            "REDIS_URL": server.url,
            "KEY_PREFIX": "shop",
            "MODEL_NAME": "second",
            "SIGNING_KEY": "the newer of two keys,the older of two keys",
            "CHECKPOINT_URL": f"file://{tmp_path}",
        }.items():
            monkeypatch.setenv(f"TIDEMILL_{name}", value)
        settings = TrainerSettings()
        store = model_store(settings, checkpoint_url=settings.checkpoint_url)
        lease = store.acquire("trainer", 60)
        assert lease is not None
        made = publish(store, lease, 1, None, small())
        assert made.blobs["weights/0"].key.startswith("shop:blob:")
        assert made.blobs["trainer/0"].key.startswith(f"file://{tmp_path}/")
        commands = model_store(CommandSettings())
        assert commands.manifest_bytes([1]) == [sign(made.to_json(), b"the newer of two keys")]
        assert commands.manifest(1).blobs == made.blobs


def test_without_the_settings_there_are_neither_signatures_nor_a_folder() -> None:
    store = model_store(TrainerSettings(), adopt_unsigned=True)
    assert store.signer is None
    assert store.written(manifest(1)) == manifest(1).to_json()
    assert store.keys.live == "tidemill:{model}:live"


def test_what_is_not_signed_is_adopted_only_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_SIGNING_KEY", "a key that is long enough")
    data = manifest(1).to_json()
    assert model_store(TrainerSettings(), adopt_unsigned=True).read(1, data) == manifest(1)
    with pytest.raises(DamagedManifest):
        model_store(TrainerSettings()).read(1, data)


def test_a_folder_that_is_none_is_said_in_one_line() -> None:
    with pytest.raises(ModelStoreError, match="no URL of a folder"):
        model_store(TrainerSettings(), checkpoint_url="checkpoints")
