"""The Reranker Workbench: fine-tune a cross-encoder and know whether it got better.

Every name below is loaded from its module when it is first used, so that importing the package
costs next to nothing and nothing loads torch before it is needed.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "audit": ("contradictory_rows", "inspect_pairs", "pair_tokens", "sample_rows",
              "save_inspection", "token_view"),
    "baselines": ("Bm25", "CandidateOrder", "CharacterJaccard", "NgramRegression", "RandomScorer",
                  "TfidfCosine"),
    "candidates": ("CandidateList", "build_candidates", "look_alikes", "read_candidates",
                   "write_candidates"),
    "card": ("write_card",),
    "coverage": ("verdict_card",),
    "evaluation": ("evaluate", "rank_query", "save_evaluation", "seen_queries", "worst_queries"),
    "files": ("display_path", "project_path"),
    "findings": ("agreement_finding", "bad_rows_finding", "contradictions_finding",
                 "dev_finding", "gradient_finding",
                 "labels_finding", "leak_finding", "lengths_finding", "loss_finding",
                 "ranking_finding", "reuse_finding", "split_finding", "vocabulary_finding"),
    "logs": ("read_training_log",),
    "metrics": ("bootstrap_mean", "pair_metrics", "rank_metrics"),
    "models": ("find_model", "load_tokenizer", "read_lineage"),
    "pairs": ("read_pairs",),
    "plots": ("frequent_texts", "label_balance", "ladder", "length_histogram", "log_values",
              "loss_curve", "show_figure", "text_reuse"),
    "runs": ("environment", "run_chain"),
    "scoring": ("ModelScorer", "Scorer"),
    "splits": ("prepare_data", "read_manifest", "read_side", "split_pairs", "text_groups"),
    "recipes": ("Recipe",),
    "training": ("fine_tune",),
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
