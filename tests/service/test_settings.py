import os
import re

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from consumers.events import DEFAULT_EVENT_WEIGHTS
from service.settings import (
    CommandSettings,
    CommonSettings,
    ScorerSettings,
    TrainerSettings,
    settings_table,
)
from service.training import main

ALL: list[type[CommonSettings]] = [CommonSettings, TrainerSettings, ScorerSettings, CommandSettings]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("TIDEMILL_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("cls", ALL)
def test_without_variables_the_defaults_hold(cls: type[CommonSettings]) -> None:
    settings = cls()
    assert settings.events_topic == "events"
    assert settings.items_topic == "items"
    assert settings.key_prefix == "tidemill"
    assert settings.event_weights == DEFAULT_EVENT_WEIGHTS
    assert settings.threads >= 1


def test_the_defaults_of_the_contract() -> None:
    assert TrainerSettings().metrics_port is None  # 9401, see service/training/main.py
    assert main.FIRST_PORT == 9401
    scorer = ScorerSettings()
    assert scorer.metrics_port is None
    assert scorer.top_k == 50
    assert scorer.hide_seen == "none"
    assert scorer.recs_ttl_s == 7 * 86400
    assert CommonSettings().future_tolerance_hours == 24
    assert set(DEFAULT_EVENT_WEIGHTS) == {
        "view",
        "click",
        "add_to_cart",
        "purchase",
        "like",
        "dislike",
        "rating",
        "search",
        "forget",
    }


def test_variables_are_taken_with_their_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TIDEMILL_KAFKA_BOOTSTRAP": "k1:9092,k2:9092",
        "TIDEMILL_KAFKA_CONFIG": '{"security.protocol": "SSL", "socket.keepalive.enable": true, "linger.ms": 5}',
        "TIDEMILL_REDIS_URL": "rediss://r:6380/2",
        "TIDEMILL_EVENT_WEIGHTS": '{"watch": 1.5, "skip": 0}',
        "TIDEMILL_TOP_K": "10",
        "TIDEMILL_HIDE_SEEN": "bought",
        "TIDEMILL_METRICS_PORT": "0",
        "TIDEMILL_LIST_BUDGET": "0.25",
        "TOP_K": "999",
    }.items():
        monkeypatch.setenv(name, value)
    settings = ScorerSettings()
    assert settings.kafka_bootstrap == "k1:9092,k2:9092"
    assert settings.kafka_config["security.protocol"] == "SSL"
    assert settings.kafka_config["socket.keepalive.enable"] is True
    assert settings.kafka_config["linger.ms"] == 5
    assert settings.redis_url == "rediss://r:6380/2"
    assert settings.event_weights == {"watch": 1.5, "skip": 0}
    assert settings.top_k == 10
    assert settings.hide_seen == "bought"
    assert settings.metrics_port == 0
    assert settings.list_budget == 0.25


def test_one_process_overlooks_the_settings_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_BATCH_EVENTS", "64")
    monkeypatch.setenv("TIDEMILL_TOP_K", "7")
    monkeypatch.setenv("TIDEMILL_NOT_A_SETTING", "x")
    assert TrainerSettings().batch_events == 64
    assert ScorerSettings().top_k == 7
    assert not hasattr(CommandSettings(), "top_k")


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (TrainerSettings, "metrics_port", "65536"),
        (TrainerSettings, "metrics_port", "-1"),
        (TrainerSettings, "metrics_port", "http"),
        (TrainerSettings, "metrics_port", ""),
        (TrainerSettings, "batch_events", "0"),
        (TrainerSettings, "batch_events", "1.5"),
        (TrainerSettings, "lease_seconds", "0.1"),
        (TrainerSettings, "publish_interval_ms", "nan"),
        (TrainerSettings, "seed", "-1"),
        (TrainerSettings, "fresh", "perhaps"),
        (ScorerSettings, "top_k", "0"),
        (ScorerSettings, "top_k", "1001"),
        (ScorerSettings, "hide_seen", "some"),
        (ScorerSettings, "list_budget", "0"),
        (ScorerSettings, "list_budget", "1.1"),
        (ScorerSettings, "recs_ttl_s", "0"),
        (CommandSettings, "history_length", "0"),
        (CommandSettings, "log_level", "LOUD"),
        (CommandSettings, "threads", "0"),
        (CommandSettings, "future_tolerance_hours", "0"),
        (CommandSettings, "event_weights", '{"view": "much"}'),
        (CommandSettings, "event_weights", "[1]"),
        (CommandSettings, "kafka_config", '{"a": {"b": 1}}'),
        (CommandSettings, "signing_key", "too short"),
        (CommandSettings, "signing_key", "one that is long enough,"),
        (CommandSettings, "signing_key", "  ,  "),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, cls: type[CommonSettings], name: str, value: str
) -> None:
    monkeypatch.setenv(f"TIDEMILL_{name.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        cls()
    assert {error["loc"][0] for error in caught.value.errors()} == {name}


@pytest.mark.parametrize("name", ["event_weights", "kafka_config"])
def test_an_object_that_is_not_json_is_an_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"TIDEMILL_{name.upper()}", "view=1")
    with pytest.raises(SettingsError, match=name):
        CommonSettings()


def test_signing_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CommonSettings().signing_keys == ()
    monkeypatch.setenv("TIDEMILL_SIGNING_KEY", "")
    assert CommonSettings().signing_keys == ()
    monkeypatch.setenv("TIDEMILL_SIGNING_KEY", "the new key of today, der neue Schlüssel ,the old key of yesterday")
    keys = [key.decode() for key in CommonSettings().signing_keys]
    assert keys == ["the new key of today", "der neue Schlüssel", "the old key of yesterday"]


@pytest.mark.parametrize("key", ["hush-hush-hush-hush", "hush"])
def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("TIDEMILL_SIGNING_KEY", key)
    try:
        shown = f"{CommonSettings()!r} {CommonSettings()} {CommonSettings().model_dump_json()}"
    except ValidationError as error:
        shown = f"{error!r} {error}"
    assert "hush" not in shown + str(settings_table())
    assert ("TIDEMILL_SIGNING_KEY", "") in {row[:2] for row in settings_table()}


def test_settings_do_not_change_while_a_process_runs() -> None:
    settings = ScorerSettings()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, "top_k", 3)  # noqa: B010 - as mypy refuses the assignment itself


def test_the_defaults_are_good_values_themselves() -> None:
    for cls in ALL:
        cls.model_validate(cls().model_dump())


def test_the_table_tells_of_every_setting_once() -> None:
    rows = settings_table()
    names = [row[0] for row in rows]
    assert len(names) == len(set(names))
    assert set(names) == {f"TIDEMILL_{field.upper()}" for cls in ALL for field in cls.model_fields}
    for variable, default, meaning in rows:
        assert re.fullmatch(r"TIDEMILL_[A-Z_]+", variable)
        assert meaning, variable
        assert "\n" not in default + meaning
        assert "PydanticUndefined" not in default


def test_a_name_means_the_same_in_every_class() -> None:
    for name in TrainerSettings.model_fields.keys() & ScorerSettings.model_fields.keys():
        if name != "metrics_port":
            assert TrainerSettings.model_fields[name].default == ScorerSettings.model_fields[name].default
