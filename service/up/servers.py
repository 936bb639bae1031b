"""The Kafka and the Redis of a run: those that are configured, or embedded ones that live as long as the run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.leash import Child
from service.local import LocalServer
from service.up.supervisor import GaveUpError


@dataclass(frozen=True, slots=True)
class Server:
    name: str  # "Kafka" or "Redis"
    address: str  # as clients take it: bootstrap servers, or a URL
    child: Child | None = None  # the process of an embedded one

    @property
    def embedded(self) -> bool:
        return self.child is not None

    @property
    def shown(self) -> str:
        """The address as people may see it."""
        return without_password(self.address) + (" (embedded)" if self.embedded else "")

    def check(self) -> None:
        """Raises GaveUpError when an embedded one has died: nothing is on disk, so there is nothing to go on from."""
        if self.child is not None and self.child.poll() is not None:
            raise GaveUpError(f"the embedded {self.name} has died, and everything that was in it: start again")


@contextmanager
def configured_or_embedded(name: str, address: str | None, start: Callable[[], LocalServer]) -> Iterator[Server]:
    """The server at the address, or one that `start` makes and that ends with the context. Raises CannotStartError."""
    if address is not None:
        yield Server(name, address)
        return
    local = start()
    try:
        yield Server(name, local.address, local.child)
    finally:
        local.child.close()


def without_password(url: str) -> str:
    """The URL as it may be shown; what has no password, as it is.

    >>> without_password("redis://tidemill:secret@redis:6379/0")
    'redis://…@redis:6379/0'
    """
    scheme, _, rest = url.partition("://")
    return f"{scheme}://…@{rest.rpartition('@')[2]}" if "@" in rest else url
