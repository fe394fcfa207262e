"""Formats of candidate lists: JSONL rows, a table of judged candidates, a folder of TREC files."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workbench.data.lists import (
    KINDS,
    CandidateError,
    CandidateList,
    RankingTest,
    count_lists,
    finite_number,
    ordered,
    refuse_rows,
    shuffled,
)
from workbench.files import display_path, project_path, sha256

TREC_FILES = ("qrels", "run", "queries.tsv", "documents.tsv")


def read_trec(folder: Path) -> tuple[list[CandidateList], dict[str, int]]:
    """Read the four files of a folder; candidates stand in the run's order (score, then rank).

    A grade below 0 counts as 0, as trec_eval has it.

    Returns:
        A list for each judged query, in the order of `qrels`, and counts: `unjudged_candidates`
        (taken as not relevant), `queries_without_run` (their lists are empty), and
        `queries_without_judgement` (of the run; left out).

    Raises:
        CandidateError: a file is absent, or rows of it are wrong (the first twenty are named).
    """
    for name in TREC_FILES:
        if not (folder / name).is_file():
            raise CandidateError(
                f"{display_path(folder)}: there is no {name!r} in it; a folder of TREC files has "
                + ", ".join(TREC_FILES)
            )
    queries, documents = (_texts(folder / name) for name in TREC_FILES[2:])
    judged: dict[str, dict[str, float]] = {}
    runs: dict[str, list[tuple[float, float, str]]] = {}

    def judgement(fields: list[str]) -> str:
        query, _, document, grade = fields
        value = finite_number(grade)
        if value is None:
            return f"the grade is {grade!r}; it must be a number"
        if query not in queries:
            return f"the query {query!r} has no text in {TREC_FILES[2]}"
        if document in judged.setdefault(query, {}):
            return f"the document {document!r} is judged twice for the query {query!r}"
        judged[query][document] = max(0.0, value)
        return ""

    def retrieved(fields: list[str]) -> str:
        query, _, document, rank, score, _ = fields
        values = finite_number(rank), finite_number(score)
        if values[0] is None or values[1] is None:
            return f"rank {rank!r} and score {score!r} must be numbers"
        if document not in documents:
            return f"the document {document!r} has no text in {TREC_FILES[3]}"
        if document in seen.setdefault(query, set()):
            return f"the document {document!r} stands twice under the query {query!r}"
        seen[query].add(document)
        runs.setdefault(query, []).append((-values[1], values[0], document))
        return ""

    seen: dict[str, set[str]] = {}
    _each(folder / TREC_FILES[0], 4, judgement)
    _each(folder / TREC_FILES[1], 6, retrieved)
    counts = {
        "unjudged_candidates": 0,
        "queries_without_run": len(judged.keys() - runs.keys()),
        "queries_without_judgement": len(runs.keys() - judged.keys()),
    }
    lists = []
    for query, grades in judged.items():
        found = [document for _, _, document in sorted(runs.get(query, []))]
        one = _list(queries[query], found, grades, documents, folder)
        counts["unjudged_candidates"] += one.kinds.count("unjudged")
        lists.append(one)
    return lists, counts


def _list(
    query: str, found: list[str], grades: dict[str, float], documents: dict[str, str], folder: Path
) -> CandidateList:
    texts = [documents[name] for name in found]
    if twice := [text for text in dict.fromkeys(texts) if texts.count(text) > 1]:
        raise CandidateError(
            f"{display_path(folder / TREC_FILES[1])}: two documents under the query {query!r} have "
            f"the same text {twice[0]!r}"
        )
    relevance = tuple(grades.get(name, 0.0) for name in found)
    kinds = tuple(
        "unjudged" if name not in grades else "positive" if grades[name] > 0 else "labelled"
        for name in found
    )
    missed = tuple(grade for name, grade in grades.items() if grade > 0 and name not in found)
    return CandidateList(query, tuple(texts), relevance, missed, kinds)


def _texts(file: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    problems = []
    for number, line in _lines(file):
        name, tab, text = line.partition("\t")
        if not tab or not name.strip() or not text.strip():
            problems.append(f"line {number}: {line!r} is not an id, a tab and a text")
        elif name.strip() in texts:
            problems.append(f"line {number}: the id {name.strip()!r} stands twice")
        else:
            texts[name.strip()] = text.strip()
    refuse_rows(file, problems)
    return texts


def _each(file: Path, width: int, take: Callable[[list[str]], str]) -> None:
    """Give the fields of every line to `take`, and refuse the file if it finds anything wrong."""
    problems = []
    for number, line in _lines(file):
        fields = line.split()
        wrong = f"{len(fields)} fields instead of {width}" if len(fields) != width else take(fields)
        if wrong:
            problems.append(f"line {number}: {wrong}")
    refuse_rows(file, problems)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            text = line.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            where = f"{display_path(file)}, line {number}"
            raise CandidateError(f"{where}: not UTF-8 at byte {error.start}") from error
        if text.strip():
            yield number, text


TABLE_COLUMNS = ("query_id", "query", "candidate", "label")


def read_candidates(path: str | Path, seed: int = 42) -> list[CandidateList]:
    """The lists of `read_test`, without the recipe."""
    return read_test(path, seed).lists


def read_test(path: str | Path, seed: int = 42) -> RankingTest:
    """Read candidate lists; the form is told by the name.

    - `.jsonl`: rows `{"query": str, "positive": [str, ...], "negative": [str, ...]}`, optionally
      with `grades`, `order`, `missed` and `kinds` as `write_candidates` writes them.
    - `.csv`, `.tsv`, `.parquet`: columns `query_id`, `query`, `candidate`, `label` (0 or more), and
      `rank` where the table is to state an order.
    - a folder: the TREC files `qrels` and `run`, with the texts in `queries.tsv` and
      `documents.tsv` (an id, a tab, a text). Candidates without a judgement count as not relevant;
      judged relevant texts outside the run stay in the denominators; judged queries outside the
      run have an empty list; queries of the run without any judgement are left out, and counted.

    Args:
        path: the file or folder.
        seed: of the order of lists whose source states none.

    Raises:
        CandidateError: nothing is there, or a row is wrong. All bad rows are named (the first
            twenty in full) with file, line, field and value.
    """
    place = project_path(path)
    if place.is_dir():
        lists, counts = read_trec(place)
        files = [place / name for name in TREC_FILES]
        stated = True
    else:
        readers: dict[str, Callable[[Path], tuple[list[CandidateList], bool]]] = {
            ".jsonl": _read_jsonl,
            ".csv": _read_table,
            ".tsv": _read_table,
            ".parquet": _read_table,
        }
        if not place.is_file():
            raise CandidateError(f"{display_path(place)}: there is no such file")
        if place.suffix.lower() not in readers:
            known = ", ".join(readers)
            raise CandidateError(
                f"{display_path(place)}: the name must end in one of {known}, "
                "or be a folder of TREC files"
            )
        lists, stated = readers[place.suffix.lower()](place)
        files, counts = [place], {}
    if not lists:
        raise CandidateError(f"{display_path(place)}: there is no candidate list in it")
    if not stated:
        lists = [shuffled(one, seed, number) for number, one in enumerate(lists)]
    recipe = {
        "source": display_path(place),
        "sha256": {file.name: sha256(file) for file in files},
        "order": "as the source states it" if stated else f"shuffled with seed {seed}",
        **counts,
        **count_lists(lists),
    }
    return RankingTest(lists, recipe)


def _read_jsonl(file: Path) -> tuple[list[CandidateList], bool]:
    lists, problems, stated = [], [], []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = _object(line)
            lists.append(_parse(row))
            stated.append("order" in row)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if stated and any(stated) != all(stated):
        problems.append(f"{sum(stated)} of {len(stated)} rows have a field 'order': all or none")
    refuse_rows(file, problems)
    return lists, any(stated)


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    if not isinstance(row, dict):
        raise ValueError(f"not a JSON object: {str(row)[:80]!r}")
    return row


def _parse(row: dict[str, Any]) -> CandidateList:
    query = row.get("query")
    if not isinstance(query, str) or not query.strip():
        raise ValueError(f"field 'query' must be a text, not {query!r}")
    for field in ("positive", "negative"):
        texts = row.get(field)
        if not isinstance(texts, list):
            raise ValueError(f"field {field!r} must be a list of texts, not {texts!r}")
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"field {field!r} holds {text!r}, which is no text")
        if twice := [text for text in dict.fromkeys(texts) if texts.count(text) > 1]:
            raise ValueError(f"field {field!r} holds {twice[0]!r} more than once")
    positive, negative = row["positive"], row["negative"]
    if both := sorted(set(positive) & set(negative)):
        raise ValueError(f"{both[0]!r} is both positive and negative")
    missed = _numbers(row.get("missed", []), "missed", None)
    if not positive + negative and not missed:
        raise ValueError(f"the query {query!r} has no candidates")
    grades = _numbers(row.get("grades", [1.0] * len(positive)), "grades", len(positive))
    kinds = row.get("kinds", [])
    if not isinstance(kinds, list) or set(map(str, kinds)) - set(KINDS):
        raise ValueError(f"field 'kinds' must be a list of {', '.join(KINDS)}, not {kinds!r}")
    count = len(positive) + len(negative)
    if kinds and len(kinds) != count:
        raise ValueError(f"field 'kinds' has {len(kinds)} entries for {count} candidates")
    relevance = (*grades, *(0.0,) * len(negative))
    one = CandidateList(query, (*positive, *negative), relevance, missed, tuple(kinds))
    if "order" not in row:
        return one
    order = row["order"]
    if not isinstance(order, list) or sorted(order, key=str) != sorted(range(count), key=str):
        raise ValueError(f"field 'order' must hold each of 0 to {count - 1} once, not {order!r}")
    return ordered(one, order)


def _numbers(values: Any, field: str, count: int | None) -> tuple[float, ...]:
    if not isinstance(values, list) or (count is not None and len(values) != count):
        wanted = f"{count} numbers, one a positive" if count is not None else "a list of numbers"
        raise ValueError(f"field {field!r} must be {wanted}, not {values!r}")
    for value in values:
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"field {field!r} holds {value!r}; it must be a number above 0")
    return tuple(map(float, values))


def _read_table(file: Path) -> tuple[list[CandidateList], bool]:
    queries: dict[str, str] = {}
    rows: dict[str, list[tuple[float, str, float]]] = {}
    problems, stated, problem = [], False, ""
    for line, row in _table_rows(file):
        stated = "rank" in row
        name, query, candidate = (str(row[column] or "") for column in TABLE_COLUMNS[:3])
        label = finite_number(row["label"])
        place = finite_number(row["rank"]) if stated else 0.0
        known = {text for _, text, _ in rows.get(name, [])}
        if not query.strip() or not candidate.strip() or not name.strip():
            empty = next(c for c in TABLE_COLUMNS[:3] if not str(row[c] or "").strip())
            problem = f"field {empty!r} is empty"
        elif queries.setdefault(name, query) != query:
            problem = f"field 'query' is {query!r}, but above {queries[name]!r} for {name!r}"
        elif label is None or label < 0:
            problem = f"field 'label' is {row['label']!r}; it must be a number of 0 or more"
        elif place is None:
            problem = f"field 'rank' is {row['rank']!r}; it must be a number"
        elif candidate in known:
            problem = f"field 'candidate' repeats {candidate!r} for the query {name!r}"
        else:
            rows.setdefault(name, []).append((place, candidate, label))
            continue
        problems.append(f"line {line}: {problem}")
    refuse_rows(file, problems)
    lists = []
    for name, found in rows.items():
        found.sort(key=lambda entry: entry[0])
        _, texts, labels = zip(*found, strict=True)
        lists.append(CandidateList(queries[name], texts, labels))
    return lists, stated


def _table_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows; the columns are checked first."""
    if file.suffix.lower() == ".parquet":
        import pandas as pd

        try:
            frame = pd.read_parquet(file)
        except (OSError, ValueError) as error:
            raise CandidateError(f"{display_path(file)}: not a Parquet file ({error})") from error
        _columns(file, list(frame.columns))
        yield from enumerate(frame.to_dict("records"), start=1)
        return
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with file.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, delimiter=delimiter, strict=True)
        try:
            _columns(file, list(reader.fieldnames or []))
            for row in reader:
                if None in row or None in row.values():
                    raise CandidateError(
                        f"{display_path(file)}, line {reader.line_num}: more or "
                        "fewer fields than the header"
                    )
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            line = f"line {reader.line_num + 1}"
            raise CandidateError(f"{display_path(file)}, {line}: {error}") from error


def _columns(file: Path, columns: list[str]) -> None:
    if absent := [name for name in TABLE_COLUMNS if name not in columns]:
        raise CandidateError(
            f"{display_path(file)}, line 1: there is no column {absent[0]!r}; the "
            f"columns are {columns}"
        )
