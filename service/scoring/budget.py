"""How much time may be spent on lists. Pure: the clock is passed in."""

BURST_S = 0.25  # seconds that may be saved up


class Budget:
    """Earns a share of the time that passes. `left_s` may fall below 0, and the caller spends only while it is
    above."""

    def __init__(self, share: float, now: float) -> None:
        """`share`: of one core, above 0 and at most 1. `now`, here and in `earn`: seconds of one clock."""
        self.left_s = 0.0
        self._share = share
        self._at = now

    def earn(self, now: float) -> None:
        """Adds the share of the time since the last call."""
        self.left_s = min(BURST_S, self.left_s + (now - self._at) * self._share)
        self._at = now

    def spend(self, seconds: float) -> None:
        self.left_s -= seconds
