"""Scorers measured on the same lists and pairs: the figures, and where each scorer fails."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit

from workbench.data import POSITIVE
from workbench.data.build_lists import query_groups, suspect_negatives
from workbench.data.lists import CandidateList, count_lists, write_candidates
from workbench.data.texts import text_groups, text_pairs
from workbench.files import replacing, write_json
from workbench.ranking import uncertainty
from workbench.ranking.metrics import MAIN_METRIC, RANKING_METRICS, FloatArray, rank_metrics
from workbench.run_folder import RunFolder
from workbench.scoring.baselines import Scorer

WORST = 200  # queries in `errors.parquet`
PAIR_RESAMPLES = 1000  # the most draws for pair metrics, which no matrix product gives


@dataclass(frozen=True)
class Evaluation:
    """What was measured; `metrics` is the content of `metrics.json`, `number` that of a list."""

    metrics: dict[str, Any]
    per_query: pd.DataFrame  # `scorer`, `number`, `query`, and each ranking metric
    # `scorer`, `number`, `query`, `candidate`, `relevance`, `kind`, `score`, and `rank`, of which 1
    # is best; in a tie the irrelevant come first
    ranked: pd.DataFrame
    pairs: pd.DataFrame  # of labelled test pairs: `scorer`, `score`, `positive`
    dev: pd.DataFrame  # the same of the dev pairs
    lists: Sequence[CandidateList]
    groups: np.ndarray  # of each list, see `query_groups`

    def table(self, part: str = "all") -> pd.DataFrame:
        """Means with intervals, the best scorer first: of `ranking` metrics, of `pairs`, or all."""
        rows = sorted(self.metrics["rows"], key=lambda row: -row[MAIN_METRIC]["mean"])
        frame = pd.DataFrame(rows).set_index("scorer").map(uncertainty.format_estimate)
        ranking = frame.columns.isin(list(RANKING_METRICS))
        return frame if part == "all" else frame.loc[:, ranking == (part == "ranking")]

    def differences(self) -> pd.DataFrame:
        """nDCG@10 of the model minus that of each other scorer, the hardest to beat first."""
        gaps = sorted(self.metrics["model_minus"].items(), key=lambda item: item[1]["mean"])
        rows = {n: (uncertainty.format_estimate(gap), gap["p"], gap["p_holm"]) for n, gap in gaps}
        columns = ["model minus it", "p", "p (Holm)"]
        return pd.DataFrame.from_dict(rows, "index", columns=columns).rename_axis("scorer")

    def best_other(self) -> str | None:
        """The scorer with the highest nDCG@10 that is not `model`; None if there is no other."""
        means = {row["scorer"]: row[MAIN_METRIC]["mean"] for row in self.metrics["rows"]}
        means.pop("model", None)
        return max(means, key=lambda name: means[name], default=None)

    def values(self, scorer: str) -> FloatArray:
        """nDCG@10 of each query under a scorer, shape (queries,)."""
        rows = self.per_query[self.per_query["scorer"] == scorer]
        return rows[MAIN_METRIC].to_numpy(dtype=float)

    def scored(self, scorer: str = "model") -> pd.DataFrame:
        """`positive` and `score` of the labelled pairs, or of the candidates if there are none."""
        if len(self.pairs):
            return self.pairs[self.pairs["scorer"] == scorer][["positive", "score"]]
        ranked = self.ranked[self.ranked["scorer"] == scorer]
        return pd.DataFrame({"positive": ranked["relevance"] > 0, "score": ranked["score"]})


def score_lists(scorer: Scorer, lists: Sequence[CandidateList]) -> list[np.ndarray]:
    """Scores of each list's candidates, float32 of shape (candidates,)."""
    return split_scores(scorer.score([pair for one in lists for pair in one.pairs()]), lists)


def split_scores(scores: ArrayLike, lists: Sequence[CandidateList]) -> list[np.ndarray]:
    """Scores of all candidates, one list after another, divided among their lists, as float32."""
    ends = np.cumsum([len(one.candidates) for one in lists])[:-1]
    return list(np.split(np.asarray(scores, dtype=np.float32), ends))


def rank_lists(
    scores: Sequence[ArrayLike], lists: Sequence[CandidateList], ties: str
) -> dict[str, FloatArray]:
    """Every ranking metric of every list, see `rank_metrics`; scores as from `score_lists`."""
    relevance, missed = [one.relevance for one in lists], [one.missed for one in lists]
    return rank_metrics(scores, relevance, ties, missed, [one.query for one in lists])


