"""What a model learns from: mined look-alikes, lists and triples of a query, a teacher's scores.

Public sets of labelled pairs hold mostly easy negatives, a ranking test look-alikes: texts that
share many characters with the query but differ in meaning, mined from the training texts alone.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit

from workbench.data import POSITIVE
from workbench.data.lists import CandidateList
from workbench.data.pairs import DataError, read_manifest, sample_pairs
from workbench.data.readers import COLUMNS, PairsError, file_records
from workbench.data.texts import OverlapIndex, distinct_texts, meaning_groups, text_pairs
from workbench.files import display_path, project_path
from workbench.machine import on_gpu
from workbench.models import ModelError, find_model
from workbench.scoring.baselines import BASELINES, CharacterJaccard, NgramRegression, Scorer
from workbench.scoring.cross_encoder import ModelScorer
from workbench.training.recipe import LOSSES, Recipe

BAND = (0.1, 0.45)  # character Jaccard of a look-alike; above it, many are paraphrases
POOL = 20_000  # texts that each block of queries is compared with
BLOCK = 4096  # queries that share a sample
EACH_QUERY = 5  # soft pairs of one query
RANDOM_SHARE = 0.2  # of the soft pairs
LABELLED_SHARE = 0.25  # of the pairs of a warm-up
MAX_PROBABILITY = 0.6  # of a positive, by the regression, that a hard negative may have
LIST_LENGTH = 32  # documents; those of a query that has more are dealt into several lists
SAMPLE = 2000  # pairs that usually show that all can be learned from
Judged = tuple[float, str, float]  # label, text and target of a candidate
Origin = tuple[str, Mapping[str, str]]  # a file of pairs, and its column for each role


def mine_look_alikes(
    queries: Sequence[str], texts: Sequence[str], count: int, seed: int = 42
) -> pd.DataFrame:
    """For each query the `count` texts nearest to it by character overlap within `BAND`.

    They come as pairs with label 0. Of more than `POOL` texts, each block of queries searches
    another random sample of that size, which keeps the work linear.
    """
    rng, rows = np.random.default_rng(seed), list[tuple[str, str]]()
    for start in range(0, len(queries), BLOCK):
        block, pool = queries[start : start + BLOCK], list(texts)
        if len(texts) > POOL:
            pool = [texts[n] for n in rng.choice(len(texts), POOL, replace=False)]
        for query, (near, overlap) in zip(block, OverlapIndex(pool).overlaps(block), strict=True):
            inside = (overlap >= BAND[0]) & (overlap <= BAND[1])
            near, overlap = near[inside], overlap[inside]
            best = near[np.lexsort((near, -overlap))[:count]]
            rows += [(query, pool[one]) for one in best]
    return pd.DataFrame(rows, columns=COLUMNS[:2]).assign(label=0.0)


def hard_negatives(train: pd.DataFrame, each: int, seed: int = 42) -> pd.DataFrame:
    """Up to `each` look-alikes of each text of a positive pair, as pairs with label 0.

    Left out are texts that positive pairs connect with the query, pairs that are labelled, also
    under another spelling, and pairs that are likely positives (`MAX_PROBABILITY`) for an n-gram
    regression trained on the same labels.

    Raises:
        ValueError: all labels are of one class, so that no regression can be fitted.
    """
    positive, texts = train[train["label"] >= POSITIVE], distinct_texts(train)
    mined = mine_look_alikes(distinct_texts(positive), texts, each, seed)
    group = dict(zip(texts, meaning_groups(texts, positive).tolist(), strict=True))

    def meanings(pair: tuple[str, str]) -> frozenset[int]:
        return frozenset(group[text] for text in pair)

    labelled = set(map(meanings, text_pairs(train)))
    found = map(meanings, text_pairs(mined))
    mined = mined[np.array([len(one) > 1 and one not in labelled for one in found], dtype=bool)]
    probability = expit(NgramRegression(seed).fit(train).score(text_pairs(mined))).astype(float)
    return mined[probability <= MAX_PROBABILITY]


def lexical_pairs(
    train: pd.DataFrame, count: int, seed: int = 42, similarity: Scorer | None = None
) -> pd.DataFrame:
    """Pairs that teach a model to compare texts before it is trained on the labels alone.

    A quarter are labelled pairs. The others cover all character overlaps evenly, a fifth of them
    random texts, and have a soft label: the mean of two cheap scores in [0, 1], the probability by
    an n-gram regression trained on the labels, and the base's own similarity or, without one, the
    character Jaccard. The similarity's scores are moved to [0, 1], so that two random texts have 0
    on average and equal ones 1.
    """
    texts, rng = distinct_texts(train), np.random.default_rng(seed)
    labelled = train.sample(min(len(train), round(LABELLED_SHARE * count)), random_state=seed)
    count -= len(labelled)
    queries = [texts[n] for n in rng.integers(len(texts), size=-(-count // EACH_QUERY))]
    pool = [texts[n] for n in rng.permutation(len(texts))[:POOL]]
    rows: list[tuple[str, str]] = []
    for query, (near, overlap) in zip(queries, OverlapIndex(pool).overlaps(queries), strict=True):
        overlap = np.where([pool[place] == query for place in near], np.inf, overlap)
        for wanted in rng.random(EACH_QUERY):
            other = texts[rng.integers(len(texts))]
            if len(near) > 1 and rng.random() >= RANDOM_SHARE:
                other = pool[near[np.abs(overlap - wanted).argmin()]]
            rows.append((query, other) if rng.random() < 0.5 else (other, query))
    rows = rows[:count]
    if similarity is None:
        alike = CharacterJaccard().score(rows).astype(float)
    else:
        first, second = zip(*rows, strict=True)
        mixed = list(zip(first, rng.permutation(second).tolist(), strict=True))
        equal = [(text, text) for text in first[:EACH_QUERY]]
        scores = similarity.score([*rows, *mixed, *equal]).astype(float)  # each text read once
        found, apart, same = np.split(scores, [len(rows), 2 * len(rows)])
        alike = (found - apart.mean()) / max(same.mean() - apart.mean(), 1e-9)
        alike = np.clip(alike, 0, 1)
    likely = expit(NgramRegression(seed).fit(train).score(rows)).astype(float)
    soft = pd.DataFrame(rows, columns=COLUMNS[:2]).assign(label=(alike + likely) / 2)
    return pd.concat([soft, labelled[COLUMNS]], ignore_index=True)


def with_mined(labelled: pd.DataFrame, recipe: Recipe) -> tuple[pd.DataFrame, dict[str, int]]:
    """The labelled pairs and those the recipe adds to them, with counts of the added ones."""
    parts, added = [labelled[COLUMNS]], {}
    if recipe.symmetric:
        positive = labelled[labelled["label"] >= POSITIVE]
        swapped = {"sentence_0": "sentence_1", "sentence_1": "sentence_0"}
        parts.append(positive[COLUMNS].rename(columns=swapped))
        added["swapped_positives"] = len(positive)
    if recipe.hard_negatives:
        parts.append(hard_negatives(labelled, recipe.hard_negatives, recipe.seed))
        added["hard_negatives"] = len(parts[-1])
    return pd.concat(parts, ignore_index=True), added


def training_rows(
    pairs: pd.DataFrame, kind: str, targets: ArrayLike | None = None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Labelled pairs in the form that a loss needs, grouped by query, and what they have become.

    Args:
        pairs: columns `sentence_0` (the query), `sentence_1`, `label`.
        kind: of `LOSSES`. A list is a query with its candidates, the best first; a triple has the
            difference of the targets. Positives get a negative each if at least half of their
            queries have one, else they are pairs, and other queries' texts are the negatives.
        targets: what pairs and triples learn, shape (pairs,); the labels if None.

    Raises:
        DataError: no query has candidates of different labels, or none is positive.
    """
    target = np.asarray(pairs["label"] if targets is None else targets, dtype=float)
    if kind == "pairs":
        return pairs[COLUMNS].assign(label=target), {}
    groups: dict[str, list[Judged]] = {}
    for query, text, label, learned in zip(*(pairs[name] for name in COLUMNS), target, strict=True):
        groups.setdefault(query, []).append((float(label), text, learned))
    split = _lists if kind == "lists" else _triples
    rows = [(query, *row) for query, found in groups.items() for row in split(found)]
    name, columns = "triples", ["query", "positive", "negative", "label"]
    used = sum(len(groups[query]) for query in {row[0] for row in rows})
    if kind == "lists":
        name, columns = "lists", ["query", "documents", "label"]
        used = sum(len(row[1]) for row in rows)
    elif kind == "positives":
        compared, columns, rows = {row[0] for row in rows}, columns[:3], [row[:3] for row in rows]
        good = [(q, one[1]) for q, found in groups.items() for one in found if one[0] >= POSITIVE]
        if 2 * len(compared) < len({query for query, _ in good}):
            name, columns, rows, used = "positive_pairs", columns[:2], good, len(good)
    if not rows:
        raise DataError(
            "the loss compares candidates of one query, and no query has candidates of different "
            "labels: set hard_negatives, which mines them, or take loss bce"
        )
    made = pd.DataFrame(rows, columns=columns)
    return made, {name: len(made), "unused": len(pairs) - used}


