"""Candidate lists from JSONL rows, tables of judged candidates, and folders of TREC files."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, ValidationError

from workbench.data.lists import (
    KINDS,
    CandidateError,
    CandidateList,
    RankingTest,
    count_lists,
    ordered,
    shuffled,
)
from workbench.data.readers import (
    ABSENT,
    REASONS,
    BadRow,
    PairsError,
    Record,
    file_records,
    opened,
    suffix_of,
    text_lines,
    text_problem,
)
from workbench.files import display_path, project_path, sha256

TREC_FILES = ("qrels", "run", "queries.tsv", "documents.tsv")
PROBLEMS_SHOWN = 20  # kinds of bad row, each with its first row in full
LIST_SHAPE = '{"query": "...", "positive": ["..."], "negative": ["..."]}'


def read_candidates(path: str | Path, seed: int = 42) -> list[CandidateList]:
    """The lists of `read_test`, without the recipe."""
    return read_test(path, seed).lists


def read_test(path: str | Path, seed: int = 42) -> RankingTest:
    """Candidate lists from a file or folder; its name gives the form.

    - `.jsonl`: rows `{"query": str, "positive": [str, ...], "negative": [str, ...]}`, optionally
      with `grades`, `order`, `missed` and `kinds` as `write_candidates` writes them.
    - `.csv`, `.tsv`, `.parquet`: columns `query_id`, `query`, `candidate`, `label` (0 or more), and
      `rank` where the table states an order.
    - a folder: the TREC files `qrels` and `run`, with the texts in `queries.tsv` and
      `documents.tsv` (an id, a tab, a text). Candidates without a judgement count as not relevant,
      grades below 0 as 0. Judged relevant texts outside the run stay in the denominators, judged
      queries outside the run have an empty list, and queries without judgement are left out.
      Documents of a query with equal texts are one candidate with the highest of their grades.

    Args:
        path: the file (also in gzip) or folder.
        seed: of the order of lists whose source states none.

    Raises:
        CandidateError: nothing is there, or rows are wrong: the first twenty are named in full with
            file, line, field and value.
    """
    place = project_path(path)
    counts: dict[str, int] = {}
    try:
        if place.is_dir():
            lists, counts = _read_trec(place)
            files, stated = [place / name for name in TREC_FILES], True
        else:
            read = _read_jsonl if suffix_of(place)[0] == ".jsonl" else _read_table
            lists, stated = read(place)
            files = [place]
    except PairsError as error:
        raise CandidateError(str(error)) from error
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


def _usable(text: Any) -> Any:
    if reason := text_problem(text):
        raise ValueError(REASONS[reason])
    return text.strip()


Text = Annotated[str, BeforeValidator(_usable)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _ListRow(BaseModel, strict=True):
    query: Text
    positive: list[Text]
    negative: list[Text]
    grades: list[Positive] | None = None
    missed: list[Positive] = []
    kinds: list[str] = []
    order: list[int] | None = None


class _TableRow(BaseModel):
    query_id: Annotated[Text, BeforeValidator(lambda name: "" if name is None else str(name))]
    query: Text
    candidate: Text
    label: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rank: FiniteFloat = 0.0


class _TrecText(BaseModel, str_strip_whitespace=True):
    id: Text
    text: Text


class _Judgement(BaseModel):
    query: Text
    iteration: str
    document: Text
    grade: FiniteFloat


class _Retrieval(BaseModel):
    query: Text
    iteration: str
    document: Text
    rank: FiniteFloat
    score: FiniteFloat
    tag: str


def _read_jsonl(file: Path) -> tuple[list[CandidateList], bool]:
    lists, stated = [], []

    def take(row: _ListRow) -> None:
        candidates = (*row.positive, *row.negative)
        count, grades = len(candidates), row.grades
        grades = [1.0] * len(row.positive) if grades is None else grades
        if not count and not row.missed:
            raise ValueError(f"the query {row.query!r} has no candidates")
        if twice := [text for text, times in Counter(candidates).items() if times > 1]:
            raise ValueError(f"the candidate {twice[0]!r} occurs twice among positive and negative")
        if len(grades) != len(row.positive) or len(row.kinds) not in (0, count):
            raise ValueError("grades must be one per positive, kinds one per candidate")
        if unknown := set(row.kinds) - set(KINDS):
            raise ValueError(f"kinds must be of {', '.join(KINDS)}, not {unknown}")
        if row.order is not None and sorted(row.order) != list(range(count)):
            raise ValueError(f"order must hold each of 0 to {count - 1} once, not {row.order!r}")
        relevance = (*grades, *(0.0 for _ in row.negative))
        one = CandidateList(row.query, candidates, relevance, tuple(row.missed), tuple(row.kinds))
        lists.append(one if row.order is None else ordered(one, row.order))
        stated.append(row.order is not None)

    _each_row(file, _ListRow, take)
    if any(stated) and not all(stated):
        text = f"{sum(stated)} of {len(stated)} rows have a field 'order': all or none"
        raise CandidateError(f"{display_path(file)}: {text}")
    return lists, any(stated)


def _read_table(file: Path) -> tuple[list[CandidateList], bool]:
    queries: dict[str, str] = {}
    found: dict[str, dict[str, _TableRow]] = {}  # query_id -> candidate -> row
    stated = False

    def take(row: _TableRow) -> None:
        nonlocal stated
        stated, rows = "rank" in row.model_fields_set, found.setdefault(row.query_id, {})
        if (first := queries.setdefault(row.query_id, row.query)) != row.query:
            raise ValueError(
                f"the query is {row.query!r}, but above {first!r} for {row.query_id!r}"
            )
        _add(rows, row.candidate, row)

    _each_row(file, _TableRow, take)
    lists = []
    for name, rows in found.items():
        ranked = sorted(rows.values(), key=lambda row: row.rank)
        relevance = tuple(row.label for row in ranked)
        lists.append(CandidateList(queries[name], tuple(r.candidate for r in ranked), relevance))
    return lists, stated


def _read_trec(folder: Path) -> tuple[list[CandidateList], dict[str, int]]:
    """A list for each judged query, in the order of `qrels`; candidates by score, then rank."""
    if absent := [name for name in TREC_FILES if not (folder / name).is_file()]:
        raise CandidateError(
            f"{display_path(folder)}: there is no {absent[0]!r} in it; a folder of TREC files has "
            + ", ".join(TREC_FILES)
        )
    queries, documents = _trec_texts(folder / "queries.tsv"), _trec_texts(folder / "documents.tsv")
    judged: dict[str, dict[str, float]] = {}
    runs: dict[str, dict[str, tuple[float, float]]] = {}

    def judge(row: _Judgement) -> None:
        if row.query not in queries:
            raise ValueError(f"the query {row.query!r} has no text in queries.tsv")
        _add(judged.setdefault(row.query, {}), row.document, max(0.0, row.grade))

    def retrieve(row: _Retrieval) -> None:
        if row.document not in documents:
            raise ValueError(f"the document {row.document!r} has no text in documents.tsv")
        _add(runs.setdefault(row.query, {}), row.document, (-row.score, row.rank))

    _each_row(folder / "qrels", _Judgement, judge, _lines(folder / "qrels", 4))
    _each_row(folder / "run", _Retrieval, retrieve, _lines(folder / "run", 6))
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
    return lists, {
        "equal_texts_merged": merged,
        "unjudged_candidates": sum(one.kinds.count("unjudged") for one in lists),
        "queries_without_run": len(judged.keys() - runs.keys()),
        "queries_without_judgement": len(runs.keys() - judged.keys()),
    }


def _trec_texts(file: Path) -> dict[str, str]:
    texts: dict[str, str] = {}

    def take(row: _TrecText) -> None:
        _add(texts, row.id, row.text)

    _each_row(file, _TrecText, take, _lines(file, 2, "\t"))
    return texts


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    if name in found:
        raise ValueError(f"{name!r} occurs twice")
    found[name] = value


def _lines(file: Path, width: int, separator: str | None = None) -> Iterator[Record]:
    with opened(file) as raw:
        for line, text in enumerate(text_lines(raw, file.name), start=1):
            if text.strip():
                yield line, *text.split(separator, width - 1)


def _each_row(
    file: Path,
    model: type[BaseModel],
    take: Callable[[Any], None],
    lines: Iterable[Record] | None = None,
) -> None:
    """Check each row by the model and give it to `take`; refuse the file if any row is wrong."""
    required = {name: name for name, of in model.model_fields.items() if of.is_required()}
    optional = [name for name in model.model_fields if name not in required]
    records = file_records(file, required, optional) if lines is None else lines
    problems: dict[str, list[str]] = {}  # kind -> each row that has it
    for record in records:
        if isinstance(record, BadRow):
            problems.setdefault(f"{record.reason} {record.column}", []).append(str(record))
            continue
        values = zip(model.model_fields, record[1:], strict=False)
        try:
            take(model.model_validate({name: v for name, v in values if v is not ABSENT}))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            column, what = first["loc"][0], first["msg"].removeprefix("Value error, ")
            row = f"line {record[0]}, column {column}: {what}: {repr(first['input'])[:80]}"
            problems.setdefault(f"{column} {what}", []).append(row)
        except ValueError as error:
            problems.setdefault(str(record[0]), []).append(f"line {record[0]}: {error}")
    if problems:
        _refuse(file, problems)


def _refuse(file: Path, problems: Mapping[str, Sequence[str]]) -> None:
    shown = [
        rows[0] + f" (and {len(rows) - 1:,} more like it)" * (len(rows) > 1)
        for rows in itertools.islice(problems.values(), PROBLEMS_SHOWN)
    ]
    if file.suffix == ".jsonl" and any(kind.startswith("missing_column") for kind in problems):
        shown.append(f"each line must be like {LIST_SHAPE}")
    count = sum(map(len, problems.values()))
    text = "\n  ".join(shown)
    raise CandidateError(f"{display_path(file)}: {count:,} bad rows\n  {text}")
