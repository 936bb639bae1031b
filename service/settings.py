"""Every setting, its default and its reason. Environment variables: the name in capitals after `TIDEMILL_`.

One class a process. A setting that several processes must agree on stands in `CommonSettings`.
"""

import logging
import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from consumers.events import DEFAULT_EVENT_WEIGHTS
from model_store.errors import ModelStoreError
from model_store.keys import Keys
from model_store.redis_url import check_redis_url
from service.addresses import bootstrap_servers, plain, topic
from service.cores import usable_cores

if TYPE_CHECKING:
    from consumers.decode import DecodeRules

log = logging.getLogger(__name__)

RATING_AT_MOST = 1e9  # whatever people rate by; differences of such numbers are exact enough
HOUR_S, MONTH_S, DECADE_S = 3_600, 30 * 86_400, 10 * 365 * 86_400  # beyond these somebody meant another unit
MOST_ROWS = 2**31 - 1  # rows are numbered by int32
MOST_WEIGHT = 1e6
LEAST_KEY = 16  # letters; shorter ones can be guessed from a single manifest


Plain = Annotated[str, AfterValidator(plain)]
EventType = Annotated[str, Field(min_length=1, max_length=64)]
Weight = Annotated[float, Field(ge=-MOST_WEIGHT, le=MOST_WEIGHT)]


def _not_of_a_service(value: object) -> object:
    """Kubernetes sets such variables for a Service that is called as we are: `tcp://10.96.0.1:9401`."""
    if isinstance(value, str) and value.startswith(("tcp://", "udp://")):
        log.warning("TIDEMILL_METRICS_PORT=%s is what Kubernetes sets for a Service: ignored", value)
        return None
    return value


MetricsPort = Annotated[int | None, BeforeValidator(_not_of_a_service)]


class CommonSettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="TIDEMILL_", extra="ignore", frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    kafka_bootstrap: Annotated[str, AfterValidator(bootstrap_servers)] = Field(
        "localhost:9092", description="Kafka's bootstrap servers, host:port[,host:port]"
    )
    kafka_config: dict[str, str | int | float | bool] = Field(
        {}, description="further librdkafka settings as a JSON object, for TLS and SASL"
    )
    redis_url: str = Field("redis://localhost:6379/0", description="redis://, rediss:// or unix:// URL")
    events_topic: Annotated[str, AfterValidator(topic)] = Field("events", description="topic of user events")
    items_topic: Annotated[str, AfterValidator(topic)] = Field(
        "items", description="topic of the catalogue (compacted)"
    )
    key_prefix: str = Field("tidemill", description="first part of every Redis key")
    model_name: str = Field("model", description="the name inside the braces of the model's Redis keys")
    signing_key: SecretStr = Field(
        SecretStr(""),
        description="versions are signed with it, and those that are not are refused; several separated by commas: the "
        "first signs, each is accepted; empty: no signatures",
    )
    event_weights: dict[EventType, Weight] = Field(
        dict(DEFAULT_EVENT_WEIGHTS),
        min_length=1,
        description="JSON object: accepted event types and how strongly each is learned from; a type of weight 0 "
        "counts as an event and is neither a target nor part of a history; nor is one below 0, a dislike: its item is "
        "not listed for that user until a later positive event of theirs on it",
    )
    rating_scale: str = Field(
        "",
        description="lowest and highest value of a `rating`, such as 1,5: then its weight grows with its value, and "
        "one in the lowest third of the scale counts as a `dislike`; empty: every rating counts alike",
    )
    future_tolerance_hours: float = Field(
        24.0, gt=0, le=1e6, description="events whose ts is further ahead are rejected"
    )
    history_length: int = Field(200, ge=1, le=1000, description="latest items of a user that the model looks at")
    metrics_host: Plain = Field("127.0.0.1", min_length=1, description="address /metrics and /health listen on")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="what the log shows")
    threads: int = Field(
        max(1, usable_cores() // 2),
        ge=1,
        le=1024,
        description="CPU threads of the arithmetic; weights are bit for bit repeatable only for one number of them",
    )

    @property
    def rating_range(self) -> tuple[float, float] | None:
        """Lowest and highest."""
        return rating_range(self.rating_scale)

    @field_validator("redis_url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        check_redis_url(url)
        return url

    @field_validator("items_topic")
    @classmethod
    def _another_topic(cls, items: str, others: ValidationInfo) -> str:
        events = others.data.get("events_topic")
        if items == events:
            raise ValueError("it is TIDEMILL_EVENTS_TOPIC as well: events and items need a topic each")
        if f"{items}.dlq" == events or items == f"{events}.dlq":
            raise ValueError("one of the two topics is where what does not fit into the other goes")
        return items

    @field_validator("key_prefix", "model_name")
    @classmethod
    def _a_name_for_keys(cls, name: str) -> str:
        Keys(model=plain(name))
        return name

    @field_validator("rating_scale")
    @classmethod
    def _a_range(cls, text: str) -> str:
        rating_range(text)
        return text

    @property
    def decode_rules(self) -> "DecodeRules":
        """What fits, to trainer, scorers and whoever reads a file of events."""
        from consumers.decode import DecodeRules  # here: it needs numpy, and most commands have no use for it

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


def rating_range(text: str) -> tuple[float, float] | None:
    """Lowest and highest of `TIDEMILL_RATING_SCALE`; None of an empty text. Raises ValueError.

    >>> rating_range("0.5, 5")
    (0.5, 5.0)
    """
    if not text.strip():
        return None
    low, comma, high = text.partition(",")
    try:
        found = float(low), float(high)
    except ValueError:
        comma = ""
    if not comma or not all(abs(end) <= RATING_AT_MOST for end in found) or found[0] >= found[1]:
        raise ValueError("lowest and highest rating with a comma between them, such as 1,5")
    return found


class TrainerSettings(CommonSettings):
    metrics_port: MetricsPort = Field(
        None, ge=0, le=65535, description="port of /metrics and /health; unset: 9401, or the next free one; 0: any"
    )
    batch_events: int = Field(1024, ge=1, le=100_000, description="a micro-batch closes at this many events")
    batch_wait_ms: float = Field(
        50.0, ge=0, le=HOUR_S * 1000, description="or this many milliseconds after its first record"
    )
    publish_interval_ms: float = Field(100.0, ge=0, le=HOUR_S * 1000, description="least time between two versions")
    snapshot_interval_s: float = Field(
        300.0, gt=0, le=MONTH_S, description="a full version at least this often, in seconds"
    )
    chain_limit: int = Field(
        500, ge=1, le=100_000, description="a full version after this many deltas: bounds a cold start"
    )
    chain_bytes_ratio: float = Field(
        4.0,
        gt=0,
        le=1000,
        description="or once the deltas weigh this many times the last full version: bounds Redis memory",
    )
    lease_seconds: float = Field(2.5, gt=0.2, le=300, description="a dead trainer's lease runs out after this long")
    keep_snapshots: int = Field(3, ge=1, le=1000, description="full versions kept as targets of a rollback")
    reader_grace_seconds: float = Field(
        5.0, ge=0, le=HOUR_S, description="versions younger than this are never deleted"
    )
    checkpoint_url: Plain = Field(
        "", description="folder for what only trainers read, any fsspec URL (file://, s3:// ...); empty: Redis"
    )
    device: str = Field("auto", description="auto (CUDA if there is one), cpu, cuda, cuda:1 ...")
    seed: int = Field(20260105, ge=0, le=2**63 - 1, description="everything random comes from this and the ids")
    replay: int = Field(
        1, ge=0, le=16, description="past events that the network learns again for each new one, when there is time"
    )
    adapt: bool = Field(
        True, description="while the trainer is behind, learn less from each event, so that new ones are counted soon"
    )
    network: Literal["off", "decay", "gru", "transformer"] = Field(
        "off", description="a network beside the neighbours, with this encoder of histories; transformer is for a GPU"
    )
    purchase_weight: float = Field(
        0.0, ge=0, le=1, description="how much the chance of a purchase counts in a list, beside that of any event"
    )
    max_items: int = Field(
        5_000_000,
        ge=1,
        le=MOST_ROWS,
        description="item rows kept; beyond, those of deleted items and then those unused longest are reused. One "
        "micro-batch that needs more has them for that long",
    )
    max_users: int = Field(
        2_000_000, ge=1, le=MOST_ROWS, description="users whose history the trainer keeps; beyond, as above"
    )
    evaluate_sample: int = Field(
        32,
        ge=0,
        le=100_000,
        description="events of each micro-batch ranked before they are learned from; fewer of a model with many items",
    )
    checkpoint_interval_s: float = Field(
        0.0,
        ge=0,
        le=MONTH_S,
        description="least seconds between two versions that hold the trainer's own state; what was learned in between "
        "is learned again after a crash. 0: every version is a checkpoint",
    )
    gate: bool = Field(True, description="compare each version with one known to be good before it goes live")
    promote_after_s: float = Field(
        0.0,
        ge=0,
        le=MONTH_S,
        description="a pointer pinned by `rollback` is set free after so many seconds; 0: only by `promote`",
    )
    fresh: bool = Field(False, description="begin anew instead of continuing from the newest version (or: --fresh)")
    adopt_unsigned: bool = Field(
        False, description="with a signing key: continue from versions that are not signed; for one start"
    )

    @field_validator("device")
    @classmethod
    def _there(cls, device: str) -> str:
        if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,3})?", device):
            raise ValueError("auto, cpu, cuda, or cuda:1 and so on")
        if device.startswith("cuda"):
            import torch  # here: only who asks for a GPU waits for it

            found = torch.cuda.device_count()
            if int(device.partition(":")[2] or 0) >= found:
                raise ValueError(f"there are {found} such GPUs here; auto takes one where there is one, cpu none")
        return device

    @field_validator("checkpoint_url")
    @classmethod
    def _a_folder(cls, url: str) -> str:
        if url:
            from model_store.blob_folder import BlobFolder  # here: it knows many filesystems

            try:
                BlobFolder(url)
            except ModelStoreError as error:
                raise ValueError(str(error)) from error
        return url


