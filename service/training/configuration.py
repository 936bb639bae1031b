"""What the weights depend on besides the events: told by every manifest, and compared when a model is continued."""

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from model_store.version import Manifest
from service.process import Fatal
from service.settings import TrainerSettings
from service.training.learner_config import LearnerConfig

# where it is computed and how much is measured: no weight depends on these
_NOT_TOLD = ("device", "evaluate_sample")
# may differ from run to run of one model: they say what is forgotten when there is no more room
LIMITS = ("max_items", "max_users")


def learner_config(settings: TrainerSettings, device: str) -> LearnerConfig:
    return LearnerConfig(
        seed=settings.seed,
        device=device,
        event_types=tuple(settings.event_weights),
        event_weights=tuple(settings.event_weights.values()),
        rating_scale=settings.rating_range,
        history=settings.history_length,
        evaluate_sample=settings.evaluate_sample,
        max_items=settings.max_items,
        max_users=settings.max_users,
    )


def told(config: LearnerConfig, event_types: list[str]) -> dict[str, Any]:
    """The configuration as a manifest tells it; `config_of` is the way back."""
    known = {name: getattr(config, name) for name in _told_as_it_is()}
    known["event_weights"] = dict(zip(event_types, config.event_weights, strict=False))
    known["half_lives"] = list(config.half_lives)
    if config.rating_scale is not None:  # releases that knew no scale told none
        known["rating_scale"] = list(config.rating_scale)
    return known


def config_of(config: Mapping[str, Any], device: str) -> tuple[LearnerConfig, dict[str, float]]:
    """The learner's configuration, and the event types with their weights. Raises Fatal for another schema."""
    given = dict(config)
    weights: dict[str, float] = given.pop("event_weights", {})
    given["half_lives"] = tuple(given.get("half_lives", ()))
    scale = given.pop("rating_scale", None)
    expected = _told_as_it_is() | {"half_lives"}
    if given.keys() != expected:
        odd = ", ".join(sorted(given.keys() ^ expected))
        raise Fatal(f"the version is of another schema of settings than this build's: {odd}")
    made = LearnerConfig(
        device=device,
        event_types=tuple(weights),
        event_weights=tuple(weights.values()),
        rating_scale=None if scale is None else tuple(scale),
        **given,
    )
    return made, weights


def _told_as_it_is() -> set[str]:
    """The fields that a manifest holds under their name and as they are."""
    apart = {"event_types", "event_weights", "rating_scale", "half_lives"}
    return {field.name for field in fields(LearnerConfig)} - apart - set(_NOT_TOLD)


def config_digest(config: LearnerConfig, event_types: list[str]) -> str:
    """Two trainers with the same digest make the same weights of the same micro-batches."""
    neutral = {name: value for name, value in told(config, event_types).items() if name not in LIMITS}
    neutral["event_types"] = list(event_types)  # objects have no order, and the types' order numbers them
    return hashlib.sha256(orjson.dumps(neutral, option=orjson.OPT_SORT_KEYS)).hexdigest()


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`name then → now` of each entry that differs, by name."""
    return [
        f"{name} {_shown(then, name)} → {_shown(now, name)}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def environment(device: str) -> dict[str, str | int]:
    """What computes: weights are the same bit for bit only where this is the same, but for the version of Tidemill."""
    found: dict[str, str | int] = {
        "tidemill": version("tidemill"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = str(torch.version.cuda)
    return found


def compute_as(made: Manifest) -> None:
    """From now on with as many threads as computed this version: sums of another number differ in their last bits."""
    torch.set_num_threads(int(made.environment.get("threads", torch.get_num_threads())))


@cache
def _processor() -> str:
    """Its model, where the system tells, else its architecture."""
    if os.path.exists("/proc/cpuinfo"):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _shown(values: Mapping[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "(none)"
