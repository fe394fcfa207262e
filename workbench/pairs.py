"""Labelled text pairs: read from many formats, checked row by row, nothing dropped in silence.

A pair has `sentence_0` (the query), `sentence_1` (the candidate) and `label`, the relevance of the
candidate in [0, 1]. Every row that cannot be used is kept as a `BadRow` with its line and reason.
"""

import csv
import difflib
import gzip
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pandas as pd

from workbench.files import display_path, project_path, sha256

COLUMNS = ("sentence_0", "sentence_1", "label")
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")

REASONS = {
    "ragged_line": "the line has more or fewer fields than the header",
    "broken_quotes": "a quotation mark is opened and never closed, or closed in mid-field",
    "invalid_json": "the line is not a JSON object",
    "missing_column": "the row lacks a column",
    "encoding": "the bytes are not UTF-8 text",
    "not_text": "the value is not a text",
    "empty_text": "the text is empty",
    "label_missing": "the label is empty",
    "label_not_a_number": "the label is neither a number nor true/false",
    "label_nan": "the label is NaN",
    "label_out_of_range": "the label is outside [0, 1]",
    "duplicate": "the same pair with the same label stands on an earlier line",
}


class PairsError(ValueError):
    """The pairs cannot be read; the message names file, line, column and value."""


class BadRow(NamedTuple):
    """A row that cannot be used: `line` counts from 1 (rows, where a format has no lines)."""

    line: int
    reason: str
    column: str
    value: str

    def __str__(self) -> str:
        """One line for people: where, what, and the value in question."""
        where = f"line {self.line}" + (f", column {self.column}" if self.column else "")
        return f"{where}: {REASONS[self.reason]}: {self.value[:80]!r}"


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


Record = tuple[int, Any, Any, Any]  # line, sentence_0, sentence_1, label


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
    digest = ""
    if str(source).startswith("hub:"):
        shown, records = str(source), _hub_records(str(source), names)
    else:
        path = project_path(source)
        shown, records = display_path(path), _file_records(path, names)
        digest = sha256(path)
    good, bad = _check_rows(records)
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
            bad.append(BadRow(line, reason, column, _printable(value)))
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


def _printable(value: Any) -> str:
    """The value as text that any UTF-8 file can hold: undecodable bytes become \\xNN."""
    raw = str(value).encode("utf-8", "surrogateescape" if isinstance(value, str) else "replace")
    return raw.decode("utf-8", "backslashreplace")


def _file_records(path: Path, names: dict[str, str]) -> Iterator[Record | BadRow]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if zipped else suffixes)[-1:]
    if not kind or kind[0] not in FORMATS:
        known = ", ".join(FORMATS)
        raise PairsError(f"{path.name}: the name must end in one of {known} (optionally + .gz)")
    if not path.is_file():
        raise PairsError(f"{display_path(path)}: there is no such file (a relative path starts at "
                         "the project's root)")
    with gzip.open(path) if zipped else path.open("rb") as file:
        try:
            if kind[0] == ".parquet":
                yield from _parquet_records(file, path.name, names)
            elif kind[0] == ".jsonl":
                yield from _jsonl_records(_text(file, path.name), names)
            else:
                delimiter = "," if kind[0] == ".csv" else "\t"
                yield from _delimited_records(_text(file, path.name), path.name, delimiter, names)
        except (gzip.BadGzipFile, EOFError) as error:
            raise PairsError(f"{path.name}: not a complete gzip file ({error})") from error


def _text(file: BinaryIO | gzip.GzipFile, name: str) -> io.TextIOWrapper:
    start = file.read(4)
    file.seek(0)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise PairsError(f"{name}: the file is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8")
    return io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")


def _delimited_records(
    file: io.TextIOWrapper, name: str, delimiter: str, names: dict[str, str]
) -> Iterator[Record | BadRow]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    header = [_printable(field).strip() for field in next(reader, [])]
    places = _columns(header, name, names)
    width = len(header)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            swallowed = f"{error}; lines {line} to {reader.line_num} are unread"
            yield BadRow(line, "broken_quotes", "", swallowed)
            continue
        if len(row) == width:
            yield line, row[places[0]], row[places[1]], row[places[2]]
        elif row:  # a blank line is no row
            yield BadRow(line, "ragged_line", "", _printable(delimiter.join(row)))


def _columns(header: list[str], name: str, names: dict[str, str]) -> list[int]:
    repeated = [column for column in names.values() if header.count(column) > 1]
    if repeated:
        raise PairsError(f"{name}, line 1: column {repeated[0]!r} stands there twice")
    for role, column in names.items():
        if column not in header:
            near = difflib.get_close_matches(column, header, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise PairsError(
                f"{name}, line 1: there is no column {column!r}{hint}; the columns are {header}. "
                f"Say which one holds {role} with the parameter {role}_column"
            )
    return [header.index(column) for column in names.values()]


def _jsonl_records(file: io.TextIOWrapper, names: dict[str, str]) -> Iterator[Record | BadRow]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            yield BadRow(line, "invalid_json", "", _printable(text.rstrip("\n")))
            continue
        missing = [column for column in names.values() if column not in row]
        if missing:
            yield BadRow(line, "missing_column", missing[0], _printable(text.rstrip("\n")))
        else:
            yield line, *(row[column] for column in names.values())


def _parquet_records(
    file: BinaryIO | gzip.GzipFile, name: str, names: dict[str, str]
) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise PairsError(f"{name}: not a Parquet file ({error})") from error
    _columns(table.schema_arrow.names, name, names)
    line = 0
    for batch in table.iter_batches(columns=list(names.values())):
        fields = [batch.column(column).to_pylist() for column in names.values()]
        for row in zip(*fields, strict=True):
            line += 1
            yield line, *row


def _hub_records(source: str, names: dict[str, str]) -> Iterator[Record]:
    import datasets

    name, _, rest = source.removeprefix("hub:").partition(":")
    config, _, split = rest.partition(":")
    try:
        if config and not split and config not in datasets.get_dataset_config_names(name):
            config, split = "", config  # one word alone: a configuration if there is such, else a split
        table = datasets.load_dataset(name, config or None, split=split or "train")
    except Exception as error:  # the library raises many kinds; each means the same to the user
        raise PairsError(f"{source}: the data set cannot be loaded: {error}") from error
    _columns(table.column_names, source, names)
    for line, row in enumerate(table, start=1):
        yield line, *(row[column] for column in names.values())
