"""What a scorer waits for at its start is shown by its own name."""

import threading
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumers.kafka_identity import KafkaIdentity
from model_store.errors import StoreUnavailable
from model_store.memory_store import MemoryStore
from service.health import OK, Health
from service.scoring import main
from service.settings import ScorerSettings
from tests.service.scoring.worlds import Trainer

HERE = KafkaIdentity("test", {})


class Away(MemoryStore):
    """Answers from the third time on."""

    asked = 0

    def newest(self) -> int | None:
        self.asked += 1
        if self.asked < 3:
            raise StoreUnavailable("Redis: connection refused")
        return super().newest()


@pytest.mark.parametrize(
    ("redis_away", "kafka", "shown"),
    [
        (False, [HERE], [{"redis": OK, "kafka": OK}]),
        (True, [HERE], [{"redis": "not usable yet: Redis: connection refused"}, {"redis": OK, "kafka": OK}]),
        (
            False,
            [KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)), HERE],
            [{"redis": OK, "kafka": "not usable yet: "}, {"redis": OK, "kafka": OK}],
        ),
        (
            False,
            [KafkaIdentity("other", {}), HERE],
            [{"redis": OK, "kafka": "not usable yet: this is Kafka cluster other"}, {"redis": OK, "kafka": OK}],
        ),
    ],
)
def test_who_is_waited_for_is_named(
    redis_away: bool, kafka: list[Any], shown: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Away() if redis_away else MemoryStore()
    store.asked = 99  # type: ignore[attr-defined]
    Trainer(store).publish()
    store.asked = 0  # type: ignore[attr-defined]
    health, answers, seen = Health("scorer"), iter(kafka), list[dict[str, str]]()

    def prepare(*_: object, **__: object) -> KafkaIdentity:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, KafkaIdentity)
        return answer

    class Patient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            checks: Any = health.report()[1]["checks"]
            if not seen or seen[-1] != checks:
                seen.append(dict(checks))
            return False

    monkeypatch.setattr(main, "prepare_topics", prepare)
    stop = Patient()
    assert main._kafka_to_read(ScorerSettings(), store, health, stop) == HERE
    stop.wait()
    assert [checks.keys() for checks in seen] == [checks.keys() for checks in shown]
    for checks, expected in zip(seen, shown, strict=True):
        for name, state in expected.items():
            assert checks[name].startswith(state)


def test_stopped_it_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    stop.set()
    assert main._kafka_to_read(ScorerSettings(), MemoryStore(), Health("scorer"), stop) is None
