"""Candidate lists: a query with the candidates to rank for it; read, written and counted.

The order of a list is a scorer too. Where a source states an order (a TREC run, a `rank` column,
our own `order`) it is kept; elsewhere the candidates are shuffled by seed, so that no list has its
positives first because of how it was written.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, ValidationError, create_model

from workbench.data import readers
from workbench.files import display_path, project_path, sha256, write_text

# `build_test` says what they are; `unjudged` is of TREC files, `given` of whoever wrote the lists
KINDS = ("positive", "labelled", "look_alike", "random", "unjudged", "given")
LIST_FIELDS = ("candidates", "positive", "negative")
TREC_FILES = ("qrels", "run", "queries.tsv", "documents.tsv")
PROBLEMS_SHOWN = 20  # kinds of bad row, each with its first row in full


class CandidateList(NamedTuple):
    """A query and its candidates, in list order."""

    query: str
    candidates: tuple[str, ...]  # the texts, all different
    relevance: tuple[float, ...]  # of each candidate, 0 for not relevant, else above 0
    missed: tuple[float, ...] = ()  # of relevant texts that are not among the candidates
    kinds: tuple[str, ...] = ()  # of each candidate one of `KINDS`; empty if nothing is known

    def pairs(self) -> list[tuple[str, str]]:
        """The (query, candidate) pairs, in list order."""
        return [(self.query, candidate) for candidate in self.candidates]

    def positives(self) -> list[str]:
        """The relevant candidates, in list order."""
        return [t for t, gain in zip(self.candidates, self.relevance, strict=True) if gain > 0]

    def ordered(self, order: Iterable[int]) -> "CandidateList":
        """The list with its candidates in the given order, a permutation of their places."""
        places = list(order)
        return self._replace(
            candidates=tuple(self.candidates[place] for place in places),
            relevance=tuple(self.relevance[place] for place in places),
            kinds=tuple(self.kinds[place] for place in places) if self.kinds else (),
        )

    def shuffled(self, seed: int, number: int) -> "CandidateList":
        """The list in random order, which depends on the seed and the list's number."""
        return self.ordered(np.random.default_rng([seed, number]).permutation(len(self.candidates)))


class RankingTest(NamedTuple):
    """Candidate lists and how they were made, as plain values for JSON."""

    lists: list[CandidateList]
    recipe: dict[str, Any]


def texts_of(lists: Iterable[CandidateList]) -> Iterator[str]:
    """Queries and candidates of the lists, with repetitions."""
    return (text for one in lists for text in (one.query, *one.candidates))


def count_lists(lists: Sequence[CandidateList]) -> dict[str, Any]:
    """What the lists hold, odd queries among them, as plain counts."""
    relevance = [np.asarray(one.relevance) > 0 for one in lists]
    kinds = Counter(kind for one in lists for kind in one.kinds)
    return {
        "queries": len(lists),
        "candidates": sum(map(len, relevance)),
        "positives": int(sum(gain.sum() for gain in relevance)),
        "missed_positives": sum(len(one.missed) for one in lists),
        "kinds": {kind: kinds[kind] for kind in KINDS if kinds[kind]},
        "odd_queries": {
            "without_candidate": sum(not len(gain) for gain in relevance),
            "without_positive": sum(bool(len(gain)) and not gain.any() for gain in relevance),
            "one_candidate": sum(len(gain) == 1 for gain in relevance),
            "all_positive": sum(len(gain) > 1 and bool(gain.all()) for gain in relevance),
        },
    }


def write_candidates(path: str | Path, lists: Iterable[CandidateList]) -> None:
    """Write lists as JSONL rows that `read_test` reads back unchanged.

    Besides `query`, `positive` and `negative` a row has `order` (the candidates' places among
    positives and negatives) and, where there are any, `grades` of the positives, `missed`, `kinds`.
    """
    rows = []
    for one in lists:
        order = np.argsort(np.asarray(one.relevance) <= 0, kind="stable")  # positives first
        written, count = one.ordered(order), len(one.positives())
        row: dict[str, Any] = {
            "query": one.query,
            "positive": written.candidates[:count],
            "negative": written.candidates[count:],
            "order": np.argsort(order).tolist(),
        }
        if set(written.relevance[:count]) - {1.0}:
            row["grades"] = written.relevance[:count]
        row |= {name: value for name in ("missed", "kinds") if (value := getattr(written, name))}
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(rows))


