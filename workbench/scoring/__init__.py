"""Scorers: lexical baselines and cross-encoders."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    baselines="BASELINES Bm25 CandidateOrder CharacterJaccard NgramRegression RandomScorer Scorer "
    "TfidfCosine TokenJaccard",
    cross_encoder="ModelScorer",
)
