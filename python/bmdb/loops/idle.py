"""When the instances of a loop may look for work: all of them while there is some, else one, less and less often."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from bmdb.identity import Unique

# Seconds. The first pause doubles with each look in vain, up to the loop's max_idle, but not beyond the second while
# others have all the work, and up to the third after troubles.
FIRST_PAUSE = 0.25
LONGEST_CONFLICT = 1.0
LONGEST_TROUBLE = 30.0
# How long to wait for the look of another instance, whose end rings the bell anyway.
_ANOTHER_LOOKS = 60.0


class Idle(Unique):
    """The polling of one loop in one OS process. May be shared by threads.

    Whoever is told 0.0 by `turn` looks, and then says how that went, by one of `found`, `nothing`, `conflict`,
    `trouble` and `again`. After a look in vain only one instance at a time looks, so that an idle loop costs one
    retrieval a pause, however many instances it has. Pauses are shortened by up to a quarter, at random, so that fleets
    fall out of step.
    """

    def __init__(
        self,
        max_idle: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._lock = threading.Lock()
        self._longest = max_idle
        self._clock = clock
        self._chance = chance
        self._vain = 0
        self._until = 0.0
        self._looking = False

    @property
    def vain(self) -> int:
        """How many looks in a row found nothing."""
        return self._vain

    def turn(self) -> float:
        """0.0 for whoever may look now; else for how many seconds to wait before asking again, unless a bell rings."""
        with self._lock:
            if self._vain == 0:
                return 0.0
            if self._looking:
                return _ANOTHER_LOOKS
            left = self._until - self._clock()
            if left > 0:
                return left
            self._looking = True
            return 0.0

    def found(self) -> bool:
        """There is work, so that everybody may look; whether it had been otherwise, and the bell should tell them."""
        with self._lock:
            was_idle = self._vain > 0
            self._vain, self._until, self._looking = 0, 0.0, False
            return was_idle

    def nothing(self, woken: bool = False) -> None:
        """There was nothing to do. `woken`: a bell rang since the look began, which may have been too early."""
        self._pause(self._longest, woken)

    def conflict(self, woken: bool = False) -> None:
        """Others work on all that was offered; there may soon be more behind it. `woken`: as for `nothing`."""
        self._pause(min(self._longest, LONGEST_CONFLICT), woken)

    def trouble(self) -> None:
        """Looking failed."""
        self._pause(max(self._longest, LONGEST_TROUBLE))

    def again(self) -> None:
        """The look came to nothing for a reason that is no reason to wait."""
        with self._lock:
            self._looking = False

    def wake(self) -> None:
        """Something says that there may be work: the next one to ask may look, and pauses begin anew."""
        with self._lock:
            self._vain = min(self._vain, 1)
            self._until = 0.0

    def _pause(self, longest: float, woken: bool = False) -> None:
        with self._lock:
            self._looking = False
            if woken:
                return
            now = self._clock()
            # Instances that looked together count as one.
            if now < self._until:
                return
            pause = min(longest, FIRST_PAUSE * 2.0 ** min(self._vain, 32))
            self._vain += 1
            self._until = now + pause * (1.0 - 0.25 * self._chance())
