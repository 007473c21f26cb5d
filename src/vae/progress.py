"""Progress lines that read well in a terminal, in a notebook and in a log."""

import sys
import time


class Progress:
    """Counts steps towards a total and says, now and then, how far it is and what is left.

    In a terminal one line is rewritten in place. Elsewhere, about ten whole lines are printed, so
    that what a notebook keeps is readable and its last line is the last state.
    """

    def __init__(self, total: int, *, unit: str = "epoch", done: int = 0, enabled: bool = True):
        self.total, self.unit, self.enabled = total, unit, enabled
        self.rewrites = sys.stdout.isatty()
        self.started = time.perf_counter()
        self.first, self.first_seconds = done, None
        self.lines = max(1, -(-(total - done) // 10))

    def update(self, done: int, text: str) -> None:
        """Say that `done` of the total are done; `text` is what there is to tell about it."""
        elapsed = time.perf_counter() - self.started
        if self.first_seconds is None:
            self.first_seconds = elapsed
        if not self.enabled:
            return
        last = done == self.total
        if self.rewrites:
            print(
                f"\r\033[K{self._line(done, text, elapsed)}", end="\n" if last else "", flush=True
            )
        elif last or done == self.first + 1 or (done - self.first) % self.lines == 0:
            print(self._line(done, text, elapsed), flush=True)

    def _line(self, done: int, text: str, elapsed: float) -> str:
        line = f"{self.unit} {done:>{len(str(self.total))}}/{self.total}  {text}  {elapsed:.1f} s"
        if done == self.total:
            return line
        # The first step includes compilation: later ones say better how long the rest will take.
        steps = done - self.first - 1
        pace = (elapsed - self.first_seconds) / steps if steps else elapsed
        return f"{line}, about {pace * (self.total - done):.0f} s left"
