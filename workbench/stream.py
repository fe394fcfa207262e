"""Texts to score, read from a file in a stream: one row after another, never the whole file."""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from workbench.formats import BadRow, file_records, opened, printable, suffix_of
from workbench.rows import text_problem

LISTS = ("candidates", "positive", "negative")  # the fields of a candidate list that hold texts
LOOKED_AT = 100  # lines, to tell lists from pairs


class Row(NamedTuple):
    """A pair to score, or what stands in its place.

    Attributes:
        line: where it stands in the file, from 1 (row, where a format has no lines).
        query: the first text.
        candidate: the second.
        problem: why it cannot be scored, with line, column and value; empty for a sound row.
        group: the same for all candidates of a query: those of one list, or rows of equal first
            texts that follow one another.
    """

    line: int
    query: str
    candidate: str
    problem: str = ""
    group: int = 0


def holds_lists(path: Path) -> bool:
    """Whether a file holds candidate lists: JSONL whose first object has a `query` and lists."""
    if suffix_of(path)[0] != ".jsonl":
        return False
    with opened(path) as file:
        for line in itertools.islice(file, LOOKED_AT):
            if row := _object(line):
                return isinstance(row.get("query"), str) and bool(_fields(row))
    return False


def text_rows(path: Path, query_column: str, candidate_column: str) -> Iterator[Row]:
    """The rows of a file of pairs, or of candidate lists (`holds_lists`), in the file's order.

    A row that cannot be scored stands in its place, with its problem and what can be shown of it.

    Raises:
        PairsError: the file cannot be read, or lacks a column.
    """
    if path.is_file() and holds_lists(path):
        yield from _list_rows(path)
        return
    group, query = 0, None
    for record in file_records(path, {"sentence_0": query_column, "sentence_1": candidate_column}):
        if isinstance(record, BadRow):  # it belongs to the query it stands among
            yield Row(record.line, "", "", str(record), group)
            continue
        line, first, second = record
        reason, value, column = text_problem(first), first, query_column
        if not reason and first != query:
            group, query = group + 1, first
        if not reason:
            reason, value, column = text_problem(second), second, candidate_column
        if reason:
            problem = str(BadRow(line, reason, column, printable(value)))
            yield Row(line, _shown(first), _shown(second), problem, group)
        else:
            yield Row(line, first, second, "", group)


def parts(rows: Iterable[Row], size: int, whole_queries: bool = False) -> Iterator[list[Row]]:
    """The rows in parts of `size`; with `whole_queries` larger ones, where a query needs it."""
    stream = iter(rows)
    if not whole_queries:
        while part := list(itertools.islice(stream, size)):
            yield part
        return
    part = []
    for row in stream:
        if len(part) >= size and row.group != part[-1].group:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _object(line: bytes) -> dict[str, object]:
    """A line as a JSON object; empty if it is none."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _fields(row: dict[str, object]) -> list[str]:
    return [name for name in LISTS if isinstance(row.get(name), list)]


def _shown(text: object) -> str:
    """A value as the text that stands in the output; nothing for one that is missing."""
    return printable("" if text is None else text)


def _list_rows(path: Path) -> Iterator[Row]:
    with opened(path) as file:
        for line, raw in enumerate(file, start=1):
            if raw.strip():
                yield from _rows_of_list(line, raw)


def _rows_of_list(line: int, raw: bytes) -> Iterator[Row]:
    row = _object(raw)
    shown = raw[:80].decode("utf-8", "backslashreplace").rstrip()
    if not row:
        yield Row(line, "", "", str(BadRow(line, "invalid_json", "", shown)), line)
        return
    query = row.get("query")
    if reason := text_problem(query):
        bad = BadRow(line, reason, "query", printable(query))
        yield Row(line, _shown(query), "", str(bad), line)
        return
    if not _fields(row):
        bad = BadRow(line, "missing_column", "candidates", shown)
        yield Row(line, _shown(query), "", str(bad), line)
    for field in _fields(row):
        texts = row[field]
        assert isinstance(texts, list)
        for text in texts:
            reason = text_problem(text)
            problem = str(BadRow(line, reason, field, printable(text))) if reason else ""
            yield Row(line, str(query), _shown(text), problem, line)
