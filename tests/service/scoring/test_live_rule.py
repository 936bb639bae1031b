import logging
from typing import Any

import orjson
import pytest

from consumers.events import DEFAULT_EVENT_WEIGHTS
from service.health import Health
from service.model.history import HistoryRule
from service.scoring.live_rule import FACT, LiveRule, own_rule, rule_of
from service.settings import ScorerSettings, TrainerSettings
from service.training.configuration import learner_config, told

OWN = HistoryRule(20, DEFAULT_EVENT_WEIGHTS)


def test_the_rule_of_a_version_is_the_one_its_trainer_was_given() -> None:
    for text, scale in (("", None), ("1,5", (1.0, 5.0))):
        settings = TrainerSettings(history_length=7, event_weights={"watch": 2.0, "skip": -0.5}, rating_scale=text)
        config = told(learner_config(settings, "cpu"), list(settings.event_weights))
        own = HistoryRule(20, DEFAULT_EVENT_WEIGHTS, (0.0, 9.0))
        assert rule_of(config, own) == HistoryRule(7, {"watch": 2.0, "skip": -0.5}, scale)
        assert orjson.loads(orjson.dumps(config)) == config  # as a manifest has it


@pytest.mark.parametrize("config", [{}, {"history": None, "event_weights": None}, {"history": {}}])
def test_where_a_version_says_nothing_that_is_understood_the_scorer_s_settings_serve(config: dict[str, Any]) -> None:
    assert rule_of(config, OWN) == OWN


def test_what_a_version_says_otherwise_is_followed_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    health = Health("scorer")
    settings = ScorerSettings(history_length=5, event_weights={"view": 1.0, "buy": 3.0})
    live: list[dict[str, Any] | None] = [None]
    rule = LiveRule(settings, health, lambda: live[0])
    rule.follow()
    assert rule.current == own_rule(settings)
    for _ in range(3):  # versions of one model
        live[0] = {
            "history": 9,
            "event_weights": {"view": 1.0, "buy": 2.0, "like": 1.0},
            "rating_scale": [1, 5],
        }
        rule.follow()
    assert rule.current == HistoryRule(9, {"view": 1.0, "buy": 2.0, "like": 1.0}, (1, 5))
    differing = [
        "history_length 9, here 5",
        "event_weights buy 2, here 3",
        "event_weights like 1, here (not accepted)",
        "rating_scale 1,5, here (none)",
    ]
    assert health.report()[1][FACT] == differing
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == differing
    live[0] = {"history": 5, "event_weights": {"buy": 3.0, "view": 1.0}}
    rule.follow()
    assert health.report()[1][FACT] == []
    assert len(caplog.records) == len(differing)
