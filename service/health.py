"""Whether a process is well: what works and what does not.

`/health` (see health_server.py) answers 200 while everything works and 503 while something does not, with the reasons
as JSON:
`{"status": "ok" | "starting" | "degraded", "process": "trainer", "checks": {"redis": "ok", ...}, ...}`.
"""

import logging
import threading
from collections.abc import Mapping

from prometheus_client import Gauge

log = logging.getLogger(__name__)
OK = "ok"


class Health:
    """What works and what does not, by name; a process sets it, `/health` shows it. Safe across threads."""

    def __init__(self, process: str, gauge: Gauge | None = None) -> None:
        """`gauge` has the label `check` and shows each one as 1 or 0."""
        self._process = process
        self._gauge = gauge
        self._lock = threading.Lock()
        self._checks: dict[str, str] = {}
        self._facts: dict[str, object] = {}
        self._started = False

    def set(self, check: str, state: str = OK) -> None:
        """`state` is "ok" or one line that says what is wrong. Changes are logged once."""
        with self._lock:
            before = self._checks.get(check)
            self._checks[check] = state
            if self._gauge is not None and before != state:
                self._gauge.labels(check).set(state == OK)
        if before != state and not (before is None and state == OK):
            (log.info if state == OK else log.warning)("%s: %s", check, state)

    def fact(self, name: str, value: object) -> None:
        """Something worth knowing that is neither good nor bad, such as the model version."""
        with self._lock:
            self._facts[name] = value

    def started(self) -> None:
        self._started = True

    def report(self) -> tuple[bool, Mapping[str, object]]:
        with self._lock:
            checks, facts = dict(self._checks), dict(self._facts)
        good = self._started and all(state == OK for state in checks.values())
        status = "ok" if good else "degraded" if self._started else "starting"
        return good, {"status": status, "process": self._process, "checks": checks, **facts}
