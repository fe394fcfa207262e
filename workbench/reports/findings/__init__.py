"""What the numbers say, in words: each function returns a short paragraph of Markdown.

The numbers choose the sentences, so these hold for any parameters. They quote no text of the data
and are therefore safe to show as Markdown.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(__name__, data="*", ranking="*", runs="*", training="*")
Record = Mapping[str, Any]


def sentences(*parts: str | bool) -> str:
    """The parts that apply, as one paragraph: `sentences("Always.", n > 3 and "Many.")`."""
    return " ".join(part for part in parts if isinstance(part, str) and part)


def count(number: int, noun: str) -> str:
    """`1 query`, `2,000 queries`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def code(name: str) -> str:
    """A name in code font; nothing in it ends the font."""
    return f"`{' '.join(name.replace('`', chr(39)).split())}`"


def names(of: Iterable[str]) -> str:
    """Names in code font: `a`, `b` and `c`."""
    *first, last = map(code, of)
    return f"{', '.join(first)} and {last}" if first else last


def model_row(metrics: Record) -> Record:
    """The row of the scorer `model` in an evaluation's metrics; empty if there is none."""
    return next((row for row in metrics.get("rows", ()) if row["scorer"] == "model"), {})


def won_lost(model: Iterable[float], other: Iterable[float]) -> tuple[int, int]:
    """On how many queries the model is better, and on how many the other; values of each query."""
    gaps = [own - theirs for own, theirs in zip(model, other, strict=True)]
    return sum(gap > 1e-9 for gap in gaps), sum(gap < -1e-9 for gap in gaps)
