"""A blend: the model's score and two lexical ones in one logistic regression, fitted on dev pairs.

It asks whether the model already knows what shared characters tell. It has its own table and is
never the model: to reach its figures, all of its parts have to be run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


class Blend(NamedTuple):
    """How a weighted sum of scores ranks, compared with its parts; all but one are by name.

    Attributes:
        problem: why there is no blend; empty if there is one.
        shares: weights of the standardised scores; their absolute values add up to 1.
        means: nDCG@10 of each part and of `blend`: `mean`, `low`, `high`.
        minus: nDCG@10 of the blend minus that of each part, as from `compare`.
    """

    problem: str = ""
    shares: Mapping[str, float] = {}
    means: Mapping[str, dict[str, Any]] = {}
    minus: Mapping[str, dict[str, Any]] = {}

    def table(self) -> pd.DataFrame:
        """One row per scorer, the best first: its share in the blend, nDCG@10, the blend's lead."""
        columns = {
            "share": {name: f"{100 * share:.0f} %" for name, share in self.shares.items()},
            MAIN_METRIC: {name: format_estimate(mean) for name, mean in self.means.items()},
            "blend minus it": {name: format_estimate(gap) for name, gap in self.minus.items()},
            "p (Holm)": {name: f"{gap['p_holm']:.2g}" for name, gap in self.minus.items()},
        }
        order = sorted(self.means, key=lambda name: -self.means[name]["mean"])
        return pd.DataFrame(columns, index=pd.Index(order, name="scorer")).fillna("")


def try_blend(
    run_dir: str | Path, evaluation: Evaluation, lists: Sequence[CandidateList], seed: int = 42
) -> Blend:
    """Fit a blend on dev, rank the lists with it, and write `evaluation/blend.json` of the run.

    Nothing is scored again: the evaluation has the scores of these lists and of the dev pairs.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    dev, given = evaluation.dev, evaluation.metrics
    positive = dev.loc[dev["scorer"] == "model", "positive"].to_numpy(dtype=bool)
    if (fewer := int(min(positive.sum(), (~positive).sum()))) < MIN_DEV_PAIRS:
        blend = Blend(
            f"it takes the model's scores of {MIN_DEV_PAIRS} dev pairs of each class, and there "
            f"are {fewer} of one; use more pairs or a larger dev_share"
        )
    else:
        names, groups = [name for name in PARTS if name in set(dev["scorer"])], query_groups(lists)
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        fitted.fit(_columns(dev, names), positive)
        scores = fitted.decision_function(_columns(evaluation.ranked, names))
        values = rank_lists(split_scores(scores, lists), lists, given["ties"])[MAIN_METRIC]
        gaps = np.column_stack([values - evaluation.values(name) for name in names])
        means = {row["scorer"]: row[MAIN_METRIC] for row in given["rows"] if row["scorer"] in names}
        means["blend"] = bootstrap_mean(values, given["resamples"], seed, groups).plain()
        (weights,) = fitted[-1].coef_
        shares = dict(zip(names, (weights / (np.abs(weights).sum() or 1.0)).tolist(), strict=True))
        blend = Blend("", shares, means, compare(names, gaps, groups, given["resamples"], seed))
    write_json(RunFolder(run_dir).blend, {"schema": 2, **blend._asdict()})
    return blend


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The scores of the named scorers, shape (pairs, names)."""
    return np.column_stack([frame.loc[frame["scorer"] == name, "score"] for name in names])
