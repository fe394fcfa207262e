"""What an evaluation leaves behind, and where its scorers fail, query by query."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.data.build_lists import query_groups, suspect_negatives
from workbench.data.lists import CandidateList, count_lists
from workbench.data.pairs import POSITIVE, TextPair, text_pairs
from workbench.data.splits import text_groups
from workbench.files import project_path, replacing, write_json
from workbench.ranking.metrics import RANKING_METRICS, FloatArray, fit_threshold, rank_metrics
from workbench.ranking.uncertainty import (
    LEVEL,
    Estimate,
    bootstrap_draws,
    bootstrap_pairs,
    format_estimate,
    holm,
    randomisation_test,
)
from workbench.scoring.baselines import Expecting, Scorer
from workbench.scoring.cross_encoder import backends_used

RESAMPLES = 1000  # the most draws for pair metrics, which cannot be had by one product


class PairScores:
    """Measures scorers on labelled test pairs, and keeps the scores.

    Args:
        test: columns `sentence_0`, `sentence_1`, `label`; may be empty.
        dev: the same, to fit thresholds on; None for no thresholds.
        ties: `expected` or `worst`.
        resamples: draws of the bootstrap, of which 1,000 at most are made.
        seed: of the draws.
    """

    def __init__(
        self, test: pd.DataFrame, dev: pd.DataFrame | None, ties: str, resamples: int, seed: int
    ) -> None:
        none = test.iloc[:0]
        self.sides = {
            name: (text_pairs(side), (side["label"] >= POSITIVE).to_numpy(dtype=bool))
            for name, side in (("test", test), ("dev", none if dev is None else dev))
        }
        self.groups = text_groups(test)
        self.how: dict[str, Any] = {
            "resamples": min(resamples, RESAMPLES),
            "seed": seed,
            "ties": ties,
        }
        self.kept: dict[str, list[pd.DataFrame]] = {"test": [], "dev": []}

    def measure(self, name: str, scorer: Scorer) -> tuple[float | None, dict[str, Any]]:
        """The threshold with the highest F1 on dev, and the pair metrics of the test pairs.

        None without dev pairs of both classes; no metrics without test pairs.

        Raises:
            ValueError: a score is not finite; names the scorer and the pair.
        """
        threshold, estimates = float("nan"), {}
        if len(self.sides["dev"][0]):
            threshold = fit_threshold(*self._scored("dev", name, scorer))
        if len(self.sides["test"][0]):
            score, positive = self._scored("test", name, scorer)
            estimates = bootstrap_pairs(
                score,
                positive,
                threshold=threshold,
                groups=self.groups,
                logits=bool(getattr(scorer, "log_odds", False)),
                **self.how,
            )
        plain = {metric: estimate.plain() for metric, estimate in estimates.items()}
        return None if np.isnan(threshold) else threshold, plain

    def scores(self, dev: bool = False) -> pd.DataFrame:
        """A row a scorer and pair: `scorer`, `positive`, `score`; of the test or the dev pairs."""
        columns = ["scorer", "positive", "score"]
        frames = self.kept["dev" if dev else "test"]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)

    def _scored(self, side: str, name: str, scorer: Scorer) -> tuple[np.ndarray, np.ndarray]:
        pairs, positive = self.sides[side]
        score = _finite(name, scorer, pairs)
        self.kept[side].append(pd.DataFrame({"scorer": name, "positive": positive, "score": score}))
        return score, positive


def _finite(name: str, scorer: Scorer, pairs: Sequence[TextPair]) -> np.ndarray:
    score = np.asarray(scorer.score(pairs), dtype=float)
    if not np.isfinite(score).all():
        place = int(np.flatnonzero(~np.isfinite(score))[0])
        raise ValueError(
            f"scorer {name!r}: the score of the pair {pairs[place]} is {score[place]}; it must be "
            "finite"
        )
    return score


MAIN_METRIC = "ndcg@10"


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        metrics: the content of `metrics.json`.
        per_query: one row a scorer and query: `scorer`, `number` (of the list), `query`, and each
            ranking metric.
        ranked: one row a scorer, query and candidate: `scorer`, `number`, `query`, `candidate`,
            `relevance`, `kind`, `score`, `rank` (1 is best; in a tie the irrelevant come first).
        pairs: one row a scorer and labelled pair: `scorer`, `positive`, `score`.
        dev: the same of the dev pairs.
    """

    metrics: dict[str, Any]
    per_query: pd.DataFrame
    ranked: pd.DataFrame
    pairs: pd.DataFrame
    dev: pd.DataFrame

    def table(self, part: str = "all") -> pd.DataFrame:
        """One row a scorer, best first; each metric as its mean with the interval beside it.

        Args:
            part: `ranking` metrics, metrics of `pairs`, or `all`.
        """
        rows = []
        for row in self.metrics["rows"]:
            shown = {"scorer": row["scorer"]}
            for name, value in row.items():
                kind = "ranking" if name in RANKING_METRICS else "pairs"
                if name != "scorer" and part in ("all", kind):
                    shown[name] = format_estimate(value)
            rows.append((-row[MAIN_METRIC]["mean"], shown))
        rows.sort(key=lambda row: row[0])
        return pd.DataFrame([shown for _, shown in rows]).set_index("scorer")

    def differences(self) -> pd.DataFrame:
        """One row a scorer but the model: nDCG@10 of the model minus its own, interval, p-values.

        The scorer that the model gains least on comes first.
        """
        rows = [
            {
                "scorer": name,
                "model minus it": format_estimate(gap),
                "p": gap["p"],
                "p (Holm)": gap["p_holm"],
            }
            for name, gap in sorted(
                self.metrics["model_minus"].items(), key=lambda item: item[1]["mean"]
            )
        ]
        columns = ["scorer", "model minus it", "p", "p (Holm)"]
        return pd.DataFrame(rows, columns=columns).set_index("scorer")

    def best_other(self) -> str | None:
        """The scorer with the highest nDCG@10 that is not `model`; None if there is no other."""
        means = {row["scorer"]: row[MAIN_METRIC]["mean"] for row in self.metrics["rows"]}
        means.pop("model", None)
        return max(means, key=lambda name: means[name]) if means else None

    def values(self, scorer: str) -> FloatArray:
        """nDCG@10 of each query under a scorer, shape (queries,)."""
        rows = self.per_query[self.per_query["scorer"] == scorer]
        return rows[MAIN_METRIC].to_numpy(dtype=float)

    def scored(self, scorer: str = "model") -> pd.DataFrame:
        """`positive` and `score` of the labelled pairs, or of the candidates where there are none.

        One row a pair, under the given scorer.
        """
        if len(self.pairs):
            return self.pairs[self.pairs["scorer"] == scorer][["positive", "score"]]
        ranked = self.ranked[self.ranked["scorer"] == scorer]
        return pd.DataFrame({"positive": ranked["relevance"] > 0, "score": ranked["score"]})