def _lists(found: list[Judged]) -> Iterator[tuple[list[str], list[float]]]:
    """Texts and labels of a query's lists, the best first; none where all labels are equal."""
    found = sorted(found, key=lambda one: -one[0])
    parts = math.ceil(len(found) / LIST_LENGTH)
    for labels, texts, _ in (zip(*found[part::parts], strict=True) for part in range(parts)):
        if labels[0] > labels[-1]:
            yield list(texts), list(labels)


def _triples(found: list[Judged]) -> Iterator[tuple[str, str, float]]:
    """A query's positives and negatives in turn, and how far apart their targets are."""
    good = [one for one in found if one[0] >= POSITIVE]
    bad = [one for one in found if one[0] < POSITIVE]
    for turn in range(max(len(good), len(bad)) if good and bad else 0):
        (_, text, high), (_, other, low) = good[turn % len(good)], bad[turn % len(bad)]
        yield text, other, high - low


def check_training(
    train: pd.DataFrame, recipe: Recipe, sizes: Sequence[int], origin: Origin | None
) -> None:
    """Make sure that every stage has the pairs that the recipe learns from; for the preflight too.

    `train` is the train split, or as much of it as is known; `sizes` are pairs of each stage.

    Raises:
        DataError: there is no pair, all labels are equal, or the loss needs others.
        ValueError: the recipe cannot be carried out on this machine.
    """
    if recipe.precision == "float16" and not on_gpu():
        raise ValueError("precision: float16 needs a GPU; take bfloat16, float32 or auto")
    if train.empty:
        raise DataError("there is no training pair: give more pairs, or smaller shares")
    kind = LOSSES[recipe.loss][1]

    def made(pairs: pd.DataFrame) -> pd.DataFrame:
        found, _ = with_mined(pairs, recipe)
        training_rows(found, kind)
        return found

    for pairs in (sample_pairs(train, size, recipe.seed) for size in dict.fromkeys(sizes)):
        positive = pairs["label"] >= POSITIVE
        alike = pairs["label"].nunique() == 1 and not (kind == "positives" and positive.all())
        if alike or (recipe.hard_negatives and positive.nunique() == 1):
            have, other = ("positive", 0) if positive.iloc[0] else ("negative", 1)
            raise DataError(
                f"{len(pairs):,} training pairs are all {have}: add pairs with label {other} to "
                "tell them apart"
            )
        try:
            found = _of_some(made, pairs) if recipe.hard_negatives else made(pairs)
        except ValueError as error:
            raise DataError(str(error)) from error
        if recipe.teacher in BASELINES:
            _of_some(lambda some: find_teacher(recipe, some), found)
        elif recipe.teacher:
            find_teacher(recipe, found, origin)
    if recipe.lexical_pairs:
        _of_some(NgramRegression(recipe.seed).fit, train)