def read_test(path: str | Path, seed: int = 42) -> RankingTest:
    """Candidate lists from a file (also in gzip) or folder; its name gives the form.

    - `.jsonl`: rows `{"query": str, "positive": [str, ...], "negative": [str, ...]}`, optionally
      with `grades`, `order`, `missed` and `kinds` as `write_candidates` writes them.
    - `.csv`, `.tsv`, `.parquet`: columns `query_id`, `query`, `candidate`, `label` (0 or more), and
      `rank` where the table states an order.
    - a folder: the TREC files `qrels` and `run`, with the texts in `queries.tsv` and
      `documents.tsv` (an id, a tab, a text). Candidates without a judgement count as not relevant,
      grades below 0 as 0. Judged relevant texts outside the run stay in the denominators, judged
      queries outside the run have an empty list, and queries without judgement are left out.
      Documents of a query with equal texts are one candidate with the highest of their grades.

    `seed` is that of the order of lists whose source states none.

    Raises:
        PairsError: nothing is there, or rows are wrong: the first twenty kinds are named with
            file, line, field and value.

    Example:
        >>> read_test("notebooks/lessons/recorded/lists.jsonl").recipe["queries"]
        56
    """
    place = project_path(path)
    read = _read_objects if readers.holds_objects(place) else _read_table
    lists, stated, counts = (_read_trec if place.is_dir() else read)(place)
    if not lists:
        raise readers.PairsError(f"{display_path(place)}: there is no candidate list in it")
    if not stated:
        lists = [one.shuffled(seed, number) for number, one in enumerate(lists)]
    files = [place / name for name in TREC_FILES] if place.is_dir() else [place]
    recipe = {
        "source": display_path(place),
        "sha256": {file.name: sha256(file) for file in files},
        "order": "as the source states it" if stated else f"shuffled with seed {seed}",
        **counts,
        **count_lists(lists),
    }
    return RankingTest(lists, recipe)


def holds_lists(path: Path) -> bool:
    """Whether a source is of lists: a folder, or JSONL whose first object has a query and lists."""
    if path.is_dir() or not readers.holds_objects(path):
        return path.is_dir()
    records = itertools.islice(readers.file_records(path, {"query": "query"}, LIST_FIELDS), 100)
    objects = (
        r for r in records if not isinstance(r, readers.BadRow) or r.reason == "missing_column"
    )
    return any(isinstance(value, list) for value in next(objects, ()))


def candidate_rows(path: Path) -> Iterator[readers.Record]:
    """The candidates of JSONL lists or TREC files: number of the list, query, text, grade.

    Raises:
        PairsError: nothing is there, or a row is wrong.
    """
    lists, _, _ = (_read_trec if path.is_dir() else _read_objects)(path)
    for number, one in enumerate(lists, start=1):
        for text, grade in zip(one.candidates, one.relevance, strict=True):
            yield number, one.query, text, grade


Source = tuple[list[CandidateList], bool, dict[str, int]]  # whether it states an order; counts


def _usable(text: Any) -> Any:
    if reason := readers.text_problem(text):
        raise ValueError(readers.REASONS[reason])
    return text.strip()


Text = Annotated[str, BeforeValidator(_usable)]
Name = Annotated[Text, BeforeValidator(lambda n: "" if n is None or n != n else str(n))]
Grade = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[Grade, Field(gt=0)]


class _Object(BaseModel, strict=True):
    query: Text
    positive: list[Text]
    negative: list[Text]
    grades: list[Positive] | None = None
    missed: list[Positive] = []
    kinds: list[Literal[KINDS]] = []  # type: ignore[valid-type]
    order: list[int] | None = None