def evaluate(
    scorers: Mapping[str, Scorer],
    lists: Sequence[CandidateList],
    pairs: pd.DataFrame,
    seed: int = 42,
    ties: str = "expected",
    resamples: int = 10_000,
    dev: pd.DataFrame | None = None,
    **stated: Any,
) -> Evaluation:
    """Measure every scorer on the same candidate lists and on the same labelled pairs.

    Ranking metrics are means over the lists with 95 % bootstrap intervals, whole text groups drawn
    (`query_groups`). The nDCG@10 of the scorer `model`, if there is one, is compared with that of
    each other: the difference from the same draws, and a Holm-corrected paired randomisation test.

    Args:
        scorers: by name; `brier` and `ece` need one with `log_odds`.
        lists: the ranking test; at least one.
        pairs: labelled test pairs, columns `sentence_0`, `sentence_1`, `label`; may be empty.
        seed: of every draw.
        ties: `expected` or `worst`; see `workbench.ranking.metrics`.
        resamples: draws of the bootstrap and flips of the test.
        dev: labelled pairs for the threshold of `accuracy` and `f1`, that of the highest F1.
        stated: other content of `metrics.json`, such as the recipe of the lists.

    Raises:
        ValueError: there is no list, or a score is not finite (names scorer and query).

    Example:
        >>> scorers = {"model": wb.scoring.CharacterJaccard()}  # doctest: +SKIP
        >>> wb.evaluate(scorers, lists, test_pairs).table()  # doctest: +SKIP
    """
    if not lists:
        raise ValueError("there is no candidate list to rank")
    tuning, counts = pairs.iloc[:0] if dev is None else dev, count_lists(lists)
    groups, pair_groups, dev_groups = query_groups(lists), text_groups(pairs), text_groups(tuning)
    to_score = counts["candidates"] + len(pairs) + len(tuning)
    draws = min(resamples, PAIR_RESAMPLES)
    listed, values, thresholds, pair_rows, tuned, tested = {}, {}, {}, [], {}, {}
    for name, scorer in _with_progress(scorers, to_score):
        if expect := getattr(scorer, "expect", None):
            expect(to_score)
        listed[name] = score_lists(scorer, lists)
        try:
            values[name] = rank_lists(listed[name], lists, ties)
            tuned[name], tested[name] = _score_pairs(scorer, tuning), _score_pairs(scorer, pairs)
        except ValueError as error:
            raise ValueError(f"scorer {name!r}: {error}") from error
        score, positive = tuned[name].values()
        limits = uncertainty.threshold_draws(score, positive, dev_groups, draws, seed + 1)
        thresholds[name] = None if np.isnan(limits[0]) else float(limits[0])
        how = (ties, limits, bool(getattr(scorer, "log_odds", False)), pair_groups, draws, seed)
        score, positive = tested[name].values()
        measured = uncertainty.bootstrap_pairs(score, positive, *how) if len(pairs) else {}
        pair_rows.append({metric: value.plain() for metric, value in measured.items()})
    every = np.column_stack([of for found in values.values() for of in found.values()])
    means = iter(uncertainty.bootstrap_means(every, groups, resamples, seed))
    others = [name for name in values if name != "model" and "model" in values]
    gaps = [values["model"][MAIN_METRIC] - values[name][MAIN_METRIC] for name in others]
    lead = np.reshape(gaps, (len(others), len(lists))).T
    metrics = {
        "schema": 1,
        "ties": ties,
        "interval": "95 % bootstrap",
        "resamples": resamples,
        "flips": max(resamples, uncertainty.FLIPS_PER_TEST * len(others)),
        "gain": "linear",
        "queries": len(lists),
        "query_groups": len(np.unique(groups)),
        "candidates": counts["candidates"],
        "odd_queries": counts["odd_queries"],
        "suspect_negatives": suspect_negatives(lists)["reason"].value_counts().to_dict(),
        "pairs": len(pairs),
        "pair_groups": len(np.unique(pair_groups)),
        "positive_pairs": int((pairs["label"] >= POSITIVE).sum()),
        "dev_pairs": len(tuning),
        "thresholds": thresholds,
        "queries_all_tied": {
            name: float(np.mean([len(one) > 1 and np.ptp(one) == 0 for one in found]))
            for name, found in listed.items()
        },
        "backends": {
            name: scorer.backend_record
            for name, scorer in scorers.items()
            if hasattr(scorer, "backend_record")
        },
        **stated,
        "rows": [
            {"scorer": name, **{metric: next(means).plain() for metric in RANKING_METRICS}, **pair}
            for name, pair in zip(scorers, pair_rows, strict=True)
        ],
        "model_minus": uncertainty.compare(others, lead, groups, resamples, seed),
    }
    queries = {"number": range(len(lists)), "query": [one.query for one in lists]}
    per_query = _by_scorer({name: {**queries, **of} for name, of in values.items()})
    labelled = _by_scorer(tested), _by_scorer(tuned)
    return Evaluation(metrics, per_query, _ranked(listed, lists), *labelled, lists, groups)


