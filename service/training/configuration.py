"""What the weights depend on besides the events: told by every manifest, and compared when a model is continued."""

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from model_store.version import Head
from service.model.config import HistoryConfig, Limits, ModelConfig
from service.model.registry import NEW_MODEL, UnknownConfig, parse
from service.process import Unmendable
from service.settings import TrainerSettings


def model_config(settings: TrainerSettings) -> ModelConfig:
    """What a new model is made of, as the settings say."""
    return replace(
        NEW_MODEL,
        seed=settings.seed,
        history=HistoryConfig(
            length=settings.history_length,
            event_weights=settings.event_weights,
            rating_scale=settings.rating_range,
        ),
        limits=Limits(max_items=settings.max_items, max_users=settings.max_users),
    )


def continued(then: ModelConfig, wanted: ModelConfig) -> ModelConfig:
    """The configuration of a model that goes on: all that no setting is about is the model's own, also where a new
    one would begin with something else today. Types of weight 0 may come to those that are accepted: their events are
    only counted. The types are in the order of `wanted`, in which the feeder numbers them.

    Raises: ValueError, naming what is asked for that the model is not made of.
    """
    weights = then.history.event_weights
    added = {
        kind: weight for kind, weight in wanted.history.event_weights.items() if kind not in weights and not weight
    }
    grown = then.history.model_copy(update={"event_weights": weights | added})
    config = replace(then, history=grown, limits=wanted.limits)
    asked = replace(config, seed=wanted.seed, history=wanted.history)
    if config_digest(asked) != config_digest(config):
        raise ValueError(", ".join(differences(config.to_json(), asked.to_json())))
    return asked


def config_of(manifest: Head) -> ModelConfig:
    """What a version is made of, also one of an earlier release. Raises: Unmendable for a later one's."""
    try:
        return parse(manifest.config)
    except UnknownConfig as error:
        raise Unmendable(f"version {manifest.version} was made by another release than this one: {error}") from None


def config_digest(config: ModelConfig) -> str:
    """Two trainers with the same digest make the same weights of the same micro-batches. Limits have no part in it."""
    neutral = {name: value for name, value in config.to_json().items() if name != "limits"}
    return hashlib.sha256(orjson.dumps(neutral, option=orjson.OPT_SORT_KEYS)).hexdigest()


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`name then → now` of each entry that differs, by name; the entries of sections as `section.name`."""
    left, right = _flat(then), _flat(now)
    return [
        f"{name} {_shown(left, name)} → {_shown(right, name)}"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


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


def compute_as(made: Head) -> None:
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
