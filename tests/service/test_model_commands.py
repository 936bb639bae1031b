"""What the commands show of versions, and what they refuse to make live."""

import os
from collections.abc import Iterator

import pytest

from model_store.lease import Lease
from model_store.redis_connection import connect
from model_store.redis_store import RedisStore
from model_store.signature import Signer
from service.cli import main
from tests.model_store.worlds import publish, small
from tests.redis_server import redis_server

KEY = "a key of the trainer's"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisStore]:
    for name in [name for name in os.environ if name.upper().startswith("TIDEMILL_")]:
        monkeypatch.delenv(name)
    with redis_server() as server:
        monkeypatch.setenv("TIDEMILL_REDIS_URL", server.url)
        connection = connect(server.url)
        yield RedisStore(connection)
        connection.close()


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
