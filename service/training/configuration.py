"""What the weights depend on besides the events: in every manifest, and compared when a model is continued."""

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
from service.model.channels.network import NetworkConfig
from service.model.config import HistoryConfig, Limits, ModelConfig
from service.model.registry import NETWORK, NEW_MODEL, UnknownConfig, parse
from service.process import Unmendable
from service.settings import TrainerSettings

DEFAULT_LENGTH = TrainerSettings.model_fields["history_length"].default


def model_config(settings: TrainerSettings) -> ModelConfig:
    """The configuration of a new model, by the settings."""
    channels, ranker = dict(NEW_MODEL.channels), NEW_MODEL.ranker
    assert ranker is not None, "a new model has a ranker"
    if settings.network != "off":
        channels["network"] = NETWORK.model_copy(update={"encoder": settings.network})
    return replace(
        NEW_MODEL,
        seed=settings.seed,
        channels=channels,
        ranker=ranker.model_copy(update={"purchases": settings.purchase_weight}),
        history=HistoryConfig(
            length=settings.history_length,
            event_weights=settings.event_weights,
            rating_scale=settings.rating_range,
        ),
        limits=Limits(max_items=settings.max_items, max_users=settings.max_users),
    )


def continued(then: ModelConfig, wanted: ModelConfig) -> ModelConfig:
    """The configuration with which a model goes on: `then` is the model's, `wanted` that of the settings.

    What no setting covers stays as it was in `then`, also where a new model would begin with something else. Limits are
    those wanted. Event types of weight 0 may be added, since their events are only counted. The types are in the order
    of `wanted`, which is the feeder's numbering.

    A model of an earlier release keeps the histories' length of its time, unless a setting says another.

    Raises: ValueError, naming the other differences.
    """
    if then.ranker is None and wanted.history.length == DEFAULT_LENGTH:
        wanted = replace(wanted, history=wanted.history.model_copy(update={"length": then.history.length}))
    if then.ranker is not None and wanted.ranker is not None:
        asked_for = {
            "ranker.purchases": (then.ranker.purchases, wanted.ranker.purchases),
            "network": (_encoder(then), _encoder(wanted)),
        }
        if changed := [f"{name} {was} → {now}" for name, (was, now) in asked_for.items() if was != now]:
            raise ValueError(", ".join(changed))
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


def _encoder(config: ModelConfig) -> str:
    network = config.channels.get("network")
    return network.encoder if isinstance(network, NetworkConfig) else "off"


def config_of(manifest: Head) -> ModelConfig:
    """The configuration of a version of this release or an earlier one. Raises: Unmendable for a later release's."""
    try:
        return parse(manifest.config)
    except UnknownConfig as error:
        raise Unmendable(f"version {manifest.version} was made by another release than this one: {error}") from None


def config_digest(config: ModelConfig) -> str:
    """A digest of all but the limits: trainers with the same digest make the same weights of the same micro-batches."""
    neutral = {name: value for name, value in config.to_json().items() if name != "limits"}
    return hashlib.sha256(orjson.dumps(neutral, option=orjson.OPT_SORT_KEYS)).hexdigest()


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`name then → now` for each entry that differs, sorted by name; an entry of a section is `section.name`."""
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
    """What computes: versions, processor, threads, device. Where any but Tidemill's version differs, weights may differ
    in their last bits."""
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
    """Sets torch's number of threads to that of a version: with another number, sums differ in their last bits."""
    torch.set_num_threads(int(made.environment.get("threads", torch.get_num_threads())))


@cache
def _processor() -> str:
    """The processor's model where the system names it, else its architecture."""
    if os.path.exists("/proc/cpuinfo"):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _shown(values: Mapping[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "(none)"
