"""Keeps the child processes of `tidemill up` running: starts them, says when one dies, starts it again."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.leash import Child, describe, end_together
from service.local import free_port
from service.process import UNMENDABLE

QUICK_SECONDS = 20.0  # a process that dies sooner after its start counts as one that cannot run
QUICK_DEATHS = 5  # in a row, and we give up
_FIRST_PAUSE = 0.5  # seconds before a restart; doubles with each quick death
_LONGEST_PAUSE = 10.0
# exit statuses that do not get better by trying again
_USELESS = {2: "wrong usage", UNMENDABLE: "no new start would mend that"}
_TAIL_LINES = 12


class GaveUpError(RuntimeError):
    """A process cannot be kept running; the message is one line."""


@dataclass(slots=True)
class Service:
    """A process that is to run for as long as we do."""

    name: str  # as people see it: "trainer", "scorer-1"
    command: Sequence[str]
    port: int = field(default_factory=free_port)  # of its /metrics and /health on this machine
    child: Child | None = None
    started_at: float = 0.0  # by the supervisor's clock
    restart_at: float | None = None
    restarts: int = 0
    quick_deaths: int = 0  # in a row

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.poll() is None


class Supervisor:
    """`tell(line)` gets one line about each death, then the lines of the dead process's log, each indented."""

    def __init__(
        self,
        services: Sequence[Service],
        environment: Mapping[str, str],
        tell: Callable[[str], None],
        *,
        logs: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.services = list(services)
        self._environment = dict(environment)
        self._tell = tell
        self._logs = logs
        self._clock = clock

    def start(self) -> None:
        for service in self.services:
            self._start(service)

    def tend(self) -> None:
        """To be called a few times a second. Raises GaveUpError when a process dies again and again."""
        for service in self.services:
            if service.child is not None:
                status = service.child.poll()
                if status is None:
                    service.child.trim_log()
                else:
                    self._bury(service, service.child, status)
            elif service.restart_at is not None and self._clock() >= service.restart_at:
                service.restarts += 1
                self._start(service)

    def stop(
        self, services: Sequence[Service], grace_seconds: float, hurry: Callable[[], bool] = lambda: False
    ) -> None:
        """End some of the services together: SIGTERM, the grace, then SIGKILL."""
        children = [service.child for service in services if service.child is not None]
        late = {service.name for service in services if service.running}
        end_together(children, grace_seconds, hurry)
        for service in services:
            if service.child is not None:
                if service.name in late and service.child.stop() == -9:
                    self._tell(f"{service.name} did not end when asked, and was killed")
                service.child.close()
            service.child, service.restart_at = None, None

    def uptime(self, service: Service) -> float:
        """Seconds since the service was started last."""
        return self._clock() - service.started_at

    def endpoints(self) -> dict[str, str]:
        """Where each has its /metrics and /health: name -> "http://host:port". A restart may change it."""
        return {service.name: f"http://127.0.0.1:{service.port}" for service in self.services}

    def _start(self, service: Service) -> None:
        if not _is_free(service.port):
            service.port = free_port()
        environment = {**self._environment, "TIDEMILL_METRICS_PORT": str(service.port)}
        log_path = None if self._logs is None else self._logs / f"{service.name}.log"
        service.child = Child(service.command, environment=environment, log_path=log_path)
        service.started_at, service.restart_at = self._clock(), None

    def _bury(self, service: Service, child: Child, status: int) -> None:
        lived = self.uptime(service)
        service.quick_deaths = service.quick_deaths + 1 if lived < QUICK_SECONDS else 0
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** max(0, service.quick_deaths - 1))
        hopeless = status in _USELESS or service.quick_deaths >= QUICK_DEATHS
        tail = child.tail(_TAIL_LINES)
        child.close()  # ends also what it left behind
        service.child = None
        after = "" if hopeless else f", starting it again in {pause:g} s"
        told = "; the end of its log:" if tail else "; its log is empty"
        self._tell(f"{service.name} ended after {lived:.1f} s by itself ({describe(status)}){after}{told}")
        for line in tail:
            self._tell(f"    {line}")
        if hopeless:
            why = _USELESS.get(status, f"it died {service.quick_deaths} times in a row")
            raise GaveUpError(f"{service.name} cannot be kept running: {why}")
        service.restart_at = self._clock() + pause


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # as servers do: what a dead predecessor left in TIME_WAIT is no hindrance
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
