"""Whom to watch: one shopper at a time, somebody who is doing something."""

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

_WATCHED_AT_LEAST = 10.0  # seconds, so that one can read
_QUIET_AFTER = 12.0  # seconds without an action, and we look at somebody else
_REMEMBERED_USERS = 2_000
_ACTIONS = 10


class Action(NamedTuple):
    at: float  # seconds, by the caller's clock
    type: str
    item_id: str | None
    query: str | None = None


@dataclass(slots=True)
class _Seen:
    count: int = 0
    actions: deque[Action] = field(default_factory=lambda: deque(maxlen=_ACTIONS))


class Spotlight:
    """Noted by the thread that publishes, asked by the one that draws."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: OrderedDict[str, _Seen] = OrderedDict()  # who acted last comes last
        self._watched: str | None = None
        self._since = 0.0

    def note(self, user_id: str, action: Action) -> None:
        with self._lock:
            seen = self._users.get(user_id)
            if seen is None:
                seen = self._users[user_id] = _Seen()
                if len(self._users) > _REMEMBERED_USERS:
                    oldest = next(user for user in self._users if user != self._watched)
                    del self._users[oldest]
            else:
                self._users.move_to_end(user_id)
            seen.count += 1
            seen.actions.append(action)

    def watched(self, now: float) -> tuple[str, list[Action]] | None:
        """Who, and what they did, the latest first. None before anybody did anything."""
        with self._lock:
            quiet = self._watched is None or self._is_quiet(self._users[self._watched], now)
            if quiet and (self._watched is None or now - self._since >= _WATCHED_AT_LEAST):
                self._choose(now)
            if self._watched is None:
                return None
            return self._watched, list(reversed(self._users[self._watched].actions))

    @staticmethod
    def _is_quiet(seen: _Seen, now: float) -> bool:
        return now - seen.actions[-1].at > _QUIET_AFTER

    def _choose(self, now: float) -> None:
        """The one with the most actions of those who acted a moment ago."""
        lively = [(seen.count, user) for user, seen in self._users.items() if not self._is_quiet(seen, now)]
        if lively:
            self._watched, self._since = max(lively)[1], now