def _of_some(make: Callable[[pd.DataFrame], Any], pairs: pd.DataFrame) -> Any:
    """What is made of the first pairs or, if those are too few for it, of all."""
    try:
        return make(pairs.head(SAMPLE))
    except ValueError:
        return make(pairs)


def origin_of(run_dir: str | Path) -> Origin | None:
    """The file that a run's pairs were read from, and its columns; None for the Hub."""
    manifest = read_manifest(run_dir)
    source = str(manifest["source"])
    return None if source.startswith("hub:") else (source, manifest["columns"])


def find_teacher(
    recipe: Recipe, pairs: pd.DataFrame, origin: Origin | None = None
) -> Callable[[], np.ndarray]:
    """A function that gives what a loss learns in place of the labels, shape (pairs,).

    The recipe's `teacher` is a scorer of the ladder that is made from pairs alone and fitted on
    these, such as `ngram_regression`; a column of the file `origin`; or a model or run.

    Raises:
        DataError: there is no such teacher, or it has no score for a pair.
    """
    (file, columns), teacher, asked = origin or ("", {}), recipe.teacher, text_pairs(pairs)
    if teacher in BASELINES:
        texts = tuple(distinct_texts(pairs))
        lists = [CandidateList("", texts, (0.0,) * len(texts))]
        scorer = BASELINES[teacher](train=pairs, lists=lists, seed=recipe.seed)
        if scorer is None:
            raise DataError(f"teacher: {teacher} is made from more than pairs; take another")
        return lambda: scorer.score(asked)
    if file:
        with suppress(PairsError):  # it has no such column
            scores = _column_scores(asked, file, {**columns, "label": teacher})
            return lambda: scores
    try:
        location = find_model(teacher)
    except ModelError as error:
        known = f"a scorer ({', '.join(BASELINES)}), a column of {file or 'a file'}"
        raise DataError(f"teacher {teacher!r} is neither {known}, nor a model: {error}") from None
    return lambda: ModelScorer.load(location, recipe.max_length).score(asked)


def _column_scores(
    pairs: Sequence[tuple[str, str]], file: str, columns: Mapping[str, str]
) -> np.ndarray:
    """The numbers in the column that `columns` has as `label`, for each of the pairs."""
    path, names = project_path(file), {name: columns.get(name, name) for name in COLUMNS}
    found: dict[Any, float] = {}
    for _, *texts, value in (row for row in file_records(path, names) if type(row) is tuple):
        with suppress(ValueError, TypeError, AttributeError):  # such a row is no pair either
            found[tuple(text.strip() for text in texts)] = float(value)
    scores = np.array([found.get(pair, math.nan) for pair in pairs])
    if not (good := np.isfinite(scores)).all():
        raise DataError(
            f"teacher: column {names['label']!r} of {display_path(path)} has no number for "
            f"{(~good).sum():,} training pairs, the first of them "
            f"{pairs[int(good.argmin())]}; pairs that hard_negatives and symmetric add "
            "need a scorer or a model as teacher"
        )
    return scores
