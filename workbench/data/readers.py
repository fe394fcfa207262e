"""The formats that labelled pairs come in: each gives its rows with their line numbers.

A row that the format itself breaks (ragged, badly quoted, no JSON) is given as a `BadRow`.
"""

import csv
import difflib
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from workbench.files import display_path

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


Record = tuple[Any, ...]  # line, sentence_0, sentence_1, label


def printable(value: Any) -> str:
    """The value as text that any UTF-8 file can hold; undecodable bytes are shown escaped."""
    raw = str(value).encode("utf-8", "surrogateescape" if isinstance(value, str) else "replace")
    return raw.decode("utf-8", "backslashreplace")


def file_records(path: Path, names: dict[str, str]) -> Iterator[Record | BadRow]:
    """The rows of a CSV, TSV, JSONL or Parquet file, or of one in gzip; unchecked values.

    Args:
        path: its suffixes tell the format.
        names: the source's column for each of `COLUMNS`, in that order, or for the first two.

    Raises:
        PairsError: no such file or format, a column is missing, or the file is damaged.
    """
    kind, _ = suffix_of(path)
    if kind not in FORMATS:
        known = ", ".join(FORMATS)
        raise PairsError(f"{path.name}: the name must end in one of {known} (optionally + .gz)")
    if not path.is_file():
        raise PairsError(
            f"{display_path(path)}: there is no such file (a relative path starts at "
            "the project's root)"
        )
    with opened(path) as file:
        if kind == ".parquet":
            yield from _parquet_records(file, path.name, names)
        elif kind == ".jsonl":
            with _text(file, path.name) as text:
                yield from _jsonl_records(text, names)
        else:
            delimiter = "," if kind == ".csv" else "\t"
            with _text(file, path.name) as text:
                yield from _delimited_records(text, path.name, delimiter, names)


def suffix_of(path: Path) -> tuple[str, str]:
    """What a name says of a file: its format, such as `.csv`, and `.gz` if that is in gzip."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes.pop() if suffixes[-1:] == [".gz"] else ""
    return suffixes[-1] if suffixes else "", zipped


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    """The bytes of a file, or of what it holds in gzip.

    Raises:
        PairsError: within the block, if the gzip file is damaged or cut off.
    """
    try:
        with gzip.open(path) if suffix_of(path)[1] else path.open("rb") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
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
    try:
        header = [printable(field).strip() for field in next(reader, [])]
    except csv.Error as error:
        raise PairsError(f"{name}, line 1: the header cannot be read: {error}") from error
    pick = itemgetter(*_columns(header, name, names))
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
            yield line, *pick(row)
        elif row:  # a blank line is no row
            yield BadRow(line, "ragged_line", "", printable(delimiter.join(row)))


def _columns(header: list[str], name: str, names: dict[str, str]) -> list[int]:
    repeated = [column for column in names.values() if header.count(column) > 1]
    if repeated:
        raise PairsError(f"{name}, line 1: column {repeated[0]!r} stands there twice")
    for role, column in names.items():
        if column not in header:
            free = [name for name in header if name not in names.values()]
            near = difflib.get_close_matches(column, free, 1)
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
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            yield BadRow(line, "invalid_json", "", printable(text.rstrip("\n")))
            continue
        missing = [column for column in names.values() if column not in row]
        if missing:
            yield BadRow(line, "missing_column", missing[0], printable(text.rstrip("\n")))
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


def hub_records(source: str, names: dict[str, str]) -> Iterator[Record]:
    """The rows of `hub:name[:config][:split]`; one word after the name is either, as it exists.

    Raises:
        PairsError: the data set cannot be loaded or lacks a column.
    """
    import datasets

    name, _, rest = source.removeprefix("hub:").partition(":")
    config, _, split = rest.partition(":")
    try:
        if config and not split and config not in datasets.get_dataset_config_names(name):
            config, split = (
                "",
                config,
            )  # one word alone: a configuration if there is such, else a split
        table = datasets.load_dataset(name, config or None, split=split or "train")
    except Exception as error:  # the library raises many kinds; each means the same to the user
        raise PairsError(f"{source}: the data set cannot be loaded: {error}") from error
    _columns(table.column_names, source, names)
    for line, row in enumerate(table, start=1):
        yield line, *(row[column] for column in names.values())


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
