"""Rows of labelled pairs, checked one by one; a row that cannot be used says why."""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from workbench.formats import BadRow, Record, printable

GoodRow = tuple[int, str, str, float]  # line, sentence_0, sentence_1, label


@lru_cache(maxsize=10_000)
def parse_label(value: Any) -> float | str:
    """The label as a float in [0, 1], or the reason (a key of `REASONS`) why it is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "label_missing"
    text = value.strip().lower() if isinstance(value, str) else value
    try:
        number = float({"true": 1.0, "false": 0.0}.get(text, text))
    except (TypeError, ValueError):
        return "label_not_a_number"
    if math.isnan(number):
        return "label_nan"
    return number if 0.0 <= number <= 1.0 else "label_out_of_range"


def text_problem(value: Any) -> str:
    """Why the value is no usable text (a key of `REASONS`); empty if it is one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "empty_text"
    if not isinstance(value, str):
        return "not_text"
    if not value.strip():
        return "empty_text"
    try:
        value.encode("utf-8")  # undecodable bytes were read as lone surrogates
    except UnicodeEncodeError:
        return "encoding"
    return "encoding" if "\0" in value else ""


def check_rows(records: Iterable[Record | BadRow]) -> tuple[list[GoodRow], list[BadRow]]:
    """The usable rows, texts stripped, and the others with their reasons, both in file order.

    A row that repeats an earlier usable one, label included, is not used again.
    """
    good: list[GoodRow] = []
    bad: list[BadRow] = []
    seen: set[tuple[str, str, float]] = set()
    for record in records:
        if isinstance(record, BadRow):
            bad.append(record)
            continue
        line, first, second, raw_label = record
        problem = _row_problem(first, second, raw_label)
        if problem:
            reason, column, value = problem
            bad.append(BadRow(line, reason, column, printable(value)))
            continue
        row = (first.strip(), second.strip(), float(parse_label(raw_label)))
        if row in seen:
            bad.append(BadRow(line, "duplicate", "", " / ".join(row[:2])))
            continue
        seen.add(row)
        good.append((line, *row))
    return good, bad


def _row_problem(first: Any, second: Any, label: Any) -> tuple[str, str, Any] | None:
    for column, text in (("sentence_0", first), ("sentence_1", second)):
        if reason := text_problem(text):
            return reason, column, text
    try:
        parsed = parse_label(label)
    except TypeError:  # a list or an object: not hashable, so not cacheable, and no label
        parsed = "label_not_a_number"
    return (parsed, "label", label) if isinstance(parsed, str) else None
