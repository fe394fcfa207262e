"""The one reader of rows: labelled pairs, candidate tables and files to score, in every format.

Rows come with their line numbers and unchecked values; malformed rows come as `BadRow`. To add a
file format, write a function like `_json_lines` and register it in `FORMATS`; to add a
compression, register what opens it in `COMPRESSIONS`.
"""

import csv
import difflib
import gzip
import io
import json
import math
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from workbench.files import display_path

COLUMNS = ["sentence_0", "sentence_1", "label"]
ABSENT: Any = object()  # the value of an optional column that the source does not have
MAX_TEXT = 1_000_000  # characters of a text, in every format; a longer one is a bad row
MAX_LINE = 50_000_000  # characters of a line, which bounds the memory; a longer one is refused
MAX_PAGE = 2**27  # bytes of a Parquet page when decompressed, which bounds the memory too
PARQUET_ROWS = 64  # decoded at once: a small file can repeat one long text very often
TRUTH = {"true": 1.0, "false": 0.0}
SAVE_AS_UTF8 = "save it as 'CSV UTF-8'"
NO_TEXT: dict[bytes | tuple[bytes, ...], str] = {  # what a file is that begins with these bytes
    (b"\xff\xfe", b"\xfe\xff"): "UTF-16; convert it first: iconv -f UTF-16 -t UTF-8",
    b"\x1f\x8b": "in gzip: its name must end in .gz",
    b"PK\x03\x04": f"a zip archive or a spreadsheet: unpack it, or {SAVE_AS_UTF8}",
    b"PAR1": "in Parquet: its name must end in .parquet",
}
COMPRESSIONS: dict[str, tuple[str, Callable[[Path], Any]]] = {".gz": ("gzip", gzip.open)}
REASONS = {
    "ragged_line": "the line has more or fewer fields than the header",
    "broken_quotes": "a quotation mark is opened and never closed, or closed in mid-field",
    "invalid_json": "the line is not a JSON object, or names a field twice",
    "missing_column": "the row lacks a column",
    "encoding": "the bytes are not UTF-8 text",
    "nul": "the text holds a NUL character, as UTF-16 and binary files do",
    "not_text": "the value is not a text",
    "empty_text": "the text is empty",
    "long_text": f"the text has more than {MAX_TEXT:,} characters",
    "label_missing": "the label is empty",
    "label_not_a_number": "the label is neither a number nor true/false",
    "label_nan": "the label is NaN",
    "label_out_of_range": "the label is outside [0, 1]",
    "label_not_mapped": "label_map does not have the label",
    "duplicate": "an earlier line has the same pair with the same label",
}
REMEDIES = {
    "ragged_line": "put a text with a separator in it in quotation marks",
    "broken_quotes": 'write a quotation mark inside a quoted text twice ("")',
    "encoding": "the file is not UTF-8, perhaps GBK from a spreadsheet: " + SAVE_AS_UTF8,
    "invalid_json": "put one object on each line, without brackets or commas around them",
    "label_not_a_number": "name the value of each label, such as label_map: no=0,yes=1; numbers "
    "have a decimal point and no %",
    "label_not_mapped": "add these labels to label_map",
    "label_out_of_range": "give each label its value from 0 to 1, such as label_map: 0=0,5=1",
}


class PairsError(ValueError):
    """Pairs or lists cannot be used; the message names file, line, column and value."""


class BadRow(NamedTuple):
    """A row that cannot be used: `line` counts from 1 (rows, where a format has no lines)."""

    line: int
    reason: str
    column: str
    value: str

    def __str__(self) -> str:
        where = f"line {self.line}" + (f", column {self.column}" if self.column else "")
        return f"{where}: {REASONS[self.reason]}: {self.value[:80]!r}"


Record = tuple[Any, ...]  # line, then the values of the columns asked for
GoodRow = tuple[int, str, str, float]  # line, sentence_0, sentence_1, label
Bytes = io.BufferedReader | gzip.GzipFile
Names = Mapping[str, str]  # role, such as sentence_0 -> the source's column


def printable(value: Any) -> str:
    """The value as text that any UTF-8 file can hold; undecodable bytes are shown escaped."""
    try:
        raw = str(value).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON can have it
        raw = str(value).encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")


def excerpt(value: Any) -> str:
    """The beginning of a value, printable: what a `BadRow` keeps of it."""
    return printable(str(value)[:200])