def score_lists(scorer: Scorer, lists: Sequence[CandidateList]) -> list[np.ndarray]:
    """Scores of every list's candidates: for each list a float32 array of shape (candidates,)."""
    return split_scores(scorer.score([pair for one in lists for pair in one.pairs()]), lists)


def split_scores(scores: ArrayLike, lists: Sequence[CandidateList]) -> list[np.ndarray]:
    """Scores of all candidates, one list after another, given back to their lists, as float32."""
    ends = np.cumsum([len(one.candidates) for one in lists])[:-1]
    return list(np.split(np.asarray(scores, dtype=np.float32), ends))


def rank_lists(
    scores: Sequence[ArrayLike], lists: Sequence[CandidateList], ties: str
) -> dict[str, FloatArray]:
    """Every ranking metric of every list, see `rank_metrics`; scores as from `score_lists`."""
    return rank_metrics(
        scores,
        [one.relevance for one in lists],
        ties,
        [one.missed for one in lists],
        [one.query for one in lists],
    )


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
    (`query_groups`). Each scorer's nDCG@10 is compared with that of the one named `model`, if there
    is one: the difference from the same draws, and a paired randomisation test, Holm-corrected.

    Pair metrics are over `pairs`. The threshold of `accuracy` and `f1` is the one with the highest
    F1 on `dev`; without dev pairs of both classes the two are not defined, for a threshold fitted
    on the test pairs themselves would flatter. `brier` and `ece` are defined for scorers that
    give log-odds (`log_odds` is true of them).

    Args:
        scorers: by name.
        lists: the ranking test; at least one.
        pairs: labelled test pairs, columns `sentence_0`, `sentence_1`, `label`; may be empty.
        seed: of every draw.
        ties: `expected` or `worst`; see `workbench.metrics`.
        resamples: draws of the bootstrap and flips of the test.
        dev: labelled pairs of the dev side.
        stated: anything else that `metrics.json` is to say, such as the recipe of the lists.

    Raises:
        ValueError: there is no list, or a score is not finite (names scorer and query).
    """
    if not lists:
        raise ValueError("there is no candidate list to rank")
    names, labelled = list(scorers), PairScores(pairs, dev, ties, resamples, seed)
    values, per_query, ranked, tied = [], [], [], {}
    pair_rows: list[dict[str, Any]] = []
    thresholds: dict[str, float | None] = {}
    to_score = sum(len(one.candidates) for one in lists) + len(pairs)
    to_score += 0 if dev is None else len(dev)
    for name, scorer in scorers.items():
        if isinstance(scorer, Expecting):
            scorer.expect(to_score)
        scores = score_lists(scorer, lists)
        try:
            found = rank_lists(scores, lists, ties)
        except ValueError as error:
            raise ValueError(f"scorer {name!r}: {error}") from error
        values.append(np.column_stack(list(found.values())))
        frame = pd.DataFrame(
            {
                "scorer": name,
                "number": range(len(lists)),
                "query": [one.query for one in lists],
                **found,
            }
        )
        per_query.append(frame)
        ranked.append(_ranked(name, lists, scores))
        tied[name] = float(np.mean([len(s) > 1 and s.min() == s.max() for s in scores]))
        thresholds[name], estimates = labelled.measure(name, scorer)
        pair_rows.append(estimates)
    groups = query_groups(lists)
    every = np.column_stack(values)
    draws = bootstrap_draws(every, groups, resamples, seed)
    rows = _rows(names, every, draws, pair_rows)
    counts = count_lists(lists)
    metrics = {
        "schema": 1,
        "ties": ties,
        "interval": "95 % bootstrap",
        "resamples": resamples,
        "queries": len(lists),
        "query_groups": len(np.unique(groups)),
        "candidates": counts["candidates"],
        "odd_queries": counts["odd_queries"],
        "suspect_negatives": suspect_negatives(lists)["reason"].value_counts().to_dict(),
        "pairs": len(pairs),
        "dev_pairs": 0 if dev is None else len(dev),
        "thresholds": thresholds,
        "queries_all_tied": tied,
        "backends": backends_used(scorers),
        **stated,
        "rows": rows,
        "model_minus": _differences(names, every, draws, groups, resamples, seed),
    }
    queries, ranks = (pd.concat(frames, ignore_index=True) for frames in (per_query, ranked))
    return Evaluation(metrics, queries, ranks, labelled.scores(), labelled.scores(dev=True))


def _rows(
    names: Sequence[str], values: FloatArray, draws: FloatArray, pair_rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    low, high = np.percentile(draws, LEVEL, axis=0)
    plain = iter(map(Estimate, values.mean(axis=0).tolist(), low.tolist(), high.tolist()))
    return [
        {"scorer": name, **{metric: next(plain).plain() for metric in RANKING_METRICS}, **pairs}
        for name, pairs in zip(names, pair_rows, strict=True)
    ]


def _ranked(name: str, lists: Sequence[CandidateList], scores: list[np.ndarray]) -> pd.DataFrame:
    lengths = [len(score) for score in scores]
    ranks = []
    for one, score in zip(lists, scores, strict=True):
        order = np.lexsort((np.asarray(one.relevance), -score))
        place = np.empty(len(order), dtype=int)
        place[order] = np.arange(1, len(order) + 1)
        ranks.append(place)
    return pd.DataFrame(
        {
            "scorer": name,
            "number": np.repeat(np.arange(len(lists)), lengths),
            "query": np.repeat(np.array([one.query for one in lists], dtype=object), lengths),
            "candidate": [text for one in lists for text in one.candidates],
            "relevance": np.concatenate([one.relevance for one in lists]),
            "kind": [k for one in lists for k in one.kinds or ("given",) * len(one.candidates)],
            "score": np.concatenate(scores),
            "rank": np.concatenate(ranks),
        }
    )


def _differences(
    names: Sequence[str],
    values: FloatArray,
    draws: FloatArray,
    groups: np.ndarray,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """nDCG@10 of `model` minus that of every other scorer, query by query."""
    others = [name for name in names if name != "model"]
    if "model" not in names or not others:
        return {}
    step, main = len(RANKING_METRICS), list(RANKING_METRICS).index(MAIN_METRIC)
    column = {name: number * step + main for number, name in enumerate(names)}
    places = [column[name] for name in others]
    gaps, gap_draws = (a[:, [column["model"]]] - a[:, places] for a in (values, draws))
    return compared(others, gaps, gap_draws, groups, resamples, seed)


def compared(
    names: Sequence[str],
    gaps: FloatArray,
    draws: FloatArray,
    groups: np.ndarray,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Paired differences, each with its interval and its p-value, alone and among all of them.

    Args:
        names: of what one scorer is compared with.
        gaps: the differences, shape (queries, names).
        draws: their means over resampled queries, shape (resamples, names).
        groups: of the queries, shape (queries,).
        resamples: flips of the test.
        seed: of the evaluation.

    Returns:
        By name `mean`, `low`, `high`, `p`, `p_holm`.
    """
    p = randomisation_test(gaps, groups, resamples, seed + 1)
    low, high = np.percentile(draws, LEVEL, axis=0)
    return {
        name: {
            **Estimate(gaps[:, n].mean(), low[n], high[n]).plain(),
            "p": float(p[n]),
            "p_holm": float(adjusted),
        }
        for n, (name, adjusted) in enumerate(zip(names, holm(p), strict=True))
    }


