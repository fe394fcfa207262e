"""Phrases that the findings share."""

from collections.abc import Iterable, Mapping
from typing import Any

Record = Mapping[str, Any]


def sentences(*parts: str | bool) -> str:
    """The parts that apply, as one paragraph: `condition and "A sentence."` may be a part."""
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


def gap(difference: Mapping[str, float]) -> str:
    """A difference with its interval, and its corrected p-value where there is one."""
    text = f"{difference['mean']:+.3f}, 95% interval {difference['low']:+.3f} to "
    text += f"{difference['high']:+.3f}"
    if "p_holm" in difference:
        text += f", p = {difference['p_holm']:.2g} after correction"
    return text