Row = partial(create_model, "Row")
Label = Annotated[
    Grade, BeforeValidator(lambda value: readers.TRUTH.get(str(value).strip().lower(), value))
]
TABLE_ROW = Row(query_id=Name, query=Text, candidate=Text, label=Label, rank=(FiniteFloat, 0.0))
TREC_TEXT = Row(id=Text, text=Text)
JUDGEMENT = Row(query=Text, iteration=str, document=Text, grade=FiniteFloat)
RETRIEVAL = Row(query=Text, q0=str, document=Text, rank=FiniteFloat, score=FiniteFloat, tag=str)


def _read_objects(file: Path) -> Source:
    lists, stated = [], []

    def take(row: _Object) -> None:
        candidates = (*row.positive, *row.negative)
        count, grades = len(candidates), row.grades
        grades = [1.0] * len(row.positive) if grades is None else grades
        if not count and not row.missed:
            raise ValueError(f"the query {row.query!r} has no candidates")
        if twice := [text for text, times in Counter(candidates).items() if times > 1]:
            raise ValueError(f"the candidate {twice[0]!r} occurs twice among positive and negative")
        if len(grades) != len(row.positive) or len(row.kinds) not in (0, count):
            raise ValueError("grades must be one per positive, kinds one per candidate")
        if row.order is not None and sorted(row.order) != list(range(count)):
            raise ValueError(f"order must hold each of 0 to {count - 1} once, not {row.order!r}")
        relevance = (*grades, *(0.0 for _ in row.negative))
        one = CandidateList(row.query, candidates, relevance, tuple(row.missed), tuple(row.kinds))
        lists.append(one if row.order is None else one.ordered(row.order))
        stated.append(row.order is not None)

    _each_row(file, _Object, take)
    if any(stated) and not all(stated):
        text = f"{sum(stated)} of {len(stated)} rows have a field 'order': all or none"
        raise readers.PairsError(f"{display_path(file)}: {text}")
    return lists, any(stated), {}


def _read_table(file: Path) -> Source:
    found: dict[str, dict[str, Any]] = {}  # query_id -> candidate -> row

    def take(row: Any) -> None:
        rows = found.setdefault(row.query_id, {})
        if (first := next(iter(rows.values()), row).query) != row.query:
            here = f"the query is {row.query!r}"
            raise ValueError(f"{here}, but above {first!r} for {row.query_id!r}")
        _add(rows, row.candidate, row)

    _each_row(file, TABLE_ROW, take)
    stated, lists = False, []
    for rows in found.values():
        ranked = sorted(rows.values(), key=lambda row: row.rank)
        stated = "rank" in ranked[0].model_fields_set
        texts, relevance = zip(*((row.candidate, row.label) for row in ranked), strict=True)
        lists.append(CandidateList(ranked[0].query, texts, relevance))
    return lists, stated, {}


