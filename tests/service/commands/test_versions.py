"""What the commands show of versions, and what they refuse to make live."""

import os

import pytest

from model_store.lease import Lease
from model_store.redis_connection import RedisConnection
from model_store.redis_store import RedisStore
from model_store.signature import Signer
from service.cli import main
from tests.model_store.worlds import manifest, publish, small
from tests.redis_server import RedisServer

KEY = "a key of the trainer's"


@pytest.fixture
def store(server: RedisServer, connection: RedisConnection, monkeypatch: pytest.MonkeyPatch) -> RedisStore:
    for name in [name for name in os.environ if name.upper().startswith("TIDEMILL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TIDEMILL_REDIS_URL", server.url)
    return RedisStore(connection)


def trainer(store: RedisStore) -> Lease:
    lease = store.acquire("trainer", 60)
    assert lease is not None
    return lease


def test_with_a_key_the_commands_refuse_what_is_not_signed(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = trainer(store)
    publish(store, lease, 1, None, small(1))
    store.signer = Signer([KEY.encode()])
    publish(store, lease, 2, None, small(2))
    store.move(2, "", lease=lease)

    monkeypatch.setenv("TIDEMILL_SIGNING_KEY", KEY)
    for command in (["rollback", "1"], ["promote", "1"]):
        assert main(command) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err == "tidemill: version 1: manifest: it is not signed, and TIDEMILL_SIGNING_KEY is set\n"
    assert (store.live(), store.pinned()) == (2, None)
    assert main(["versions"]) == 0
    first, second = [line for line in capsys.readouterr().out.splitlines() if line.strip()[:1] in "12"]
    assert "not signed" in first
    assert "snapshot" in second
    assert second.rstrip().endswith("live")
    assert main(["rollback", "2"]) == 0

    monkeypatch.setenv("TIDEMILL_SIGNING_KEY", "the key of somebody else")
    capsys.readouterr()
    assert main(["versions"]) == 0
    assert "its signature is not by" in capsys.readouterr().out
    assert main(["rollback", "2"]) == 1

    monkeypatch.delenv("TIDEMILL_SIGNING_KEY")
    assert main(["rollback", "1"]) == 0
    assert store.pinned() == 1


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What stands beside each version: the end of its line."""
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()[:1].isdigit()]
    return {row[0]: " ".join(row[7:]) for row in rows}


def test_versions_bear_their_names(store: RedisStore, capsys: pytest.CaptureFixture[str]) -> None:
    lease = trainer(store)
    for version in range(1, 6):
        publish(store, lease, version, version - 1 or None, small(version, full=version == 1))
    weights = {"weights/0": b"weights"}
    between = manifest(6, 5, blobs=store.put_blobs(weights)).model_copy(update={"checkpoint": False})
    store.publish(between, lease)
    store.move(2, "", lease=lease)
    store.move(2, "", alias="reference", lease=lease)
    store.move(6, "worse", alias="challenger", lease=lease)
    assert main(["versions"]) == 0
    assert lines(capsys) == {
        "1": "", "2": "live, reference", "3": "", "4": "", "5": "", "6": "challenger, no checkpoint",
    }  # fmt: skip
    assert main(["rollback", "1"]) == 0
    capsys.readouterr()
    assert main(["versions", "--limit", "1"]) == 0  # and those that have a name
    assert lines(capsys) == {"1": "live, pinned", "2": "reference", "6": "challenger, no checkpoint"}
    assert main(["versions"]) == 0
    assert "the pointer is pinned: `tidemill promote` follows new versions again" in capsys.readouterr().out
    assert main(["promote"]) == 0
    assert capsys.readouterr().out == "version 6 is live; new versions follow it\n"
    assert main(["versions", "--limit", "2"]) == 0
    assert lines(capsys) == {"2": "reference", "5": "", "6": "live, no checkpoint"}


def test_a_rollback_stays_until_it_is_promoted(store: RedisStore, capsys: pytest.CaptureFixture[str]) -> None:
    lease = trainer(store)
    for version in (1, 2, 3):
        publish(store, lease, version, None, small(version))
    store.move(2, "", lease=lease)
    assert main(["rollback", "1"]) == 0
    assert capsys.readouterr().out == "version 1 is live and stays so until `tidemill promote`\n"
    assert not store.move(3, "", lease=lease)
    assert store.live() == 1
    assert main(["promote", "2"]) == 0
    assert (store.live(), store.pinned()) == (2, None)
    assert store.move(3, "", lease=lease)
    for command in ("rollback", "promote"):
        capsys.readouterr()
        assert main([command, "9"]) == 1
        assert capsys.readouterr().err == "tidemill: version 9 is not in the store\n"
    assert store.live() == 3


def test_which_version_was_live_then(store: RedisStore, capsys: pytest.CaptureFixture[str]) -> None:
    lease = trainer(store)
    publish(store, lease, 1, None, small(1))
    store.move(1, "", lease=lease)
    for at in ("9999-12-31T23:59:59Z", "2999-01-01"):
        assert main(["versions", "--at", at]) == 0
        assert capsys.readouterr().out == "1\n"
    for at in ("0001-01-01T00:00:00Z", "1969-12-31", "1970-01-01T00:00:00Z", "2000-01-01T00:00:00+02:00"):
        assert main(["versions", "--at", at]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("tidemill: no version was live at ")
        assert err.count("\n") == 1
