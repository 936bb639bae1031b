"""Every setting, its default and its reason. Environment variables: the name in capitals after `TIDEMILL_`.

One class a process. A setting that several processes must agree on stands in `CommonSettings`.
"""

import os
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from consumers.decode import DecodeRules
from consumers.events import DEFAULT_EVENT_WEIGHTS

LEAST_KEY = 16  # letters; shorter ones can be guessed from a single manifest


class CommonSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TIDEMILL_", extra="ignore", frozen=True, hide_input_in_errors=True)

    kafka_bootstrap: str = Field("localhost:9092", description="Kafka's bootstrap servers, host:port[,host:port]")
    kafka_config: dict[str, str | int | float | bool] = Field(
        {}, description="further librdkafka settings as a JSON object, for TLS and SASL"
    )
    redis_url: str = Field("redis://localhost:6379/0", description="redis:// or rediss:// URL")
    events_topic: str = Field("events", description="topic of user events")
    items_topic: str = Field("items", description="topic of the catalogue (compacted)")
    key_prefix: str = Field("tidemill", description="first part of every Redis key")
    model_name: str = Field("model", description="the name inside the braces of the model's Redis keys")
    signing_key: SecretStr = Field(
        SecretStr(""),
        description="versions are signed with it, and those that are not are refused; several separated by commas: the "
        "first signs, each is accepted; empty: no signatures",
    )
    event_weights: dict[str, float] = Field(
        dict(DEFAULT_EVENT_WEIGHTS),
        description="JSON object: accepted event types and how strongly each is learned from; a type of weight 0 or "
        "less counts as an event and is neither a target nor part of a history",
    )
    future_tolerance_hours: float = Field(24.0, gt=0, description="events whose ts is further ahead are rejected")
    history_length: int = Field(20, ge=1, le=1000, description="latest items of a user that the model looks at")
    metrics_host: str = Field("127.0.0.1", description="address /metrics and /health listen on")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="what the log shows")
    threads: int = Field(
        max(1, (os.cpu_count() or 2) // 2),
        ge=1,
        description="CPU threads of the arithmetic; weights are bit for bit repeatable only for one number of them",
    )

    @property
    def decode_rules(self) -> DecodeRules:
        """What fits, to trainer, scorers and whoever reads a file of events."""
        return DecodeRules(
            event_types=self.event_weights,
            items_topic=self.items_topic,
            future_tolerance_ms=int(self.future_tolerance_hours * 3_600_000),
        )

    @property
    def signing_keys(self) -> tuple[bytes, ...]:
        text = self.signing_key.get_secret_value()
        return tuple(key.strip().encode() for key in text.split(",")) if text else ()

    @field_validator("kafka_config")
    @classmethod
    def _makes_clients(cls, config: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
        if config:
            from consumers.kafka_clients import check_config  # librdkafka is not needed by every command

            check_config(config)
        return config

    @field_validator("signing_key")
    @classmethod
    def _long_enough(cls, key: SecretStr) -> SecretStr:
        text = key.get_secret_value()
        if text and any(len(each.strip()) < LEAST_KEY for each in text.split(",")):
            raise ValueError(f"a key has at least {LEAST_KEY} letters")
        return key


class TrainerSettings(CommonSettings):
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port of /metrics and /health; unset: 9401, or the next free one; 0: any"
    )
    batch_events: int = Field(1024, ge=1, description="a micro-batch closes at this many events")
    batch_wait_ms: float = Field(50.0, ge=0, description="or this many milliseconds after its first record")
    publish_interval_ms: float = Field(150.0, ge=0, description="least time between two versions")
    snapshot_interval_s: float = Field(300.0, gt=0, description="a full version at least this often, in seconds")
    chain_limit: int = Field(500, ge=1, description="a full version after this many deltas: bounds a cold start")
    chain_bytes_ratio: float = Field(
        4.0, gt=0, description="or once the deltas weigh this many times the last full version: bounds Redis memory"
    )
    lease_seconds: float = Field(2.5, gt=0.2, description="a dead trainer's lease runs out after this long")
    keep_snapshots: int = Field(3, ge=1, description="full versions kept as targets of a rollback")
    reader_grace_seconds: float = Field(5.0, ge=0, description="versions younger than this are never deleted")
    checkpoint_url: str = Field(
        "", description="folder for what only trainers read, any fsspec URL (file://, s3:// ...); empty: Redis"
    )
    device: str = Field("auto", description="auto (CUDA if there is one), cpu, cuda, cuda:1 ...")
    seed: int = Field(20260105, ge=0, description="everything random comes from this and the ids")
    replay: int = Field(1, ge=0, le=16, description="past events learned again for each new one, when there is time")
    max_items: int = Field(
        5_000_000,
        ge=1,
        description="item rows kept; beyond, those of deleted items and then those unused longest are reused. One "
        "micro-batch that needs more has them for that long",
    )
    max_users: int = Field(2_000_000, ge=1, description="users whose history the trainer keeps; beyond, as above")
    evaluate_sample: int = Field(
        32,
        ge=0,
        description="events of each micro-batch ranked before they are learned from; fewer of a model with many items",
    )
    checkpoint_interval_s: float = Field(
        0.0,
        ge=0,
        description="least seconds between two versions that hold the trainer's own state; what was learned in between "
        "is learned again after a crash. 0: every version is a checkpoint",
    )
    gate: bool = Field(True, description="compare each version with one known to be good before it goes live")
    promote_after_s: float = Field(
        0.0, ge=0, description="a pointer pinned by `rollback` is set free after so many seconds; 0: only by `promote`"
    )
    fresh: bool = Field(False, description="begin anew instead of continuing from the newest version (or: --fresh)")
    adopt_unsigned: bool = Field(
        False, description="with a signing key: continue from versions that are not signed; for one start"
    )


class ScorerSettings(CommonSettings):
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port of /metrics and /health; unset: the first free one from 9402 on"
    )
    consumer_group: str = Field("tidemill-scorers", description="Kafka consumer group that shares `events`")
    session_timeout_ms: int = Field(6000, ge=1000, description="a dead scorer's partitions move after this long")
    top_k: int = Field(50, ge=1, le=1000, description="items in a list, at most")
    hide_seen: Literal["none", "bought", "all"] = Field("none", description="items of the user's own left out of lists")
    recs_ttl_s: int = Field(7 * 24 * 3600, ge=1, description="seconds a list lives in Redis")
    history_ttl_s: int = Field(90 * 24 * 3600, ge=1, description="seconds a user's history lives in Redis")
    window_ms: float = Field(5.0, ge=0, description="events of this long are answered together, one list a user")
    reload_poll_ms: float = Field(20.0, gt=0, description="how often the live pointer is looked at")
    refresh_interval_ms: float = Field(500.0, ge=0, description="least age of a list before newer weights rewrite it")
    list_budget: float = Field(
        0.9, gt=0, le=1, description="share of one core that lists may take; histories always come first"
    )
    active_seconds: float = Field(1800.0, gt=0, description="a user is recently active for this long after an event")
    max_active_users: int = Field(200_000, ge=1, description="users whose history is held in memory")


class CommandSettings(CommonSettings):
    """For the commands that only look or steer: recs, versions, rollback, promote, replay."""


def settings_table() -> list[tuple[str, str, str]]:
    """(variable, default, meaning) of every setting, for the README and its test."""
    rows: dict[str, tuple[str, str, str]] = {}
    for cls in (CommonSettings, TrainerSettings, ScorerSettings):
        for name, info in cls.model_fields.items():
            if name not in rows:
                rows[name] = (f"TIDEMILL_{name.upper()}", _shown(name, info.default), info.description or "")
    return list(rows.values())


def _shown(name: str, default: Any) -> str:
    if name == "threads":
        return "half the cores"  # differs from machine to machine
    if name == "metrics_port":
        return "9401, scorers from 9402"
    if name == "event_weights":
        return ", ".join(f"{k} {v:g}" for k, v in default.items())
    return str(default)
