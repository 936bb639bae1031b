"""Settings in words: which there are, and what is wrong with those that were given."""

import re
from typing import Any

from pydantic import ValidationError

from service.settings import CommonSettings, ScorerSettings, TrainerSettings

_SECRET = {"kafka_config", "redis_url", "signing_key", "checkpoint_url"}  # or may hold one
_SHOWN_CHARS = 60


def complaint(error: ValueError) -> str:
    """What a ValidationError or a SettingsError says, as one line: of each setting the variable, its value unless that
    may be secret, and why it is refused."""
    if not isinstance(error, ValidationError):
        field = re.search(r'field "(\w+)"', str(error))
        return f"TIDEMILL_{field[1].upper()}: not valid JSON" if field else str(error)
    told: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        name, *place = map(str, problem["loc"])
        value = "" if name in _SECRET or "@" in str(problem["input"]) else f"={_shown_value(problem['input'])}"
        where = f"{place[0]}: " if place else ""
        told.setdefault(name, f"TIDEMILL_{name.upper()}{value}: {where}{problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(told.values())


def _shown_value(value: object) -> str:
    return "".join(char if char.isprintable() else "?" for char in str(value)[:_SHOWN_CHARS])


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
