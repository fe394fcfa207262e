"""Candidate lists built from the test split, and doubtful negatives in any list."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from workbench.data import POSITIVE
from workbench.data.lists import CandidateList, RankingTest, count_lists, read_test, texts_of
from workbench.data.readers import PairsError
from workbench.data.texts import OverlapIndex, distinct_texts, meaning_groups, normalised


def build_test(
    pairs: pd.DataFrame, size: int = 30, seed: int = 42, known: pd.DataFrame | None = None
) -> RankingTest:
    """One list for each query of `pairs` that has a positive, made of these pairs' texts alone.

    A list holds the query's positives (label at or above `POSITIVE`) and its labelled negatives,
    both never cut; up to half of the free places go to look-alikes (nearest by character overlap),
    the rest to random texts, until there are `size` candidates. Texts of the query's meaning (see
    `meaning_groups`) are not mined: they are probably paraphrases that nobody labelled. The
    candidates are then shuffled. The positive pairs of `known` connect texts as well.

    Returns:
        The lists with `kinds`, and a recipe that counts what was taken and what was kept out.

    Raises:
        PairsError: no query here has a positive, so there is nothing to rank.
    """
    is_positive = pairs["label"] >= POSITIVE
    positive, negative = pairs[is_positive], pairs[~is_positive]
    texts = distinct_texts(pairs)
    place = {text: number for number, text in enumerate(texts)}
    meaning = meaning_groups(texts, positive if known is None else pd.concat([positive, known]))
    labelled = negative.groupby("sentence_0")["sentence_1"].agg(list).to_dict()
    queries: dict[str, list[str]] = {}
    for query, own in positive.groupby("sentence_0", sort=False)["sentence_1"]:
        if right := [text for text in dict.fromkeys(own) if text != query]:
            queries[str(query)] = right
    found = OverlapIndex(texts).overlaps(list(queries))
    rng = np.random.default_rng(seed)
    lists: list[CandidateList] = []
    kept_out, contradicted = 0, 0
    for (query, right), (near, overlap) in zip(queries.items(), found, strict=True):
        wrong = [t for t in dict.fromkeys(labelled.get(query, [])) if t not in (query, *right)]
        contradicted += len(set(labelled.get(query, [])) & set(right))
        allowed = meaning != meaning[place[query]]
        kept_out += int((~allowed).sum()) - 1 - len(right)
        allowed[[place[text] for text in wrong]] = False
        free = max(0, size - len(right) - len(wrong))
        near, overlap = near[allowed[near]], overlap[allowed[near]]
        mined = near[np.lexsort((near, -overlap))[: free // 2]]
        allowed[mined] = False
        left = np.flatnonzero(allowed)
        drawn = rng.choice(left, min(free - len(mined), len(left)), replace=False)
        parts = {
            "positive": right,
            "labelled": wrong,
            "look_alike": [texts[number] for number in mined],
            "random": [texts[number] for number in drawn],
        }
        rows = [(text, float(kind == "positive"), kind) for kind in parts for text in parts[kind]]
        candidates, relevance, kinds = zip(*rows, strict=True)
        one = CandidateList(query, candidates, relevance, kinds=kinds)
        lists.append(one.shuffled(seed, len(lists)))
    if not lists:
        why = f"none of these {len(pairs)} pairs is a positive, so no list can be built"
        raise PairsError(f"{why}: use more pairs (max_pairs), a larger test_share, or candidates")
    recipe = {
        "source": "built from the test split",
        "size": size,
        "seed": seed,
        "threshold": POSITIVE,
        "pairs": len(pairs),
        "texts": len(texts),
        "order": f"shuffled with seed {seed}",
        "paraphrases_kept_out": kept_out,
        "labelled_both_ways_taken_as_positive": contradicted,
        **count_lists(lists),
    }
    return RankingTest(lists, recipe)


def ranking_lists(
    candidates: str,
    pairs: pd.DataFrame,
    size: int = 30,
    seed: int = 42,
    known: pd.DataFrame | None = None,
) -> list[CandidateList]:
    """The lists of the file `candidates`; without one, those that `build_test` makes of the rest.

    Empty where no pair is positive.

    Raises:
        PairsError: the file cannot be used.
    """
    if candidates:
        return read_test(candidates, seed).lists
    try:
        return build_test(pairs, size, seed, known).lists
    except PairsError:
        return []


def suspect_negatives(
    lists: Sequence[CandidateList], pairs: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Negatives that are probably true paraphrases; positives of `pairs` connect texts as well.

    Returns:
        One row per suspect: `number` (of the list), `query`, `candidate`, `reason`: `equal` to the
        query or to a positive after normalisation, or `group`, connected to it through positives.
    """
    own = _positive_pairs(lists)
    positive = own if pairs is None else pd.concat([own, pairs[pairs["label"] >= POSITIVE]])
    texts = list(dict.fromkeys(texts_of(lists)))
    meaning = dict(zip(texts, meaning_groups(texts, positive), strict=True))
    suspects = []
    for number, one in enumerate(lists):
        same = {normalised(text) for text in (one.query, *one.positives())}
        for text, gain in zip(one.candidates, one.relevance, strict=True):
            if gain <= 0 and meaning[text] == meaning[one.query]:
                reason = "equal" if normalised(text) in same else "group"
                suspects.append((number, one.query, text, reason))
    return pd.DataFrame(suspects, columns=["number", "query", "candidate", "reason"])


def query_groups(lists: Sequence[CandidateList]) -> np.ndarray:
    """The group of each list, shape (lists,): lists that share a query or a positive share it.

    Such queries are not independent observations, so intervals resample them together. Shared
    negatives do not connect, or else every list would be connected to every other.
    """
    return meaning_groups([one.query for one in lists], _positive_pairs(lists))


def _positive_pairs(lists: Sequence[CandidateList]) -> pd.DataFrame:
    rows = [(one.query, text) for one in lists for text in one.positives()]
    return pd.DataFrame(rows, columns=["sentence_0", "sentence_1"])


def seen_queries(lists: Sequence[CandidateList], train: pd.DataFrame) -> int:
    """The number of lists whose query, normalised, is a training text, which flatters a model."""
    known = {normalised(text) for text in distinct_texts(train)}
    return sum(normalised(one.query) in known for one in lists)


def look_alikes(query: str, texts: Sequence[str], count: int = 50) -> list[str]:
    """The `count` distinct texts nearest to `query` by character overlap, the nearest first."""
    distinct = [text for text in dict.fromkeys(texts) if text != query]
    overlap = np.zeros(len(distinct))
    places, shared = next(OverlapIndex(distinct).overlaps([query]))
    overlap[places] = shared
    return [distinct[place] for place in np.argsort(-overlap, kind="stable")[:count]]
