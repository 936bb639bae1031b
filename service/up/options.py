"""What `tidemill up` can be asked for."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from consumers.decode import DecodeRules
from model_store.keys import Keys


def _command(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "service.supervised", name)


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `tidemill up` was asked. Wrong combinations are a ValueError whose message is one line."""

    demo: bool = False
    events: Path | None = None  # a file in place of the simulated shop; needs demo
    items: Path | None = None  # the catalogue to that file
    rate: float | None = None  # events per second; 300 for the shop, 500 for a file
    speed: float | None = None  # how many times faster than the file's own `ts`
    seconds: float | None = None  # end by itself after so long
    scorers: int = 1
    bootstrap: str | None = None  # None: an embedded Kafka
    redis_url: str | None = None  # None: an embedded Redis
    events_topic: str = "events"
    rules: DecodeRules = field(default_factory=DecodeRules)  # what fits; with the topic of the items
    kafka: Mapping[str, str | int | float | bool] = field(default_factory=dict)  # further librdkafka settings
    keys: Keys = field(default_factory=Keys)
    fresh: bool = False  # the trainer begins anew
    seed: int = 0  # of the simulated shop
    logs: Path | None = None  # keep each process's log in this folder
    trainer_command: tuple[str, ...] = field(default_factory=lambda: _command("trainer"))
    scorer_command: tuple[str, ...] = field(default_factory=lambda: _command("scorer"))
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))  # of the child processes

    def __post_init__(self) -> None:
        if not self.demo and (self.events or self.items or self.rate or self.speed):
            raise ValueError("--events, --items, --rate and --speed need --demo")
        if self.rate is not None and self.speed is not None:
            raise ValueError("--rate and --speed exclude each other")
        if self.events is None and (self.items is not None or self.speed is not None):
            raise ValueError("--items and --speed need --events")
        for name, value in (("--rate", self.rate), ("--speed", self.speed), ("--seconds", self.seconds)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} is a number above 0")
        if self.scorers < 1:
            raise ValueError("--scorers is at least 1")