def save_evaluation(run_dir: str | Path, evaluation: Evaluation, worst: int = 200) -> Path:
    """Write `evaluation/` of a run: metrics.json, per_query.parquet, errors.parquet."""
    folder = project_path(run_dir) / "evaluation"
    first = "model" if "model" in set(evaluation.per_query["scorer"]) else None
    scorer = first or str(evaluation.per_query["scorer"].iloc[0])
    errors = worst_queries(evaluation, worst, scorer)
    for name, frame in (("per_query", evaluation.per_query), ("errors", errors)):
        with replacing(folder / f"{name}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
    write_json(folder / "metrics.json", evaluation.metrics)
    return folder


def worst_queries(evaluation: Evaluation, count: int = 20, scorer: str = "model") -> pd.DataFrame:
    """The queries that a scorer ranks worst by nDCG@10, then by the rank of the first positive.

    Returns:
        One row a query, the worst first: `query`, `ndcg@10`, `best_positive` and its `rank`, and
        `ranked_first`, the candidate that the scorer put on top.
    """
    ranked = evaluation.ranked[evaluation.ranked["scorer"] == scorer]
    rows = evaluation.per_query[evaluation.per_query["scorer"] == scorer].set_index("number")
    top = ranked[ranked["rank"] == 1].set_index("number")["candidate"]
    positive = ranked[ranked["relevance"] > 0].sort_values("rank").groupby("number").first()
    table = pd.DataFrame(
        {
            "query": rows["query"],
            MAIN_METRIC: rows[MAIN_METRIC],
            "best_positive": positive["candidate"],
            "rank": positive["rank"].astype("Int64"),
            "ranked_first": top,
        }
    )
    ordered = table.sort_values([MAIN_METRIC, "rank"], ascending=[True, False], kind="stable")
    return ordered.head(count).reset_index(drop=True)


def rank_query(
    scorers: Mapping[str, Scorer], query: str, candidates: Iterable[str]
) -> pd.DataFrame:
    """Rank candidates for one query: a row a candidate, a column a scorer's scores.

    The order is that of the first scorer, the best candidate first.
    """
    texts = list(dict.fromkeys(candidates))
    columns = {n: scorer.score([(query, text) for text in texts]) for n, scorer in scorers.items()}
    table = pd.DataFrame({"candidate": texts, **columns})
    return table.sort_values(next(iter(scorers)), ascending=False, ignore_index=True)