def suffix_of(path: Path) -> tuple[str, str]:
    """The format in a file's name, such as `.csv`, and its compression, such as `.gz`, or empty."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return suffixes[-1] if suffixes else "", packed


def holds_objects(path: Path) -> bool:
    """Whether the rows of a file are JSON objects, which can hold lists."""
    return FORMATS.get(suffix_of(path)[0]) is _json_lines


@contextmanager
def opened(path: Path) -> Iterator[Bytes]:
    """The bytes of a file, decompressed.

    Raises:
        PairsError: within the block, if the file cannot be read, or not to its end.
    """
    name, open_file = COMPRESSIONS.get(suffix_of(path)[1], ("", partial(open, mode="rb")))
    try:
        with open_file(path) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        what = f"not a complete {name} file" if name else "cannot be read"
        raise PairsError(f"{path.name}: {what} ({error})") from error


def text_lines(file: Bytes, name: str) -> Iterator[str]:
    """The lines of a file as text; bytes that are not UTF-8 become lone surrogates."""
    if found := [what for mark, what in NO_TEXT.items() if file.peek(4).startswith(mark)]:
        raise PairsError(f"{name}: the file is {found[0]}")
    with io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as lines:
        for number, line in enumerate(iter(partial(lines.readline, MAX_LINE), ""), start=1):
            if len(line) == MAX_LINE:
                raise PairsError(f"{name}, line {number}: more than {MAX_LINE:,} characters")
            yield line


def file_records(
    path: Path, names: Names, optional: Sequence[str] = ()
) -> Iterator[Record | BadRow]:
    """The rows of a CSV, TSV, JSONL or Parquet file, each also in gzip, as a stream.

    A row is its line and the unchecked values of the columns in `names` (by their role) and
    `optional`; where the source has none of the latter, the value is `ABSENT`.

    Raises:
        PairsError: no such file or format, a column is missing, or the file is damaged.
    """
    suffix = suffix_of(path)[0]
    if suffix not in FORMATS:
        known, packed = ", ".join(FORMATS), ", ".join(COMPRESSIONS)
        text = f"{path.name}: the name must end in one of {known} (optionally + {packed})"
        hint = f". Is it a spreadsheet? Then {SAVE_AS_UTF8}"
        if "json" in suffix:
            hint = f": {REMEDIES['invalid_json']}, and call it .jsonl"
        raise PairsError(text + hint)
    if not path.is_file():
        text = "there is no such file (a relative path starts at the project's root)"
        raise PairsError(f"{display_path(path)}: {text}")
    with opened(path) as file:
        yield from FORMATS[suffix](file, path.name, names, optional)


class _Table:
    """The lines of a delimited file: those of the last row, `taken`, and those given back."""

    def __init__(self, lines: Iterator[str], delimiter: str) -> None:
        csv.field_size_limit(MAX_LINE)
        self.lines, self.delimiter = lines, delimiter
        self.taken, self.ahead = list[str](), deque[str]()

    def take(self) -> Iterator[str]:
        self.taken = []
        while line := self.ahead.popleft() if self.ahead else next(self.lines, ""):
            self.taken.append(line)
            yield line

    def parse(self, **style: Any) -> list[str]:
        """The fields of the next row; none if it cannot be read, or at the end of the file."""
        try:
            return next(csv.reader(self.take(), delimiter=self.delimiter, strict=True, **style), [])
        except csv.Error:
            return []


def _delimited(
    file: Bytes, name: str, names: Names, optional: Sequence[str], delimiter: str
) -> Iterator[Record | BadRow]:
    """The rows of a CSV or TSV; one that cannot be read costs its first line only."""
    table = _Table(text_lines(file, name), delimiter)
    header, line, separator = table.parse(), 1, f"sep={delimiter}"
    # neither a blank line nor the one that tells a spreadsheet the separator is a header
    while (text := "".join(table.taken)).isspace() or text.lower().strip("\r\n") == separator:
        line += len(table.taken)
        header = table.parse()
    header = [printable(field).strip() for field in header]
    _check_columns(header, name, names, optional)
    width, columns = len(header), (*names.values(), *optional)
    places = [header.index(one) if one in header else width for one in columns]
    label = header.index(names["label"]) if "label" in names else None
    # In a CSV, quotation marks quote; inside a quoted text they are doubled or have a backslash.
    # In a TSV, one that quotes nothing is a character, unless the file quotes every text.
    quoted = None if delimiter == "\t" and table.taken[0][0] != '"' else True
    while True:
        line, again = line + len(table.taken), bool(table.ahead)
        if not (text := next(table.take(), "")):
            return
        row = text.rstrip("\r\n").split(delimiter)
        if quoted is None:
            texts = [cell for cell in row if isinstance(_number(cell), str)]
            quoted = all(cell[:1] == cell[-1:] == '"' for cell in texts)
        if '"' in text:
            row = _quoted_row(table, width, label, quoted, again)
        elif row == [""]:  # a blank line is no row
            continue
        if len(row) == width:
            row.append(ABSENT)
            yield line, *map(row.__getitem__, places)
        else:
            reason = "ragged_line" if row else "broken_quotes"
            yield BadRow(line, reason, "", excerpt(text.rstrip("\r\n")))


def _quoted_row(
    table: _Table, width: int, label: int | None, quoted: bool, again: bool
) -> list[str]:
    """The fields of the row that begins with the line just taken; none if they cannot be told."""
    for style in ({}, {"escapechar": "\\"} if quoted else {"quoting": csv.QUOTE_NONE}):
        table.ahead.extendleft(reversed(table.taken))
        row, text = table.parse(**style), "".join(table.taken)
        # `again`: the line belongs to a row that could not be read
        odd = again and quoted and text.count('"') % 2
        needless = not style and not quoted and _quotes_needlessly(text)
        cells = [line.rstrip("\r\n").split(table.delimiter) for line in table.taken]
        if len(row) == width and not (odd or needless or _merges(cells, width, label)):
            return row
    table.ahead.extendleft(reversed(table.taken))
    next(table.take())
    return []


def _quotes_needlessly(text: str) -> bool:
    """Whether a field of a TSV is in quotation marks for no reason: then they are characters."""
    return any(
        len(cell) > 1 and cell[0] == cell[-1] == '"' and not {*'",\n\r'} & {*cell[1:-1]}
        for cell in text.rstrip("\r\n").split("\t")
    )


def _merges(lines: Sequence[Sequence[str]], width: int, label: int | None) -> bool:
    """Whether the lines of one row look like rows themselves: then they are no single text."""
    whole = [len(cells) == width for cells in lines]
    if len(lines) == 1 or not whole[0] or label is None:
        return len(lines) > 1 and all(whole)
    if isinstance(_number(lines[0][label]), float):
        return True
    return all(whole) and isinstance(_number(lines[-1][label]), str)


def _json_lines(
    file: Bytes, name: str, names: Names, optional: Sequence[str]
) -> Iterator[Record | BadRow]:
    for line, text in enumerate(text_lines(file, name), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            yield BadRow(line, "invalid_json", "", excerpt(text.rstrip("\r\n")))
        elif missing := [column for column in names.values() if column not in row]:
            yield BadRow(line, "missing_column", missing[0], excerpt(f"it has {', '.join(row)}"))
        else:
            yield line, *(row.get(column, ABSENT) for column in (*names.values(), *optional))


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict; a ValueError if a name occurs twice."""
    row = dict(items)
    if len(row) < len(items):
        raise ValueError("a name occurs twice")
    return row


