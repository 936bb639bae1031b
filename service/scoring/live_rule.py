"""The rule by which a scorer makes histories: that of the live version.

Histories made by other settings than the trainer's would skew every list, and nothing would show it. The scorer's own
settings serve until there is a version.
"""

import logging
from collections.abc import Callable

from service.health import Health
from service.model.config import HistoryConfig
from service.model.history import HistoryRule
from service.settings import ScorerSettings

log = logging.getLogger(__name__)

FACT = "settings_of_the_version"
"""The entry in /health that names where the live version differs from this scorer's settings."""


class LiveRule:
    """`current` is the rule; `follow` takes over the live version's. Used by one thread."""

    def __init__(self, settings: ScorerSettings, health: Health, live: Callable[[], HistoryConfig | None]) -> None:
        """`live` returns the section `history` of the live version's configuration; None before there is a version."""
        self.current = own_rule(settings)
        self._own, self._health, self._live = self.current, health, live
        self._followed: HistoryConfig | None = None
        self._said: list[str] = []

    def follow(self) -> None:
        """Takes over the rule of the live version. To be called between events."""
        config = self._live()
        if config is None or config is self._followed:
            return
        self._followed = config
        self.current = HistoryRule.of(config)
        if (differing := differences(self._own, self.current)) != self._said:
            self._said = differing
            self._health.fact(FACT, differing)
            for each in differing:
                log.warning("the live version's settings are followed, not this scorer's: %s", each)


def own_rule(settings: ScorerSettings) -> HistoryRule:
    """The rule of this scorer's settings."""
    return HistoryRule(settings.history_length, settings.event_weights, settings.rating_range)


def differences(own: HistoryRule, live: HistoryRule) -> list[str]:
    """The differences of the two rules in words, one entry a setting."""
    found = []
    if own.length != live.length:
        found.append(f"history_length {live.length}, here {own.length}")
    for kind in sorted(own.event_weights.keys() | live.event_weights.keys()):
        ours, theirs = (_weight(rule, kind) for rule in (own, live))
        if ours != theirs:
            found.append(f"event_weights {kind} {theirs}, here {ours}")
    if own.rating_scale != live.rating_scale:
        ours, theirs = (_scale(rule.rating_scale) for rule in (own, live))
        found.append(f"rating_scale {theirs}, here {ours}")
    return found


def _weight(rule: HistoryRule, kind: str) -> str:
    return f"{rule.event_weights[kind]:g}" if kind in rule.event_weights else "(not accepted)"


def _scale(scale: tuple[float, float] | None) -> str:
    return "(none)" if scale is None else f"{scale[0]:g},{scale[1]:g}"
