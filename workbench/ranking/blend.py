"""A blend: the model's score and two lexical ones in one logistic regression, fitted on dev pairs.

It asks whether the model already knows what shared characters tell. It has its own table and is
never the model: to reach its figures, all of its parts have to be run.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.build_lists import query_groups
from workbench.data.lists import CandidateList
from workbench.files import write_json
from workbench.ranking.evaluation import Evaluation, rank_lists, split_scores
from workbench.ranking.metrics import MAIN_METRIC
from workbench.ranking.uncertainty import bootstrap_mean, compare, format_estimate
from workbench.run_folder import RunFolder

PARTS = ("model", "ngram_regression", "char_jaccard")
MIN_DEV_PAIRS = 20  # of each class; with fewer, three weights are a matter of luck


@dataclass(frozen=True)
class Blend:
    """A weighted sum of scores, and how it ranks compared with its parts.

    Attributes:
        problem: why there is no blend; empty if there is one.
        dev_pairs: number of pairs that it was fitted on.
        weights: of the parts' scores, by name.
        intercept: added to their sum, which is then a logit.
        shares: of each part: its weight times the spread of its scores on dev; their absolute
            values add up to 1.
        means: nDCG@10 of each part and of `blend`: `mean`, `low`, `high`.
        minus: nDCG@10 of the blend minus that of each part, as from `compare`.
    """

    problem: str = ""
    dev_pairs: int = 0
    weights: dict[str, float] = field(default_factory=dict)
    intercept: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    means: dict[str, dict[str, Any]] = field(default_factory=dict)
    minus: dict[str, dict[str, Any]] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """One row per scorer, the best first: its share in the blend, nDCG@10, the blend's lead."""
        columns = ["scorer", "share", MAIN_METRIC, "blend minus it", "p (Holm)"]
        rows = []
        for name, mean in sorted(self.means.items(), key=lambda item: -item[1]["mean"]):
            share, lead, p = "", "", ""
            if gap := self.minus.get(name):
                share, lead = f"{100 * self.shares[name]:.0f} %", format_estimate(gap)
                p = f"{gap['p_holm']:.2g}"
            rows.append((name, share, format_estimate(mean), lead, p))
        return pd.DataFrame(rows, columns=columns).set_index("scorer")


def try_blend(
    run_dir: str | Path, evaluation: Evaluation, lists: Sequence[CandidateList], seed: int = 42
) -> Blend:
    """Fit a blend on dev, rank the lists with it, and write `evaluation/blend.json` of the run.

    Nothing is scored again: the evaluation has the scores of the lists and of the dev pairs.

    Args:
        run_dir: the run's folder.
        evaluation: from `evaluate`, with dev pairs; its ties and resamples are used.
        lists: the lists of that evaluation.
        seed: of the draws.
    """
    try:
        blend = _measured(fit_blend(evaluation.dev), evaluation, lists, seed)
    except ValueError as error:
        blend = Blend(problem=str(error))
    write_json(RunFolder(run_dir).blend, {"schema": 1, **asdict(blend)})
    return blend


def fit_blend(dev: pd.DataFrame) -> Blend:
    """A blend of `PARTS`, as far as they are there, by logistic regression; not yet measured.

    Args:
        dev: the scores of the dev pairs, see `Evaluation.dev`.

    Raises:
        ValueError: there is no model, or there are too few dev pairs of a class.
    """
    from sklearn.linear_model import LogisticRegression

    names = [name for name in PARTS if (dev["scorer"] == name).any()]
    if "model" not in names or len(names) < 2:
        raise ValueError("it takes the model, a lexical scorer, and dev pairs to fit it on")
    columns = _columns(dev, names)
    positive = dev.loc[dev["scorer"] == "model", "positive"].to_numpy(dtype=bool)
    if (fewer := int(min(positive.sum(), (~positive).sum()))) < MIN_DEV_PAIRS:
        raise ValueError(
            f"it takes {MIN_DEV_PAIRS} dev pairs of each class, and there are {fewer} of one; use "
            "more pairs or a larger dev_share"
        )
    middle, spread = columns.mean(axis=0), columns.std(axis=0)
    spread[spread == 0] = 1.0
    fitted = LogisticRegression(max_iter=1000).fit((columns - middle) / spread, positive)
    weights = fitted.coef_[0] / spread
    parts = weights * [column.std() for column in np.ascontiguousarray(columns.T)]
    shares = parts / (sum(map(abs, parts)) or 1.0)
    return Blend(
        dev_pairs=len(columns),
        weights=dict(zip(names, weights.tolist(), strict=True)),
        intercept=float(fitted.intercept_[0] - weights @ middle),
        shares=dict(zip(names, shares.tolist(), strict=True)),
    )


def _measured(
    blend: Blend, evaluation: Evaluation, lists: Sequence[CandidateList], seed: int
) -> Blend:
    names, weights = list(blend.weights), np.array(list(blend.weights.values()))
    mixed = weights @ np.ascontiguousarray(_columns(evaluation.ranked, names).T) + blend.intercept
    ranked = rank_lists(split_scores(mixed, lists), lists, evaluation.metrics["ties"])[MAIN_METRIC]
    gaps = ranked[:, None] - np.column_stack([*map(evaluation.values, names)])
    groups, resamples = query_groups(lists), evaluation.metrics["resamples"]
    means = {row["scorer"]: row[MAIN_METRIC] for row in evaluation.metrics["rows"]}
    own = bootstrap_mean(ranked, resamples, seed, groups).plain()
    return replace(
        blend,
        means={name: means[name] for name in names} | {"blend": own},
        minus=compare(names, gaps, groups, resamples, seed),
    )


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The scores of the named scorers, shape (pairs, names)."""
    scores = [frame.loc[frame["scorer"] == name, "score"].to_numpy(float) for name in names]
    return np.stack(scores, axis=1)