def _parquet(file: Bytes, name: str, names: Names, optional: Sequence[str]) -> Iterator[Record]:
    with _parquet_file(file, name) as (table, largest_page):
        header, columns = table.schema_arrow.names, (*names.values(), *optional)
        _check_columns(header, name, names, optional)
        known = [one for one in columns if one in header]
        batches = table.iter_batches(min(PARQUET_ROWS, MAX_PAGE // largest_page), columns=known)
        rows = chain.from_iterable(batch.to_pylist() for batch in batches)
        for line, row in enumerate(rows, start=1):
            yield line, *(row.get(column, ABSENT) for column in columns)


def read_parquet(path: Path, columns: Sequence[str] = ()) -> Any:
    """A Parquet file as a data frame; without `columns`, with all it has.

    Raises:
        PairsError: it is damaged, lacks a column, or has a page larger than `MAX_PAGE`.
    """
    with opened(path) as file, _parquet_file(file, path.name) as (table, _):
        _check_columns(table.schema_arrow.names, path.name, {name: name for name in columns})
        return table.read([*columns] or None).to_pandas()


@contextmanager
def _parquet_file(file: Bytes, name: str) -> Iterator[tuple[Any, int]]:
    """A file that is opened, and the bytes of its largest page, decompressed (1 or more)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table, largest = pq.ParquetFile(file), 1
        groups = [table.metadata.row_group(place) for place in range(table.num_row_groups)]
        for chunk in (group.column(n) for group in groups for n in range(group.num_columns)):
            place = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
            end = place + chunk.total_compressed_size
            while place < end:  # a page's own header has its size; the metadata may say less
                file.seek(place)
                header = _page_header(file)  # 2: size when decompressed, 3: as stored
                place, largest = file.tell() + header[3] // 2, max(largest, header[2] // 2)
                if largest > MAX_PAGE:
                    text = f"a page has {largest:,} bytes when decompressed, over {MAX_PAGE:,}"
                    at = f"{name}, column {chunk.path_in_schema!r}"
                    raise PairsError(f"{at}: {text}; write smaller pages")
        yield table, largest
    except PairsError:
        raise
    except (pa.ArrowException, ArithmeticError, LookupError, OSError, ValueError) as error:
        raise PairsError(f"{name}: not a Parquet file ({error})") from error


def _page_header(file: Bytes) -> dict[int, int]:
    """The numbers of a struct in Thrift's compact protocol, by field and in zigzag encoding."""

    def number() -> int:
        value = 0
        for shift in range(0, 64, 7):
            byte = file.read(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number is too long")

    numbers, field = {}, 0
    while head := file.read(1)[0]:
        field, kind = field + (head >> 4), head & 15
        if head < 16 or field > 15 or kind in (3, 7, 9, 10, 11, 13):
            raise ValueError("the header of a page is wrong")
        if kind == 12:
            _page_header(file)
        elif kind == 8:  # bytes
            file.seek(number(), io.SEEK_CUR)
        elif kind > 2:  # not true or false
            numbers[field] = number()
    return numbers


FORMATS: dict[str, Callable[[Bytes, str, Names, Sequence[str]], Iterator[Record | BadRow]]] = {
    ".csv": partial(_delimited, delimiter=","),
    ".tsv": partial(_delimited, delimiter="\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}


def _check_columns(
    header: Sequence[str], name: str, names: Names, optional: Sequence[str] = ()
) -> None:
    """Refuse a header that lacks one of the columns or has one twice."""
    if not header:
        raise PairsError(f"{name}: there is no line with the names of the columns")
    if twice := [one for one in (*names.values(), *optional) if header.count(one) > 1]:
        raise PairsError(f"{name}, line 1: the column {twice[0]!r} occurs twice")
    lacking = [(role, column) for role, column in names.items() if column not in header]
    if not lacking:
        return
    role, column = lacking[0]
    near = difflib.get_close_matches(column, {*header} - {*names.values()}, 1)
    separator = next((one for one in ";,\t|" if len(header) == 1 and one in header[0]), "")
    if any("\\x" in field or "\0" in field for field in header):
        advice = f". The header is not UTF-8: {SAVE_AS_UTF8}"
    elif separator:
        advice = f". The separator seems to be {separator!r}: use commas in .csv, tabs in .tsv"
    elif any(isinstance(_number(field), float) for field in header):
        advice = ". The first line seems to be a row: put the names of the columns above it"
    else:
        advice = f" (did you mean {near[0]!r}?)" if near else ""
        if {*names} <= {*COLUMNS}:
            own = f"--{role}-column".replace("_", "-")  # of `workbench score`
            way = f"the parameter {role}_column" if "label" in names else own
            advice += f". Say which one holds {role} with {way}"
    raise PairsError(
        f"{name}, line 1: there is no column {column!r}; the columns are {list(header)}{advice}"
    )


def hub_records(source: str, names: Names) -> Iterator[Record]:
    """The rows of `hub:name[:config][:split]`; one word after the name is either, as it exists.

    Raises:
        PairsError: the data set cannot be loaded or lacks a column.
    """
    import datasets

    name, config, split = (*source.removeprefix("hub:").split(":", 2), "", "")[:3]
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
    number = _number(value)
    if isinstance(number, str):
        return "label_not_a_number" if number else "label_missing"
    if 0.0 <= number <= 1.0:
        return number
    return "label_nan" if math.isnan(number) else "label_out_of_range"


def _number(value: Any) -> float | str:
    """The number that a label is, true and false included; else its text in lower case."""
    text = "" if value is None else str(value).strip().lower()
    try:
        return float(TRUTH.get(text, text))
    except (ValueError, OverflowError):
        return text


def read_label_map(text: str) -> dict[float | str, float]:
    """The value in [0, 1] of each label, from a text such as `-1=0,1=1` or `no=0,yes=1`.

    Raises:
        PairsError: it is no such text; the message says what was given and what is expected.
    """
    parts = [part.rpartition("=") for part in str(text or "").split(",") if part.strip()]
    mapping = {_number(label): parse_label(value) for label, _, value in parts}
    values = {label: value for label, value in mapping.items() if isinstance(value, float)}
    right = isinstance(text, str) and len(values) == len(parts) and "" not in values
    if not right or bool(values) != bool(text):
        raise PairsError(
            f"label_map is {text!r}, but must name each label once with its value from 0 to 1, "
            "such as no=0,yes=1 or 0=0,1=0.3,2=0.7,3=1"
        )
    return values


def other_scale(good: Sequence[GoodRow], bad: Sequence[BadRow]) -> str:
    """What scale the labels have if it is not [0, 1], with the `label_map` for it; else empty."""
    odd = [row.value for row in bad if row.reason == "label_out_of_range"]
    if len(odd) < 2 or len(odd) < (len(good) + len(bad)) / 20:
        return ""
    found = sorted({float(value) for value in odd} | {row[3] for row in good})
    low, high = found[0], found[-1]
    if low == high:
        return ""
    text = f"the labels are from {low:g} to {high:g}, not in [0, 1]: "
    if len(found) > 20 or math.isinf(high - low):
        return f"{text}bring them to that scale"
    values = (f"{one:g}={round((one - low) / (high - low), 3):g}" for one in found)
    return f"{text}give each a value from 0 to 1, such as label_map: {','.join(values)}"


def remedy(bad: Sequence[BadRow]) -> str:
    """What to do about the most frequent kind of bad row; empty if there is no advice."""
    counts = Counter(row.reason for row in bad)
    return REMEDIES.get(max(counts, key=counts.__getitem__, default=""), "")


def text_problem(value: Any) -> str:
    """Why the value is no usable text (a key of `REASONS`); empty if it is one."""
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return "empty_text"
    if not isinstance(value, str):
        return "not_text"
    if len(value) > MAX_TEXT:
        return "long_text"
    try:
        value.encode("utf-8")  # undecodable bytes were read as lone surrogates
    except UnicodeEncodeError:
        return "encoding"
    return "nul" if "\0" in value else ""


def bad_text(line: int, texts: Mapping[str, Any]) -> BadRow | None:
    """The first of these values, by column, that is no usable text; None if all are."""
    for column, value in texts.items():
        if reason := text_problem(value):
            return BadRow(line, reason, column, excerpt(value))
    return None


def check_rows(
    records: Iterable[Record | BadRow], label_map: str = ""
) -> tuple[list[GoodRow], list[BadRow]]:
    """The usable rows, texts stripped, and the others with their reasons, both in file order.

    A row that repeats an earlier usable one, label included, is not used again. `label_map` is as
    `read_label_map` takes it; empty for labels in [0, 1].
    """
    mapping = read_label_map(label_map)
    good: list[GoodRow] = []
    bad: list[BadRow] = []
    seen: set[tuple[str, str, float]] = set()
    for record in records:
        if isinstance(record, BadRow):
            bad.append(record)
            continue
        line, first, second, raw_label = record
        value = raw_label if isinstance(raw_label, str | float | int | None) else str(raw_label)
        label = parse_label(value)
        if mapping and label not in ("label_missing", "label_nan"):
            label = mapping.get(_number(value), "label_not_mapped")
        if unusable := bad_text(line, {"sentence_0": first, "sentence_1": second}):
            bad.append(unusable)
        elif isinstance(label, str):
            bad.append(BadRow(line, label, "label", excerpt(raw_label)))
        elif (row := (first.strip(), second.strip(), label)) in seen:
            bad.append(BadRow(line, "duplicate", "", excerpt(f"{row[0][:99]} / {row[1]}")))
        else:
            seen.add(row)
            good.append((line, *row))
    return good, bad
