"""Dead letters that their topic refuses: kept on the shelf, and sent again until the topic takes them."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from consumers.dead_letters import DeadLetters
from consumers.letters import Refused
from consumers.shelf import Shelf, ShelfAway, fitting
from service.health import OK, Health
from service.metrics import TrainerMetrics

log = logging.getLogger(__name__)

PENDING_LETTERS = 1_000  # in memory while the shelf is away, 30 MB at most; then the trainer takes no more messages
AGAIN_EVERY_S = 60.0  # between two attempts to send what is on the shelf
SHELF_AGAIN_S = 1.0  # between two attempts to reach the shelf
PAGE = 100  # letters sent together
DELIVERY_S = 10.0  # for a page; what is not delivered by then is sent at the next attempt
_CHECK = "dead_letters"


class RefusedLetters:
    """Keeps the letters that the feeder could not deliver. A thread of its own talks to the shelf, so that a silent
    shelf does not stop learning.

    A version may be published only while `kept`: else a letter of a record that it covers could be lost.
    """

    def __init__(
        self,
        shelf: Shelf,
        topics: Sequence[str],
        new_dead_letters: Callable[[], DeadLetters],
        *,
        metrics: TrainerMetrics,
        health: Health,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`new_dead_letters` opens the way to the dead-letter topics; it is closed after each attempt to send."""
        self._shelf, self._topics, self._new_dead_letters = shelf, tuple(topics), new_dead_letters
        self._metrics, self._health, self._clock = metrics, health, clock
        self._pending: deque[Refused] = deque()
        self._why = ""  # the latest refusal, in the broker's words
        self._again_at = clock()  # at once, since an earlier run may have left letters
        self._wake, self._kept, self._stopping = threading.Event(), threading.Event(), threading.Event()
        self._kept.set()
        self._thread = threading.Thread(target=self._run, name="refused-letters", daemon=True)

    def put(self, refused: Refused) -> None:
        """Takes a letter; does not wait."""
        self._metrics.letters_refused.labels(refused.letter.topic).inc()
        self._kept.clear()
        self._pending.append(fitting(refused))
        self._wake.set()

    @property
    def kept(self) -> bool:
        """Whether every letter that was put is on the shelf or delivered."""
        return self._kept.is_set()

    def wait_kept(self, timeout_s: float) -> bool:
        """Waits until `kept`; False where that takes longer."""
        return self._kept.wait(timeout_s)

    @property
    def full(self) -> bool:
        """Whether no more letters are to be put for now."""
        return len(self._pending) >= PENDING_LETTERS

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread. The next trainer reads the records of letters that are not on the shelf again."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(1.0)  # it may be waiting for a broker or for Redis

    def step(self) -> float:
        """Puts waiting letters on the shelf, and sends those on the shelf where it is time. Returns the seconds until
        the next step."""
        try:
            self._keep()
            if self._clock() >= self._again_at:
                self._send_again()
            self._show()
        except ShelfAway as error:
            self._health.set(_CHECK, f"the shelf of letters that their topic refuses is away: {error}")
            return SHELF_AGAIN_S
        return max(0.0, self._again_at - self._clock())

    def _keep(self) -> None:
        while self._pending:
            refused = self._pending[0]
            gone = self._shelf.put(refused)
            self._pending.popleft()
            self._why = refused.error
            if gone:
                self._metrics.letters_dropped.labels(refused.letter.topic).inc(gone)
                log.error("%d letters that %s refuses had to make room for newer ones", gone, refused.letter.address)
        self._kept.set()
        if self._pending:  # `put` was called meanwhile
            self._kept.clear()

    def _send_again(self) -> None:
        self._again_at = self._clock() + AGAIN_EVERY_S
        if not any(self._shelf.count(topic) for topic in self._topics):
            return
        dead_letters = self._new_dead_letters()
        try:
            for topic in self._topics:
                self._send_topic(topic, dead_letters)
        finally:
            dead_letters.close()

    def _send_topic(self, topic: str, dead_letters: DeadLetters) -> None:
        after = ""
        while page := self._shelf.page(topic, PAGE, after):
            dead_letters.send([refused.letter for _, refused in page])
            if not dead_letters.flush(DELIVERY_S):
                self._why = dead_letters.waits_for or f"no answer within {DELIVERY_S:g} s"
                return
            again = {refused.letter: refused.error for refused in dead_letters.take_refused()}
            delivered = [name for name, refused in page if refused.letter not in again]
            self._shelf.remove(topic, delivered)
            self._why = next(iter(again.values()), self._why)
            if not delivered:  # then it is the topic that refuses, more likely than these letters
                return
            log.info("%d letters that were refused are delivered to the dead letters of %s", len(delivered), topic)
            after = page[-1][0]

    def _show(self) -> None:
        told = []
        for topic in self._topics:
            count = self._shelf.count(topic)
            self._metrics.letters_shelved.labels(topic).set(count)
            if count:
                told.append(f"{count} of {topic}")
        kept = f"dead letters are refused and kept in Redis ({', '.join(told)}): {self._why}"
        self._health.set(_CHECK, kept if told else OK)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                wait_s = self.step()
            except Exception:  # or the thread would end, and with it publishing, in silence
                log.exception("letters that their topic refuses could not be kept; trying again")
                wait_s = SHELF_AGAIN_S
            self._wake.wait(wait_s)
