"""A blend: the model's score and two lexical ones in one logistic regression, fitted on dev pairs.

It asks whether the model already knows what shared characters tell. It is a row of its own beside
the ladder, never the model: who wants its figures has to run all of its parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.data.build_lists import query_groups
from workbench.data.lists import CandidateList
from workbench.data.pairs import Float32Array, TextPair
from workbench.files import project_path, read_json, write_json
from workbench.ranking.evaluation import MAIN_METRIC, Evaluation, compared, rank_lists, split_scores
from workbench.ranking.uncertainty import SIGNIFICANT, bootstrap_draws, estimate, format_estimate
from workbench.scoring.baselines import Scorer

PARTS = ("model", "ngram_regression", "char_jaccard")


FEWEST = 20  # dev pairs of each class, below which three weights are a matter of luck


FILE = "evaluation/blend.json"


@dataclass(frozen=True)
class Blend:
    """A weighted sum of scores; itself a scorer, whose score is a logit.

    Attributes:
        weights: of each part's score, by name.
        intercept: added to the sum.
        scorers: the parts, by name.
    """

    weights: dict[str, float]
    intercept: float
    scorers: Mapping[str, Scorer] = field(repr=False, compare=False)

    log_odds = True  # the score has a probability

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Logits of shape (n,); every part scores the pairs."""
        return self.mix({name: self.scorers[name].score(pairs) for name in self.weights})

    def mix(self, scores: Mapping[str, ArrayLike]) -> Float32Array:
        """Logits of shape (n,) of scores that are there already, by part, each of shape (n,)."""
        columns = [np.asarray(scores[name], dtype=float) for name in self.weights]
        weights = np.array(list(self.weights.values()))
        return np.asarray(weights @ np.stack(columns) + self.intercept, dtype=np.float32)


@dataclass(frozen=True)
class BlendReport:
    """How a blend ranks beside its parts.

    Attributes:
        problem: why there is no blend; empty if there is one.
        dev_pairs: that it was fitted on.
        weights: of the parts' scores.
        intercept: added to their sum.
        shares: of each part: its weight times the spread of its scores on dev, all adding up to 1
            in absolute terms.
        means: nDCG@10 of each part and of `blend`: `mean`, `low`, `high`.
        minus: nDCG@10 of the blend minus that of each part, see `compared`.
    """

    problem: str = ""
    dev_pairs: int = 0
    weights: dict[str, float] = field(default_factory=dict)
    intercept: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    means: dict[str, dict[str, Any]] = field(default_factory=dict)
    minus: dict[str, dict[str, Any]] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """One row a scorer, the best first: its share in the blend, nDCG@10, the blend's lead."""
        rows = [
            {
                "scorer": name,
                "share": f"{self.shares[name]:.0%}" if name in self.shares else "",
                MAIN_METRIC: format_estimate(mean),
                "blend minus it": format_estimate(self.minus[name]) if name in self.minus else "",
                "p (Holm)": f"{self.minus[name]['p_holm']:.2g}" if name in self.minus else "",
            }
            for name, mean in sorted(self.means.items(), key=lambda item: -item[1]["mean"])
        ]
        columns = ["scorer", "share", MAIN_METRIC, "blend minus it", "p (Holm)"]
        return pd.DataFrame(rows, columns=columns).set_index("scorer")

    def finding(self) -> str:
        """What the blend says about the model."""
        if self.problem:
            return f"There is no blend: {self.problem}."
        gap = self.minus["model"]
        shown = (
            f"nDCG@10 {self.means['blend']['mean']:.3f} against the model's "
            f"{self.means['model']['mean']:.3f} (difference {gap['mean']:+.3f}, 95 % interval "
            f"{gap['low']:+.3f} to {gap['high']:+.3f}, p = {gap['p_holm']:.2g} after correction)"
        )
        if gap["low"] > 0 and gap["p_holm"] < SIGNIFICANT:
            return (
                f"**The blend ranks better than the model alone**: {shown}. So the model has not "
                "learned all that shared characters tell. More training may get there; until "
                "then whoever can run all parts ranks better with the blend."
            )
        if gap["high"] < 0 and gap["p_holm"] < SIGNIFICANT:
            return (
                f"**The blend ranks worse than the model**: {shown}. What tells positives from "
                "negatives among the dev pairs does not order these lists."
            )
        return f"**The blend adds nothing that can be shown**: {shown}."


