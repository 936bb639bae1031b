"""A model's configuration with channels left out and options changed: what `--off` and `--set` say."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from service.model.config import ModelConfig
from service.model.registry import KINDS, NETWORK, NEW_MODEL, parse


class WrongChange(ValueError):
    """A change that cannot be made; the message is one line."""


def changed(config: ModelConfig, off: Sequence[str] = (), changes: Sequence[str] = ()) -> ModelConfig:
    """`off`: channels to leave out. `changes`: each `channel.option=value`, or another section's, or `seed=value`.

    A value is JSON where it can be read so, and else text. Setting an option of a channel that is off switches it on,
    with what a new model would have for its other options.

    Raises: WrongChange. Whether a channel is off that another one needs shows when the model is made.
    """
    said = config.to_json()
    for channel in off:
        if channel not in KINDS:
            raise WrongChange(f"--off {channel}: there is no such channel; there are {_listed(KINDS)}")
        said["channels"].pop(channel, None)
    if not said["channels"]:
        raise WrongChange("--off leaves no channel")
    for change in changes:
        _apply(said, change, off)
        try:
            config = parse(said)  # here, so that the message names the change
        except (ValueError, TypeError) as error:
            raise WrongChange(f"--set {change}: {error}") from None
    return parse(said)


def _apply(said: dict[str, Any], change: str, off: Sequence[str]) -> None:
    path, equals, value = change.partition("=")
    names = path.split(".")
    if not equals or not all(names):
        raise WrongChange(f"--set {change}: it is channel.option=value")
    if names[0] in off:
        raise WrongChange(f"--set {change}: the channel is off")
    place: Any = _sections(said)
    for depth, name in enumerate(names):
        if not isinstance(place, dict) or name not in place:
            where = ".".join(names[:depth])
            what = f"{where} has no option {name!r}" if where else f"there is no channel or section {name!r}"
            known = f"; there are {_listed(place)}" if isinstance(place, dict) else ""
            raise WrongChange(f"--set {change}: {what}{known}")
        if depth < len(names) - 1:
            place = place[name]
    if len(names) == 1 and isinstance(place[names[0]], dict):
        raise WrongChange(f"--set {change}: {names[0]} has options: {_listed(place[names[0]])}")
    if names[0] in KINDS:
        said["channels"].setdefault(names[0], _sections(said)[names[0]])
    place = said["channels"] if names[0] in KINDS else said
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = _value(value)


def _sections(said: Mapping[str, Any]) -> dict[str, Any]:
    """All that can be set: by channel, those that are not in the configuration too, and by other section."""
    absent = {
        name: section.model_dump(mode="json") for name, section in {**NEW_MODEL.channels, "network": NETWORK}.items()
    }
    return {**absent, **said["channels"], **{name: part for name, part in said.items() if name != "channels"}}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"
