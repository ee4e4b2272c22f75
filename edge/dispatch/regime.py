"""What is said to the user of the ways that frames take: the mix and its reason."""

from __future__ import annotations

from collections import Counter, deque

from splitpoint.partition.significant import significant

MOST, LATEST_S = 60, 5.0  # frames that make a mix
FEWEST, HOLD_S = 10, 3.0  # before anything is said, and between two lines
MOVED = 0.4  # of the frames take another way than was said: that is another regime
SHOWN = 0.1  # smaller shares are not named


class Regime:
    """Sums up the ways of the latest frames. Times are of any clock that never goes back."""

    def __init__(self) -> None:
        self._latest: deque[tuple[float, str]] = deque(maxlen=MOST)
        self._said: dict[str, float] = {}
        self._said_s, self._said_dead = 0.0, False

    def took(self, now_s: float, way: str) -> None:
        """A frame took this way."""
        self._latest.append((now_s, way))

    def change(self, now_s: float, uplink_mbps: float) -> str | None:
        """A line about the mix, where it is another one than was said last.

        An uplink of 0 lets nothing through: that it is so, and no longer, is worth a line, too.
        """
        while self._latest and now_s - self._latest[0][0] > LATEST_S:
            self._latest.popleft()
        if len(self._latest) < FEWEST or (self._said and now_s - self._said_s < HOLD_S):
            return None
        counts = Counter(way for _, way in self._latest)
        mix = {way: count / len(self._latest) for way, count in counts.most_common()}
        ways = {*mix, *self._said}
        moved = sum(abs(mix.get(way, 0.0) - self._said.get(way, 0.0)) for way in ways) / 2
        dead = uplink_mbps <= 0
        if moved < MOVED and dead == self._said_dead:
            return None
        self._said, self._said_s, self._said_dead = mix, now_s, dead
        shown = {way: share for way, share in mix.items() if share >= SHOWN}
        words = ", ".join(f"{100 * share:.0f} % {way}" for way, share in shown.items())
        return f"uplink {uplink_words(uplink_mbps)}: {words}"


def uplink_words(mbps: float) -> str:
    """The rate of an uplink, or that it has none."""
    return f"{significant(mbps, 2)} Mbit/s" if mbps > 0 else "dead (nothing comes through)"
