"""A TCP proxy for tests: the network between two processes, which can be cut, fall silent, be slow, and heal."""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16


class Proxy:
    """Forwards one port of this machine to another.

    `target` may be changed at any time, as the address behind a name: connections made from then on lead there.
    """

    def __init__(self, target: int | None = None) -> None:
        self.target = target
        self.delay_s = 0.0  # each way, for every piece of data: latency, not bandwidth
        self._silent = threading.Event()
        self._refusing = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Every connection breaks, and no new one is answered, as when the other machine is down."""
        self._refusing = True
        self._break()

    def go_silent(self) -> None:
        """Nothing gets through and nothing is closed: packets are dropped on the way."""
        self._silent.set()

    def heal(self, *, forget: bool = False) -> None:
        """All is well again; what was under way arrives late. With `forget` the connections of the silent time stay
        silent for ever, as behind a firewall that has forgotten them, and only new ones work."""
        if forget:
            with self._lock:
                self._pairs.clear()
            old, self._silent = self._silent, threading.Event()
            assert old.is_set()
        self._silent.clear()
        self._refusing = False

    def lead_to(self, target: int) -> None:
        """The name leads elsewhere now: connections to the old place break."""
        self.target = target
        self._break()

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _break(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(client, self._silent), daemon=True).start()

    def _join(self, client: socket.socket, silent: threading.Event) -> None:
        while silent.is_set():  # accepted by the machine, answered by nobody
            time.sleep(0.01)
        if self._refusing or self.target is None:
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._pairs.add((client, server))
        if self._refusing:  # cut meanwhile
            self._break()
        other = threading.Thread(target=self._forward, args=(server, client, silent), daemon=True)
        other.start()
        self._forward(client, server, silent)
        other.join()
        with self._lock:
            self._pairs.discard((client, server))
        client.close()
        server.close()

    def _forward(self, source: socket.socket, sink: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if self.delay_s:
                    time.sleep(self.delay_s)
                while silent.is_set():
                    time.sleep(0.01)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
