"""Energy that the processor took, from its own counters, where they can be read."""

from pathlib import Path

COUNTERS = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules since it was made, from the counters that Linux shows for x86 processors (RAPL).

    A counter starts again at its range; `joules()` notices that if it is called at least once in a
    range, which takes minutes to hours. The counters cover all that runs on the processor.
    """

    def __init__(self, counters: Path = COUNTERS) -> None:
        # Packages only: `intel-rapl:0`, not its parts `intel-rapl:0:1`, which it includes.
        found = sorted(counters.glob("intel-rapl:[0-9]*")) if counters.is_dir() else []
        self.places = [place for place in found if place.name.count(":") == 1]
        self.ranges = [_read(place / "max_energy_range_uj") for place in self.places]
        self.last = [_read(place / "energy_uj") for place in self.places]
        self.total = 0

    def joules(self) -> float | None:
        """Joules so far; None where nothing can be read (a GPU, a container, another system)."""
        now = [_read(place / "energy_uj") for place in self.places]
        if not now or None in now or None in self.last or None in self.ranges:
            return None
        for new, old, limit in zip(now, self.last, self.ranges, strict=True):
            self.total += (new or 0) - (old or 0) + ((limit or 0) if (new or 0) < (old or 0) else 0)
        self.last = now
        return self.total / 1e6


def _read(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
