import math
import os
import re
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from consumers.events import DEFAULT_EVENT_WEIGHTS
from service.cores import usable_cores
from service.settings import (
    CommandSettings,
    CommonSettings,
    ScorerSettings,
    TrainerSettings,
)
from service.settings_text import complaint, settings_table
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
        *((ScorerSettings, "rating_scale", text) for text in ("5", "5,1", "1,1", "1,5,9", "a,b", "nan,5", "1,inf")),
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


@pytest.mark.parametrize(
    ("text", "scale"), [("", None), (" ", None), ("1,5", (1, 5)), (" 0.5 , 5 ", (0.5, 5)), ("-1,1", (-1, 1))]
)
def test_a_rating_scale_has_two_ends(
    monkeypatch: pytest.MonkeyPatch, text: str, scale: tuple[float, float] | None
) -> None:
    monkeypatch.setenv("TIDEMILL_RATING_SCALE", text)
    assert CommandSettings().rating_range == scale


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


# Every setting at its edges: made from its type and its bounds, so that a new one is covered by itself


def fields() -> list[tuple[type[CommonSettings], str, FieldInfo]]:
    seen: dict[str, tuple[type[CommonSettings], str, FieldInfo]] = {}
    for cls in ALL:
        for name, info in cls.model_fields.items():
            seen.setdefault(name, (cls, name, info))
    return list(seen.values())


def bounds(info: FieldInfo) -> tuple[float, bool, float, bool]:
    """Lowest, whether it is allowed itself, highest, whether it is."""
    low = [(m.ge, True) for m in info.metadata if isinstance(m, Ge)] + [
        (m.gt, False) for m in info.metadata if isinstance(m, Gt)
    ]
    high = [(m.le, True) for m in info.metadata if isinstance(m, Le)] + [
        (m.lt, False) for m in info.metadata if isinstance(m, Lt)
    ]
    assert len(low) == len(high) == 1, "a number has a lower and an upper bound"
    return cast(tuple[float, bool, float, bool], (*low[0], *high[0]))


def kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is made of, without None."""
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*(kinds(part) for part in get_args(annotation))) - {type(None)}
    if get_origin(annotation) is Annotated:
        return kinds(get_args(annotation)[0])
    return {get_origin(annotation) or annotation}


def beyond(info: FieldInfo) -> list[str]:
    """Values that a setting of this type and these bounds must refuse."""
    (kind,) = kinds(info.annotation)
    if kind in (int, float):
        low, low_too, high, high_too = bounds(info)
        assert math.isfinite(low)
        assert math.isfinite(high)
        below = [low - 1, math.nextafter(low, -math.inf) if kind is float else low - 1, *([] if low_too else [low])]
        above = [high + 1, high * 2 + 1, *([] if high_too else [high])]
        numbers = [str(int(n)) if kind is int else repr(float(n)) for n in [*below, *above]]
        return [*numbers, "-1e9", "1e30", str(2**64), "inf", "-inf", "nan", "NaN", "many", "", " ", "0x10", "1,5"] + (
            ["0.5"] if kind is int else []
        )
    if kind is bool:
        return ["", "2", "perhaps", "nan"]
    if kind is Literal:
        return ["", "nothing of these", *(f"{choice}." for choice in get_args(info.annotation))]
    if kind is dict:
        return ["", "[]", "1", '"x"', "{", '{"a"}']
    if kind in (str, SecretStr):
        return ["'x'", '"x"', " x", "x ", "a\nb", "\x1b[1m"]
    raise AssertionError(f"how does a setting of type {kind} look at its edges?")


CASES = [(cls, name, value) for cls, name, info in fields() for value in dict.fromkeys(beyond(info))]


@pytest.mark.parametrize(("cls", "name", "value"), CASES)
def test_every_setting_at_its_edges(
    cls: type[CommonSettings], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TIDEMILL_{name.upper()}", value)
    with pytest.raises((ValidationError, SettingsError)) as raised:
        cls()
    said = complaint(raised.value)
    assert said.startswith(f"TIDEMILL_{name.upper()}")
    assert "\n" not in said
    assert len(said) < 400


@pytest.mark.parametrize(
    ("cls", "name", "info"), [field for field in fields() if kinds(field[2].annotation) & {int, float}]
)
def test_every_number_up_to_its_edges(
    cls: type[CommonSettings], name: str, info: FieldInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    low, low_too, high, high_too = bounds(info)
    for value in [low] * low_too + [high] * high_too:
        monkeypatch.setenv(f"TIDEMILL_{name.upper()}", str(value))
        assert getattr(cls(), name) == value


REFUSED = [
    (CommonSettings, "kafka_bootstrap", "kafka://k:9092", 'kafka:// is no part of it: host:port, such as kafka:9092'),
    (CommonSettings, "kafka_bootstrap", "https://k", "https:// is no part of it"),
    (CommonSettings, "kafka_bootstrap", "SSL://k:9093", 'in TIDEMILL_KAFKA_CONFIG: {"security.protocol": "SSL"}'),
    (CommonSettings, "kafka_bootstrap", "sasl_ssl://k:9093", '{"security.protocol": "SASL_SSL"}'),
    (CommonSettings, "kafka_bootstrap", "'127.0.0.1:9092'", "there are quotes around it"),
    (CommonSettings, "kafka_bootstrap", "k:9092 ", "there are blanks around it"),
    (CommonSettings, "kafka_bootstrap", "k :9092", "'k ' is no host"),
    (CommonSettings, "kafka_bootstrap", "k:9092,", "a server is missing"),
    (CommonSettings, "kafka_bootstrap", "", "a server is missing"),
    (CommonSettings, "kafka_bootstrap", "k:port", "the port 'port' of k is no number from 1 to 65535"),
    (CommonSettings, "kafka_bootstrap", "k:0", "the port '0' of k"),
    (CommonSettings, "kafka_bootstrap", "k:65536", "the port '65536' of k"),
    (CommonSettings, "kafka_bootstrap", "k:٣", "the port '٣' of k"),
    (CommonSettings, "kafka_bootstrap", "::1", "is no host"),
    (CommonSettings, "redis_url", "redis://h/zero", "the database behind the / is a number"),
    (CommonSettings, "redis_url", "redis://h?colour=blue", "the option 'colour' is none that may be set here"),
    (CommonSettings, "items_topic", "events", "it is TIDEMILL_EVENTS_TOPIC as well"),
    (CommonSettings, "items_topic", "events.dlq", "where what does not fit into the other goes"),
    (CommonSettings, "events_topic", "items.dlq", "where what does not fit into the other goes"),
    (CommonSettings, "events_topic", "..", "a topic's name is of"),
    (CommonSettings, "events_topic", "x" * 246, "a topic's name is of"),
    (CommonSettings, "events_topic", "eve nts", "a topic's name is of"),
    (CommonSettings, "key_prefix", "", "one or more printable characters without braces"),
    (CommonSettings, "model_name", "", "one or more printable characters without braces"),
    (CommonSettings, "model_name", "{shop}", "one or more printable characters without braces"),
    (CommonSettings, "event_weights", "{}", "at least 1 item"),
    (CommonSettings, "event_weights", '{"view": NaN}', "view: Input should be a finite number"),
    (CommonSettings, "event_weights", '{"view": Infinity}', "view: Input should be a finite number"),
    (CommonSettings, "event_weights", '{"view": 1e300}', "view: Input should be less than or equal to 1000000"),
    (CommonSettings, "event_weights", '{"": 1}', "at least 1 character"),
    (TrainerSettings, "metrics_port", "http://10.96.0.1:9401", "valid integer"),
    (TrainerSettings, "batch_events", "1000000000", "less than or equal to 100000"),
    (TrainerSettings, "device", "cuda:999", "such GPUs here; auto takes one where there is one"),
    (TrainerSettings, "device", "gpu", "auto, cpu, cuda, or cuda:1 and so on"),
    (TrainerSettings, "checkpoint_url", "/mnt/checkpoints", "is no URL of a folder"),
    (TrainerSettings, "checkpoint_url", "nosuch://x/y", "nosuch"),
    (ScorerSettings, "consumer_group", "", "at least 1 character"),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "name", "value", "said"), REFUSED)
def test_what_cannot_be_is_refused_with_what_would_do(
    cls: type[CommonSettings], name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TIDEMILL_{name.upper()}", value)
    with pytest.raises(ValidationError) as raised:
        cls()
    assert said in complaint(raised.value)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("k:9092", "k:9092"),
        ("k", "k"),
        ("PLAINTEXT://k:9092,plaintext://l:9092", "k:9092,l:9092"),
        ("k:9092, l:9092", "k:9092,l:9092"),
        ("[::1]:9092,[fe80::1%eth0],10.0.0.1:1", "[::1]:9092,[fe80::1%eth0],10.0.0.1:1"),
    ],
)
def test_bootstrap_servers_that_are_taken(given: str, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_KAFKA_BOOTSTRAP", given)
    assert CommonSettings().kafka_bootstrap == taken


SECRETS = [
    ("redis_url", "redis://:hush@h:6379/zero"),
    ("redis_url", "redis://:hu/hush@h:6379/0"),
    ("redis_url", "hush"),
    ("kafka_bootstrap", "me:hush@k:9092"),
    ("kafka_config", '{"sasl.password": ["hush"]}'),
    ("kafka_config", '"hush"'),
    ("kafka_config", "{hush"),
    ("signing_key", "hush"),
    ("checkpoint_url", "s3://key:hush@bucket/folder"),
]


@pytest.mark.parametrize(("name", "value"), SECRETS)
def test_no_complaint_tells_a_secret(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TIDEMILL_{name.upper()}", value)
    with pytest.raises((ValidationError, SettingsError)) as raised:
        TrainerSettings()
    assert f"TIDEMILL_{name.upper()}" in complaint(raised.value)
    assert "hush" not in complaint(raised.value)


def test_several_complaints_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_THREADS", "0")
    monkeypatch.setenv("TIDEMILL_TOP_K", "many")
    with pytest.raises(ValidationError) as raised:
        ScorerSettings()
    assert complaint(raised.value) == (
        "TIDEMILL_THREADS=0: Input should be greater than or equal to 1; "
        "TIDEMILL_TOP_K=many: Input should be a valid integer, unable to parse string as an integer"
    )


@pytest.mark.parametrize("cls", [TrainerSettings, ScorerSettings])
def test_a_port_that_kubernetes_sets_for_a_service_is_ignored_and_said(
    cls: type[TrainerSettings | ScorerSettings], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TIDEMILL_METRICS_PORT", "tcp://10.96.0.1:9401")
    assert cls().metrics_port is None
    assert "TIDEMILL_METRICS_PORT=tcp://10.96.0.1:9401 is what Kubernetes sets" in caplog.text


def test_threads_are_half_the_cores_that_may_be_used() -> None:
    assert CommonSettings().threads == max(1, usable_cores() // 2)