def save_evaluation(run_dir: str | Path, evaluation: Evaluation) -> Path:
    """Write `evaluation/` of a run: metrics, values of each query, worst queries, and the lists.

    Example:
        >>> wb.save_evaluation("runs/mine", evaluation)  # doctest: +SKIP
        PosixPath('runs/mine/evaluation')
    """
    folder, scorers = RunFolder(run_dir), list(evaluation.per_query["scorer"])
    errors = worst_queries(evaluation, WORST, "model" if "model" in scorers else scorers[0])
    for file, frame in ((folder.per_query, evaluation.per_query), (folder.errors, errors)):
        with replacing(file) as temporary:
            frame.to_parquet(temporary, index=False)
    write_candidates(folder.candidates, evaluation.lists)
    write_json(folder.metrics, evaluation.metrics)
    return folder.evaluation


def worst_queries(evaluation: Evaluation, count: int = 20, scorer: str = "model") -> pd.DataFrame:
    """The queries that a scorer ranks worst by nDCG@10, then by the `rank` of `best_positive`.

    `ranked_first` is the candidate that the scorer put on top.
    """
    ranked = evaluation.ranked[evaluation.ranked["scorer"] == scorer]
    rows = evaluation.per_query[evaluation.per_query["scorer"] == scorer].set_index("number")
    positive = ranked[ranked["relevance"] > 0].sort_values("rank").groupby("number").first()
    table = rows[["query", MAIN_METRIC]].assign(
        best_positive=positive["candidate"],
        rank=positive["rank"].astype("Int64"),
        ranked_first=ranked[ranked["rank"] == 1].set_index("number")["candidate"],
    )
    ordered = table.sort_values([MAIN_METRIC, "rank"], ascending=[True, False], kind="stable")
    return ordered.head(count).reset_index(drop=True)


def rank_query(
    scorers: Mapping[str, Scorer], query: str, candidates: Iterable[str]
) -> pd.DataFrame:
    """Scores of candidates for one query, a column per scorer, by the first from best to worst.

    If the first one's scores are log-odds, a column `probability` after them has their sigmoid.

    Example:
        >>> scorers = {"jaccard": wb.scoring.CharacterJaccard()}  # doctest: +SKIP
        >>> wb.rank_query(scorers, "怎么开通会员", ["会员如何开通", "天气"])  # doctest: +SKIP
    """
    texts = list(dict.fromkeys(candidates))
    columns = {n: scorer.score([(query, text) for text in texts]) for n, scorer in scorers.items()}
    table = pd.DataFrame({"candidate": texts, **columns})
    first, scorer = next(iter(scorers.items()))
    if getattr(scorer, "log_odds", False):
        table.insert(2, "probability", expit(table[first]))
    return table.sort_values(first, ascending=False, ignore_index=True)


def _with_progress(scorers: Mapping[str, Scorer], pairs: int) -> Iterator[tuple[str, Scorer]]:
    """The scorers, with a line about each that guesses the time of models to come."""
    models = [name for name, scorer in scorers.items() if hasattr(scorer, "expect")]
    took = list[float]()
    for name, scorer in scorers.items():
        print(f"{name}: ", end="", flush=True)
        start = time.monotonic()
        yield name, scorer
        seconds = time.monotonic() - start
        took += [seconds] * (name in models)
        coming = len(models) - len(took)
        left = f", about {coming * np.mean(took):.0f} s left" if took and coming else ""
        print(f"{pairs:,} pairs in {seconds:.0f} s{left}", flush=True)


def _score_pairs(scorer: Scorer, frame: pd.DataFrame) -> dict[str, Any]:
    """`score` and `positive` of labelled pairs."""
    pairs = text_pairs(frame)
    score = np.asarray(scorer.score(pairs) if pairs else [], dtype=float)
    for place in np.flatnonzero(~np.isfinite(score))[:1]:
        problem = f"the score of the pair {pairs[place]} is {score[place]}"
        raise ValueError(f"{problem}; it must be finite")
    return {"score": score, "positive": (frame["label"] >= POSITIVE).to_numpy(dtype=bool)}


def _ranked(scores: Mapping[str, list[np.ndarray]], lists: Sequence[CandidateList]) -> pd.DataFrame:
    """The content of `Evaluation.ranked`, from each scorer's scores of the lists."""
    rows = [
        (number, one.query, *row)
        for number, one in enumerate(lists)
        for row in zip(one.candidates, one.relevance, one.kinds or repeat("given"), strict=False)
    ]
    listed = pd.DataFrame(rows, columns=["number", "query", "candidate", "relevance", "kind"])
    frame = _by_scorer({n: {**listed, "score": np.concatenate(of)} for n, of in scores.items()})
    down = frame.sort_values(["number", "score", "relevance"], ascending=[True, False, True])
    return frame.assign(rank=down.groupby(["scorer", "number"]).cumcount() + 1)


def _by_scorer(tables: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The columns of every scorer as one table, with its name."""
    parts = [pd.DataFrame({"scorer": name, **columns}) for name, columns in tables.items()]
    return pd.concat(parts, ignore_index=True)
