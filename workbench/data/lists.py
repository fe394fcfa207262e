"""Candidate lists: a query with the candidates to rank for it, and how they are written down.

`candidate_order` is a scorer too, so the order of a list matters. Rule: where a source states an
order (a TREC run, a table with a `rank` column, a list we wrote with `order`) that order is kept;
where it does not (our JSONL names the positives first) the candidates are shuffled by seed as they
are read. No list has its positives first because of how it was written.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.files import display_path, write_text

SHOWN = 20  # bad rows named in full


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
    """A query, its candidates in their own order, and what is known of them.

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
    """Candidate lists and the recipe they were made by, as plain values for JSON."""

    lists: list[CandidateList]
    recipe: dict[str, Any]


def refuse_rows(file: Path, problems: Sequence[str]) -> None:
    """Raise `CandidateError` if there are problems, naming the file and the first twenty."""
    if problems:
        shown = "\n  ".join(problems[:SHOWN])
        raise CandidateError(f"{display_path(file)}: {len(problems)} bad rows\n  {shown}")


def finite_number(value: Any) -> float | None:
    """The value as a number; None if it is none, or not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def shuffled(one: CandidateList, seed: int, number: int) -> CandidateList:
    """The same list in random order; the order depends on the seed and the list's number."""
    return ordered(one, np.random.default_rng([seed, number]).permutation(len(one.candidates)))


def ordered(one: CandidateList, order: Iterable[int]) -> CandidateList:
    """The same list with its candidates in the given order, a permutation of their places."""
    places = list(order)
    kinds = tuple(one.kinds[place] for place in places) if one.kinds else ()
    return one._replace(
        candidates=tuple(one.candidates[place] for place in places),
        relevance=tuple(one.relevance[place] for place in places),
        kinds=kinds,
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
    """Write lists as JSONL rows that `read_candidates` reads back as they are.

    Besides `query`, `positive` and `negative` a row has `order` (the candidates' places among
    positives and negatives, in list order) and, where there is something to say, `grades` of the
    positives, `missed` and `kinds`.
    """
    rows = []
    for one in lists:
        gains = np.asarray(one.relevance, dtype=float)
        order = np.argsort(gains <= 0, kind="stable")  # positives first, each side in list order
        written = ordered(one, order)
        count = int((gains > 0).sum())
        row: dict[str, Any] = {
            "query": one.query,
            "positive": written.candidates[:count],
            "negative": written.candidates[count:],
            "order": np.argsort(order).tolist(),
        }
        if set(written.relevance[:count]) - {1.0}:
            row["grades"] = written.relevance[:count]
        for name in ("missed", "kinds"):
            if getattr(written, name):
                row[name] = getattr(written, name)
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(rows))
