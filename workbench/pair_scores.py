"""Labelled pairs under several scorers: what each of them gives, and how good that is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.baselines import TextPair, text_pairs
from workbench.metrics import fit_threshold
from workbench.scoring import Scorer
from workbench.splits import text_groups
from workbench.uncertainty import bootstrap_pairs

POSITIVE = 0.5  # labels at or above it count as positive
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
        self.sides = {name: (text_pairs(side), (side["label"] >= POSITIVE).to_numpy(dtype=bool))
                      for name, side in (("test", test), ("dev", none if dev is None else dev))
                      }  # fmt: skip
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
                score, positive, threshold=threshold, groups=self.groups,
                logits=bool(getattr(scorer, "log_odds", False)), **self.how,
            )  # fmt: skip
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
