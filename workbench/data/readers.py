"""The one reader of rows: labelled pairs, candidate tables and files to score, in every format.

Rows come with their line numbers and unchecked values; malformed rows come as `BadRow`. To add a
file format, write a function like `_json_lines` and register it in `FORMATS`.
"""

import csv
import difflib
import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import count, repeat
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from workbench.files import display_path

COLUMNS = ("sentence_0", "sentence_1", "label")
ABSENT: Any = object()  # the value of an optional column that the source does not have
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
    "duplicate": "an earlier line has the same pair with the same label",
}


class PairsError(ValueError):
    """The rows cannot be read; the message names file, line, column and value."""


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


Record = tuple[Any, ...]  # line, then the values of the columns asked for
GoodRow = tuple[int, str, str, float]  # line, sentence_0, sentence_1, label
Bytes = BinaryIO | gzip.GzipFile
Names = Mapping[str, str]  # role, such as sentence_0 -> the source's column


def printable(value: Any) -> str:
    """The value as text that any UTF-8 file can hold; undecodable bytes are shown escaped."""
    raw = str(value).encode("utf-8", "surrogateescape" if isinstance(value, str) else "replace")
    return raw.decode("utf-8", "backslashreplace")


def suffix_of(path: Path) -> tuple[str, str]:
    """The format in a file's name, such as `.csv`, and `.gz` if the file is in gzip."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes.pop() if suffixes[-1:] == [".gz"] else ""
    return suffixes[-1] if suffixes else "", zipped


@contextmanager
def opened(path: Path) -> Iterator[Bytes]:
    """The bytes of a file, decompressed where it is in gzip.

    Raises:
        PairsError: within the block, if the gzip file is damaged or cut off.
    """
    try:
        with gzip.open(path) if suffix_of(path)[1] else path.open("rb") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise PairsError(f"{path.name}: not a complete gzip file ({error})") from error


def text_lines(file: Bytes, name: str) -> Iterator[str]:
    """The lines of a file as text; bytes that are not UTF-8 become lone surrogates."""
    start = file.read(4)
    file.seek(0)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise PairsError(f"{name}: the file is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8")
    with io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as lines:
        yield from lines


def file_records(
    path: Path, names: Names, optional: Sequence[str] = ()
) -> Iterator[Record | BadRow]:
    """The rows of a CSV, TSV, JSONL or Parquet file, each also in gzip, as a stream.

    Args:
        path: its suffixes give the format.
        names: the source's column for each role.
        optional: further columns; where there is none of that name, the value is `ABSENT`.

    Yields:
        `(line, *values)`, the values unchecked, in the order of `names` and `optional`.

    Raises:
        PairsError: no such file or format, a column is missing, or the file is damaged.
    """
    read = FORMATS.get(suffix_of(path)[0])
    if read is None:
        known = ", ".join(FORMATS)
        raise PairsError(f"{path.name}: the name must end in one of {known} (optionally + .gz)")
    if not path.is_file():
        raise PairsError(
            f"{display_path(path)}: there is no such file (a relative path starts at "
            "the project's root)"
        )
    with opened(path) as file:
        yield from read(file, path.name, names, optional)


def _delimited(
    file: Bytes, name: str, names: Names, optional: Sequence[str], delimiter: str
) -> Iterator[Record | BadRow]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(text_lines(file, name), delimiter=delimiter, strict=True)
    try:
        header = [printable(field).strip() for field in next(reader, [])]
    except csv.Error as error:
        raise PairsError(f"{name}, line 1: the header cannot be read: {error}") from error
    _check_columns(header, name, names)
    width = len(header)
    columns = (*names.values(), *optional)
    pick = itemgetter(*(header.index(one) if one in header else width for one in columns))
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
            yield line, *pick([*row, ABSENT])
        elif row:  # a blank line is no row
            yield BadRow(line, "ragged_line", "", printable(delimiter.join(row)))


def _json_lines(
    file: Bytes, name: str, names: Names, optional: Sequence[str]
) -> Iterator[Record | BadRow]:
    for line, text in enumerate(text_lines(file, name), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            yield BadRow(line, "invalid_json", "", printable(text.rstrip("\n")))
        elif missing := [column for column in names.values() if column not in row]:
            yield BadRow(line, "missing_column", missing[0], printable(text.rstrip("\n")))
        else:
            yield line, *(row.get(column, ABSENT) for column in (*names.values(), *optional))


def _parquet(file: Bytes, name: str, names: Names, optional: Sequence[str]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        known, line = set(table.schema_arrow.names), count(1)
        _check_columns(table.schema_arrow.names, name, names)
        columns = (*names.values(), *optional)
        for batch in table.iter_batches(columns=[one for one in columns if one in known]):
            fields = [batch[one].to_pylist() if one in known else repeat(ABSENT) for one in columns]
            for row in zip(*fields, strict=False):
                yield next(line), *row
    except (pa.ArrowException, OSError) as error:
        raise PairsError(f"{name}: not a Parquet file ({error})") from error


FORMATS: dict[str, Callable[[Bytes, str, Names, Sequence[str]], Iterator[Record | BadRow]]] = {
    ".csv": partial(_delimited, delimiter=","),
    ".tsv": partial(_delimited, delimiter="\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}


def _check_columns(header: Sequence[str], name: str, names: Names) -> None:
    """Refuse a header without one of the columns, or with one of them twice."""
    for role, column in names.items():
        if header.count(column) > 1:
            raise PairsError(f"{name}, line 1: the column {column!r} occurs twice")
        if column not in header:
            free = [other for other in header if other not in names.values()]
            near = difflib.get_close_matches(column, free, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            advice = f". Say which one holds {role} with the parameter {role}_column"
            raise PairsError(
                f"{name}, line 1: there is no column {column!r}{hint}; the columns are "
                f"{list(header)}{advice if set(names) <= set(COLUMNS) else ''}"
            )


def hub_records(source: str, names: Names) -> Iterator[Record]:
    """The rows of `hub:name[:config][:split]`; one word after the name is either, as it exists.

    Raises:
        PairsError: the data set cannot be loaded or lacks a column.
    """
    import datasets

    name, _, rest = source.removeprefix("hub:").partition(":")
    config, _, split = rest.partition(":")
    try:
        if config and not split and config not in datasets.get_dataset_config_names(name):
            config, split = "", config
        table = datasets.load_dataset(name, config or None, split=split or "train")
    except Exception as error:  # the library raises many kinds; each means the same to the user
        raise PairsError(f"{source}: the data set cannot be loaded: {error}") from error
    _check_columns(table.column_names, source, names)
    for line, row in enumerate(table, start=1):
        yield line, *(row[column] for column in names.values())


@lru_cache(maxsize=10_000)
def parse_label(value: Any) -> float | str:
    """The label as a float in [0, 1], or the reason (a key of `REASONS`) why it is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "label_missing"
    text = value.strip().lower() if isinstance(value, str) else value
    try:
        number = float({"true": 1.0, "false": 0.0}.get(text, text))
    except (TypeError, ValueError, OverflowError):
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


def bad_text(line: int, texts: Mapping[str, Any]) -> BadRow | None:
    """The first of these values, by column, that is no usable text; None if all are."""
    for column, value in texts.items():
        if reason := text_problem(value):
            return BadRow(line, reason, column, printable(value))
    return None


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
        try:
            label = parse_label(raw_label)
        except TypeError:  # a list or an object: not hashable, so not cacheable, and no label
            label = "label_not_a_number"
        if unusable := bad_text(line, {"sentence_0": first, "sentence_1": second}):
            bad.append(unusable)
        elif isinstance(label, str):
            bad.append(BadRow(line, label, "label", printable(raw_label)))
        elif (row := (first.strip(), second.strip(), label)) in seen:
            bad.append(BadRow(line, "duplicate", "", " / ".join(row[:2])))
        else:
            seen.add(row)
            good.append((line, *row))
    return good, bad