def fit_blend(scorers: Mapping[str, Scorer], dev: pd.DataFrame) -> Blend:
    """Fit the weights of `PARTS`, as far as they are there, by logistic regression.

    Args:
        scorers: by name, `model` among them.
        dev: the scores of the dev pairs, see `Evaluation.dev`.

    Raises:
        ValueError: there is no model, or there are too few dev pairs of a class.
    """
    from sklearn.linear_model import LogisticRegression

    names = [name for name in PARTS if name in scorers and (dev["scorer"] == name).any()]
    if "model" not in names or len(names) < 2:
        raise ValueError("it takes the model, a lexical scorer, and dev pairs to fit it on")
    scores = _by_scorer(dev, names)
    positive = dev.loc[dev["scorer"] == "model", "positive"].to_numpy(dtype=bool)
    fewer = int(min(positive.sum(), (~positive).sum()))
    if fewer < FEWEST:
        raise ValueError(
            f"it takes {FEWEST} dev pairs of each class, and there are {fewer} of one; use more "
            "pairs or a larger dev_share"
        )
    columns = np.stack([scores[name] for name in names], axis=1)
    middle, spread = columns.mean(axis=0), columns.std(axis=0)
    spread[spread == 0] = 1.0
    fitted = LogisticRegression(max_iter=1000).fit((columns - middle) / spread, positive)
    weights = fitted.coef_[0] / spread
    intercept = float(fitted.intercept_[0] - weights @ middle)
    return Blend(dict(zip(names, weights.tolist(), strict=True)), intercept, scorers)


def try_blend(
    run_dir: str | Path,
    scorers: Mapping[str, Scorer],
    evaluation: Evaluation,
    lists: Sequence[CandidateList],
    seed: int = 42,
) -> BlendReport:
    """Fit a blend on dev, rank the lists with it, and write `evaluation/blend.json` of the run.

    Nothing is scored anew: the scores of the lists and of the dev pairs are in the evaluation.

    Args:
        run_dir: the run's folder.
        scorers: those of the evaluation.
        evaluation: from `evaluate`, with dev pairs; it also says how ties count and how much to
            draw.
        lists: that it was made on.
        seed: of the draws.
    """
    try:
        blend = fit_blend(scorers, evaluation.dev)
    except ValueError as error:
        report = BlendReport(problem=str(error))
    else:
        report = _report(blend, evaluation, lists, seed)
    write_json(project_path(run_dir) / FILE, {"schema": 1, **asdict(report)})
    return report


def load_blend(run_dir: str | Path, scorers: Mapping[str, Scorer]) -> Blend:
    """The blend that `try_blend` has left in a run.

    Raises:
        ValueError: the run has none, or one of its parts is not among the scorers.
    """
    file = project_path(run_dir) / FILE
    found = dict(read_json(file)) if file.is_file() else {}
    if problem := found.get("problem", "notebook 4 has not made one"):
        raise ValueError(f"{run_dir} has no blend: {problem}")
    if absent := [name for name in found["weights"] if name not in scorers]:
        raise ValueError(f"the blend of {run_dir} needs the scorer {', '.join(absent)}")
    return Blend(found["weights"], found["intercept"], scorers)


def _by_scorer(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: frame.loc[frame["scorer"] == name, "score"].to_numpy(float) for name in names}


def _report(
    blend: Blend, evaluation: Evaluation, lists: Sequence[CandidateList], seed: int
) -> BlendReport:
    names = list(blend.weights)
    mixed = split_scores(blend.mix(_by_scorer(evaluation.ranked, names)), lists)
    ranked = rank_lists(mixed, lists, evaluation.metrics["ties"])[MAIN_METRIC]
    gaps = ranked[:, None] - np.column_stack([*map(evaluation.values, names)])
    groups, resamples = query_groups(lists), evaluation.metrics["resamples"]
    draws = bootstrap_draws(np.column_stack([ranked, gaps]), groups, resamples, seed)
    measured = {row["scorer"]: row[MAIN_METRIC] for row in evaluation.metrics["rows"]}
    own = estimate(ranked.mean(), draws[:, 0]).plain()
    dev = _by_scorer(evaluation.dev, names)
    parts = {name: weight * dev[name].std() for name, weight in blend.weights.items()}
    total = sum(map(abs, parts.values())) or 1.0
    return BlendReport(
        dev_pairs=len(dev["model"]),
        weights=blend.weights,
        intercept=blend.intercept,
        shares={name: float(part / total) for name, part in parts.items()},
        means={name: measured[name] for name in names} | {"blend": own},
        minus=compared(names, gaps, draws[:, 1:], groups, resamples, seed),
    )
