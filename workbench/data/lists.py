"""Candidate lists: a query with the candidates to rank for it.

The order of a list is a scorer too (`candidate_order`). Where a source states an order (a TREC run,
a `rank` column, our own `order`) it is kept; elsewhere the candidates are shuffled by seed, so that
no list has its positives first because of how it was written.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.files import write_text

KINDS = {
    "positive": "relevant by label",
    "labelled": "labelled as not relevant",
    "look_alike": "mined: shares many characters with the query",
    "random": "drawn at random",
    "unjudged": "not judged, so taken as not relevant",
    "given": "from the file, which does not say where it comes from",
}


class CandidateError(ValueError):
    """A candidate list cannot be used; the message names file, line, field and value."""


class CandidateList(NamedTuple):
    """A query and its candidates, in list order.

    Attributes:
        query: the text to rank for.
        candidates: the texts, all different.
        relevance: of each candidate, 0 for not relevant, else above 0 (graded or 1).
        missed: the relevance of relevant texts that are not among the candidates.
        kinds: of each candidate a key of `KINDS`; empty where nothing is known.
    """

    query: str
    candidates: tuple[str, ...]
    relevance: tuple[float, ...]
    missed: tuple[float, ...] = ()
    kinds: tuple[str, ...] = ()

    def pairs(self) -> list[tuple[str, str]]:
        """The (query, candidate) pairs, in list order."""
        return [(self.query, candidate) for candidate in self.candidates]

    def positives(self) -> list[str]:
        """The relevant candidates, in list order."""
        return [t for t, gain in zip(self.candidates, self.relevance, strict=True) if gain > 0]


class RankingTest(NamedTuple):
    """Candidate lists and how they were made, as plain values for JSON."""

    lists: list[CandidateList]
    recipe: dict[str, Any]


def shuffled(one: CandidateList, seed: int, number: int) -> CandidateList:
    """The list in random order, which depends on the seed and the list's number."""
    return ordered(one, np.random.default_rng([seed, number]).permutation(len(one.candidates)))


def ordered(one: CandidateList, order: Iterable[int]) -> CandidateList:
    """The list with its candidates in the given order, a permutation of their places."""
    places = list(order)
    return one._replace(
        candidates=tuple(one.candidates[place] for place in places),
        relevance=tuple(one.relevance[place] for place in places),
        kinds=tuple(one.kinds[place] for place in places) if one.kinds else (),
    )


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
    """Write lists as JSONL rows that `read_candidates` reads back unchanged.

    Besides `query`, `positive` and `negative` a row has `order` (the candidates' places among
    positives and negatives, in list order) and, where there are any, `grades` of the positives,
    `missed` and `kinds`.
    """
    rows = []
    for one in lists:
        gains = np.asarray(one.relevance, dtype=float)
        order = np.argsort(gains <= 0, kind="stable")  # positives first, both in list order
        written, count = ordered(one, order), int((gains > 0).sum())
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
