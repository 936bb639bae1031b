import logging

import pytest

from service.health import Health
from service.model.config import HistoryConfig
from service.model.history import HistoryRule
from service.scoring.live_rule import FACT, LiveRule, own_rule
from service.settings import ScorerSettings, TrainerSettings
from service.training.configuration import model_config


def test_the_rule_of_a_version_is_the_one_its_trainer_was_given() -> None:
    for text, scale in (("", None), ("1,5", (1.0, 5.0))):
        settings = TrainerSettings(history_length=7, event_weights={"watch": 2.0, "skip": -0.5}, rating_scale=text)
        assert HistoryRule.of(model_config(settings).history) == HistoryRule(7, {"watch": 2.0, "skip": -0.5}, scale)


def test_what_a_version_says_otherwise_is_followed_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    health = Health("scorer")
    settings = ScorerSettings(history_length=5, event_weights={"view": 1.0, "buy": 3.0})
    live: list[HistoryConfig | None] = [None]
    rule = LiveRule(settings, health, lambda: live[0])
    rule.follow()
    assert rule.current == own_rule(settings)
    for _ in range(3):  # versions of one model
        live[0] = HistoryConfig(length=9, event_weights={"view": 1.0, "buy": 2.0, "like": 1.0}, rating_scale=(1, 5))
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
    live[0] = HistoryConfig(length=5, event_weights={"buy": 3.0, "view": 1.0})
    rule.follow()
    assert health.report()[1][FACT] == []
    assert len(caplog.records) == len(differing)
