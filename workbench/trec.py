"""Candidate lists from TREC files: judgements (`qrels`), a search's ranking (`run`), and texts."""

from collections.abc import Callable, Iterator
from pathlib import Path

from workbench.files import display_path
from workbench.lists import CandidateError, CandidateList, finite_number, refuse_rows

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
