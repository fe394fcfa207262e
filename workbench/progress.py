"""How far long work is: a line that renews itself where a person watches, else one now and then."""

import sys
import time


class Progress:
    """Tells rows done, rows a second and the time left on stderr.

    Args:
        total: rows in all; 0 if that is not known.
        every: seconds between two lines.
    """

    def __init__(self, total: int, every: float = 10.0) -> None:
        self.total, self.every = total, every
        self.renewed = sys.stderr.isatty()
        if self.renewed:
            self.every = min(every, 0.5)
        self.rows = self.made = 0
        self.start = self.last = time.monotonic()

    def skip(self, rows: int) -> None:
        """Count rows that an earlier start has done."""
        self.rows += rows

    def add(self, rows: int) -> None:
        """Count rows done now, and tell if it is time."""
        self.rows, self.made, now = self.rows + rows, self.made + rows, time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            line = self.line(self.seconds())
            print(f"\r{line:79}" if self.renewed else line, file=sys.stderr,
                  end="" if self.renewed else "\n", flush=True)  # fmt: skip

    def close(self) -> None:
        """End a line that renews itself."""
        if self.renewed and self.last > self.start:
            print(file=sys.stderr)

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def line(self, seconds: float) -> str:
        """Rows so far, rows a second since the start, and the time left."""
        rate = self.made / max(seconds, 1e-9)
        if not self.total:
            return f"{self.rows:,} rows, {rate:,.0f} rows/s"
        left = max(0, self.total - self.rows) / max(rate, 1e-9)
        shown = f"{left / 60:,.0f} min" if left >= 120 else f"{left:.0f} s"
        return f"{self.rows:,} of {self.total:,} rows, {rate:,.0f} rows/s, {shown} left"
