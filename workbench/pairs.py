"""Labelled text pairs: read from many formats, checked row by row, nothing dropped in silence.

A pair has `sentence_0` (the query), `sentence_1` (the candidate) and `label`, the relevance of the
candidate in [0, 1]. Every row that cannot be used is kept as a `BadRow` with its line and reason.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.files import display_path, project_path, sha256
from workbench.formats import (
    COLUMNS,
    BadRow,
    PairsError,
    Record,
    file_records,
    hub_records,
    printable,
)


@dataclass(frozen=True)
class LabelledPairs:
    """What a source held.

    Attributes:
        frame: the usable rows: `sentence_0`, `sentence_1` (str), `label` (float), `line` (int).
        bad_rows: the others, in file order.
        source: path or `hub:` name as shown to people.
        sha256: of the file's bytes; empty for a `hub:` source.
    """

    frame: pd.DataFrame
    bad_rows: tuple[BadRow, ...]
    source: str
    sha256: str

    @property
    def rows_read(self) -> int:
        """Rows in the source, usable or not."""
        return len(self.frame) + len(self.bad_rows)

    def bad_counts(self) -> dict[str, int]:
        """Bad rows by reason, the most frequent first."""
        return dict(Counter(row.reason for row in self.bad_rows).most_common())


def read_pairs(
    source: str | Path,
    columns: Mapping[str, str] | None = None,
    on_bad_rows: str = "report",
) -> LabelledPairs:
    """Read labelled pairs from CSV, TSV, JSONL or Parquet (each also as `.gz`) or from the Hub.

    Args:
        source: a path, or `hub:name[:config][:split]` (split `train` unless given).
        columns: the source's names of `sentence_0`, `sentence_1` and `label`, where they differ.
        on_bad_rows: `report` keeps bad rows beside the good ones, `fail` raises on the first.

    Returns:
        The pairs, texts stripped of surrounding white space, and every bad row.

    Raises:
        PairsError: the source cannot be read, lacks a column, or has no usable row; or it has a
            bad row and `on_bad_rows` is `fail`.
    """
    if on_bad_rows not in ("report", "fail"):
        raise PairsError(f"on_bad_rows is {on_bad_rows!r}; it must be 'report' or 'fail'")
    names = dict(zip(COLUMNS, COLUMNS, strict=True)) | dict(columns or {})
    if str(source).startswith("hub:"):
        shown, digest = str(source), ""
        good, bad = _check_rows(hub_records(str(source), names))
    else:
        path = project_path(source)
        good, bad = _check_rows(file_records(path, names))
        shown, digest = display_path(path), sha256(path)
    if bad and on_bad_rows == "fail":
        raise PairsError(f"{shown}: {len(bad)} bad rows, the first at {bad[0]}")
    if not good:
        first = f"; the first problem is at {bad[0]}" if bad else ""
        raise PairsError(f"{shown}: no usable pair in it{first}")
    frame = pd.DataFrame(good, columns=["line", *COLUMNS])[[*COLUMNS, "line"]]
    return LabelledPairs(frame, tuple(bad), shown, digest)


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


def _text_problem(value: Any) -> str:
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


def _check_rows(
    records: Iterable[Record | BadRow],
) -> tuple[list[tuple[int, str, str, float]], list[BadRow]]:
    good: list[tuple[int, str, str, float]] = []
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
        if reason := _text_problem(text):
            return reason, column, text
    try:
        parsed = parse_label(label)
    except TypeError:  # a list or an object: not hashable, so not cacheable, and no label
        parsed = "label_not_a_number"
    return (parsed, "label", label) if isinstance(parsed, str) else None