def _read_trec(folder: Path) -> Source:
    """A list for each judged query, in the order of `qrels`; candidates by score, then rank."""
    if absent := [name for name in TREC_FILES if not (folder / name).is_file()]:
        text = f"there is no {absent[0]!r} in it; a folder of TREC files has"
        raise readers.PairsError(f"{display_path(folder)}: {text} {', '.join(TREC_FILES)}")
    queries, documents = _trec_texts(folder / "queries.tsv"), _trec_texts(folder / "documents.tsv")
    judged: dict[str, dict[str, float]] = {}
    runs: dict[str, dict[str, tuple[float, float]]] = {}

    def judge(row: Any) -> None:
        if row.query not in queries:
            raise ValueError(f"the query {row.query!r} has no text in queries.tsv")
        _add(judged.setdefault(row.query, {}), row.document, max(0.0, row.grade))

    def retrieve(row: Any) -> None:
        if row.document not in documents:
            raise ValueError(f"the document {row.document!r} has no text in documents.tsv")
        _add(runs.setdefault(row.query, {}), row.document, (-row.score, row.rank))

    _each_row(folder / "qrels", JUDGEMENT, judge, _lines(folder / "qrels", 4))
    _each_row(folder / "run", RETRIEVAL, retrieve, _lines(folder / "run", 6))
    lists, merged = [], 0
    for query, grades in judged.items():
        run = runs.get(query, {})
        ranked = sorted(run, key=lambda name: (run[name], name))
        # Documents with one text are one candidate, with the highest of their grades.
        best: dict[str, float] = {}  # text -> grade
        for name, grade in grades.items():
            text = documents.get(name, f"\0{name}")  # a judged one outside the run may lack a text
            best[text] = max(grade, best.get(text, 0.0))
        candidates = tuple(dict.fromkeys(documents[name] for name in ranked))
        merged += len(ranked) - len(candidates)
        relevance = tuple(best.get(text, 0.0) for text in candidates)
        missed = tuple(g for text, g in best.items() if g > 0 and text not in candidates)
        kinds = tuple(
            "unjudged" if text not in best else "positive" if best[text] > 0 else "labelled"
            for text in candidates
        )
        lists.append(CandidateList(queries[query], candidates, relevance, missed, kinds))
    counts = {
        "equal_texts_merged": merged,
        "unjudged_candidates": sum(one.kinds.count("unjudged") for one in lists),
        "queries_without_run": len(judged.keys() - runs.keys()),
        "queries_without_judgement": len(runs.keys() - judged.keys()),
    }
    return lists, True, counts


def _trec_texts(file: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    _each_row(file, TREC_TEXT, lambda row: _add(texts, row.id, row.text), _lines(file, 2, "\t"))
    return texts


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    if name in found:
        raise ValueError(f"{name!r} occurs twice")
    found[name] = value


def _lines(file: Path, width: int, separator: str | None = None) -> Iterator[readers.Record]:
    with readers.opened(file) as raw:
        for line, text in enumerate(readers.text_lines(raw, file.name), start=1):
            if text.strip():
                yield line, *text.rstrip("\r\n").split(separator, width - 1)


def _each_row(
    file: Path,
    model: type[BaseModel],
    take: Callable[[Any], None],
    lines: Iterable[readers.Record] | None = None,
) -> None:
    """Check each row by the model and give it to `take`; refuse the file if any row is wrong."""
    required = {name: name for name, of in model.model_fields.items() if of.is_required()}
    optional = [name for name in model.model_fields if name not in required]
    problems: dict[str, list[str]] = {}  # kind -> each row that has it
    for record in lines or readers.file_records(file, required, optional):
        if isinstance(record, readers.BadRow):
            problems.setdefault(f"{record.reason} {record.column}", []).append(str(record))
            continue
        values = zip(model.model_fields, record[1:], strict=False)
        try:
            take(model.model_validate({name: v for name, v in values if v is not readers.ABSENT}))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            column, what = first["loc"][0], first["msg"].removeprefix("Value error, ")
            row = f"line {record[0]}, column {column}: {what}: {repr(first['input'])[:80]}"
            problems.setdefault(f"{column} {what}", []).append(row)
        except ValueError as error:
            problems.setdefault(str(record[0]), []).append(f"line {record[0]}: {error}")
    if not problems:
        return
    shown = [
        rows[0] + f" (and {len(rows) - 1:,} more like it)" * (len(rows) > 1)
        for rows in itertools.islice(problems.values(), PROBLEMS_SHOWN)
    ]
    if readers.holds_objects(file) and any(kind.startswith("missing_column") for kind in problems):
        shape = '{"query": "...", "positive": ["..."], "negative": ["..."]}'
        shown.append(f"each line must be like {shape}")
    count, text = sum(map(len, problems.values())), "\n  ".join(shown)
    raise readers.PairsError(f"{display_path(file)}: {count:,} bad rows\n  {text}")
