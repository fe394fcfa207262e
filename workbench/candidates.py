"""Candidate lists: a query with the candidates to rank for it, read from a file or built."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from workbench.files import display_path, project_path, write_text
from workbench.splits import text_groups


class CandidateError(ValueError):
    """A candidate list cannot be used; the message names file, line, field and value."""


class CandidateList(NamedTuple):
    """A query, its candidates, and the relevance of each (1 positive, 0 negative)."""

    query: str
    candidates: tuple[str, ...]
    relevance: tuple[float, ...]

    def pairs(self) -> list[tuple[str, str]]:
        """The (query, candidate) pairs, in list order."""
        return [(self.query, candidate) for candidate in self.candidates]


def read_candidates(path: str | Path) -> list[CandidateList]:
    """Read JSONL rows `{"query": str, "positive": [str, ...], "negative": [str, ...]}`.

    Raises:
        CandidateError: the file is missing or empty, or a row is not of that form or has one text
            on both sides. All bad rows are named (the first twenty in full).
    """
    file = project_path(path)
    if not file.is_file():
        raise CandidateError(f"{display_path(file)}: there is no such file")
    lists, problems = [], []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            lists.append(_parse(line))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        shown = "\n  ".join(problems[:20])
        raise CandidateError(f"{display_path(file)}: {len(problems)} bad rows\n  {shown}")
    if not lists:
        raise CandidateError(f"{display_path(file)}: there is no candidate list in it")
    return lists


def write_candidates(path: str | Path, lists: Iterable[CandidateList]) -> None:
    """Write lists as JSONL rows that `read_candidates` reads."""
    rows = []
    for query, candidates, relevance in lists:
        sides: dict[str, Any] = {"query": query, "positive": [], "negative": []}
        for candidate, value in zip(candidates, relevance, strict=True):
            sides["positive" if value > 0 else "negative"].append(candidate)
        rows.append(json.dumps(sides, ensure_ascii=False) + "\n")
    write_text(path, "".join(rows))


def _parse(line: bytes) -> CandidateList:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    if not isinstance(row, dict):
        raise ValueError(f"not a JSON object: {str(row)[:80]!r}")
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
    positive, negative = row["positive"], row["negative"]
    if both := sorted(set(positive) & set(negative)):
        raise ValueError(f"{both[0]!r} is both positive and negative")
    if not positive + negative:
        raise ValueError(f"the query {query!r} has no candidates")
    relevance = (1.0,) * len(positive) + (0.0,) * len(negative)
    return CandidateList(query, (*positive, *negative), relevance)


def build_candidates(
    pairs: pd.DataFrame, size: int = 30, seed: int = 42, threshold: float = 0.5
) -> list[CandidateList]:
    """Build one list for each query of `pairs` that has a positive, from these pairs' texts alone.

    A list holds the query's positives (label at or above `threshold`), its labelled negatives, up
    to half its free places in look-alikes (nearest by character overlap), and random texts. No
    text connected to the query by positives is taken as a negative.

    Args:
        pairs: columns `sentence_0`, `sentence_1`, `label`, from one side of a split.
        size: candidates a list, where there are enough texts (positives are never cut).
        seed: for the random texts.
        threshold: the least label of a positive.

    Raises:
        CandidateError: no query here has a positive, so there is nothing to rank.
    """
    positive = pairs[pairs["label"] >= threshold]
    negative = pairs[pairs["label"] < threshold]
    texts = list(dict.fromkeys([*pairs["sentence_0"], *pairs["sentence_1"]]))
    place = {text: number for number, text in enumerate(texts)}
    meaning = _meaning_groups(place, positive)
    labelled = negative.groupby("sentence_0")["sentence_1"].agg(list).to_dict()
    rng = np.random.default_rng(seed)
    queries = list(positive.groupby("sentence_0", sort=False)["sentence_1"])
    lists = []
    for (query, own), overlap in zip(
        queries, character_overlap([str(query) for query, _ in queries], texts), strict=True
    ):
        right = [text for text in dict.fromkeys(own) if text != query]
        if not right:
            continue
        allowed = meaning != meaning[place[query]]
        wrong = [
            place[text] for text in dict.fromkeys(labelled.get(query, [])) if allowed[place[text]]
        ]
        allowed[wrong] = False
        free = max(0, size - len(right) - len(wrong))
        near = np.argsort(np.where(allowed, overlap, -1.0), kind="stable")[::-1][: free // 2]
        wrong += [number for number in near if allowed[number]]
        allowed[wrong] = False
        left = np.flatnonzero(allowed)
        free = max(0, size - len(right) - len(wrong))
        wrong += list(rng.choice(left, min(free, len(left)), replace=False))
        relevance = (1.0,) * len(right) + (0.0,) * len(wrong)
        candidates = (*right, *(texts[number] for number in wrong))
        lists.append(CandidateList(str(query), candidates, relevance))
    if not lists:
        raise CandidateError(
            f"none of these {len(pairs)} pairs is a positive, so no list can be built: use more "
            "pairs (max_pairs), a larger test_share, or give a file of candidates"
        )
    return lists


def character_overlap(queries: Sequence[str], texts: Sequence[str]) -> Iterator[np.ndarray]:
    """For each query the Jaccard overlap of its characters with each text's; shape (texts,)."""
    from sklearn.feature_extraction.text import CountVectorizer

    if not queries:
        return
    counter = CountVectorizer(analyzer="char", binary=True, lowercase=False, dtype=np.float32)
    counter.fit([*texts, *queries])
    of_texts = counter.transform(texts)
    of_queries = counter.transform(queries)
    size = np.asarray(of_texts.sum(axis=1)).ravel()
    for number in range(len(queries)):
        shared = (of_texts @ of_queries[number].T).toarray().ravel()
        yield shared / (size + of_queries[number].sum() - shared)


def _meaning_groups(place: Mapping[str, int], positive: pd.DataFrame) -> np.ndarray:
    """A number for each text, shape (texts,); texts connected by positive pairs share it."""
    groups = -1 - np.arange(len(place))
    for group, first, second in zip(
        text_groups(positive), positive["sentence_0"], positive["sentence_1"], strict=True
    ):
        groups[[place[first], place[second]]] = group
    return groups


def look_alikes(query: str, texts: Sequence[str], count: int = 50) -> list[str]:
    """The `count` distinct texts nearest to `query` by character overlap, the nearest first."""
    distinct = [text for text in dict.fromkeys(texts) if text != query]
    overlap = next(character_overlap([query], distinct)) if distinct else np.empty(0)
    return [distinct[place] for place in np.argsort(-overlap, kind="stable")[:count]]