class ScorerSettings(CommonSettings):
    metrics_port: MetricsPort = Field(
        None, ge=0, le=65535, description="port of /metrics and /health; unset: the first free one from 9402 on"
    )
    consumer_group: Plain = Field(
        "tidemill-scorers", min_length=1, max_length=200, description="Kafka consumer group that shares `events`"
    )
    session_timeout_ms: int = Field(
        6000, ge=1000, le=1_800_000, description="a dead scorer's partitions move after this long"
    )
    top_k: int = Field(50, ge=1, le=1000, description="items in a list, at most")
    hide_seen: Literal["none", "bought", "all"] = Field("none", description="items of the user's own left out of lists")
    recs_ttl_s: int = Field(7 * 24 * 3600, ge=1, le=DECADE_S, description="seconds a list lives in Redis")
    history_ttl_s: int = Field(90 * 24 * 3600, ge=1, le=DECADE_S, description="seconds a user's history lives in Redis")
    window_ms: float = Field(
        2.0, ge=0, le=10_000, description="events of this long are answered together, one list a user"
    )
    reload_poll_ms: float = Field(20.0, gt=0, le=60_000, description="how often the live pointer is looked at")
    refresh_interval_ms: float = Field(
        500.0, ge=0, le=MONTH_S * 1000, description="least age of a list before newer weights rewrite it"
    )
    list_budget: float = Field(
        0.9, gt=0, le=1, description="share of one core that lists may take; histories always come first"
    )
    active_seconds: float = Field(
        1800.0, gt=0, le=MONTH_S, description="a user is recently active for this long after an event"
    )
    max_active_users: int = Field(200_000, ge=1, le=MOST_ROWS, description="users whose history is held in memory")


class CommandSettings(CommonSettings):
    """For the commands that only look or steer: recs, versions, rollback, promote, replay."""
