"""The Reranker Workbench: fine-tune a cross-encoder and know whether it got better.

Every name below is loaded from its module when it is first used, so that importing the package
costs next to nothing and nothing loads torch before it is needed.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "audit": ("contradictory_rows", "inspect_pairs", "lists_for_ceiling", "pair_tokens",
              "sample_rows", "save_inspection", "token_view"),
    "backends": ("backends_finding",),
    "baselines": ("Bm25", "CandidateOrder", "CharacterJaccard", "NgramRegression", "RandomScorer",
                  "TfidfCosine"),
    "blend": ("fit_blend", "load_blend", "try_blend"),
    "browser": ("browser_records", "error_browser", "live_ranking", "save_browser"),
    "candidates": ("build_candidates", "build_test", "look_alikes", "query_groups",
                   "seen_queries", "suspect_negatives"),
    "card": ("write_card",),
    "comparison": ("best_run", "differences", "find_runs", "paired_table", "runs_table",
                   "seed_table"),
    "coverage": ("verdict_card",),
    "charts": ("ladder", "learning_curve", "model_against", "negatives_plot", "reliability_plot",
               "score_distributions", "slices_plot"),
    "claims": ("agreement_finding", "calibration_finding", "curve_finding",
               "equal_overlap_finding", "leak_finding", "left_out_finding", "lists_finding",
               "negatives_finding", "pairs_finding", "ranking_finding", "scatter_finding",
               "slices_finding", "ties_finding"),
    "curve": ("find_snapshots", "snapshot_curve"),
    "errors": ("rank_query", "save_evaluation", "worst_queries"),
    "evaluation": ("evaluate",),
    "files": ("display_path", "project_path"),
    "findings": ("bad_rows_finding", "contradictions_finding", "dev_finding", "gradient_finding",
                 "labels_finding", "lengths_finding", "loss_finding", "reuse_finding",
                 "split_finding"),
    "list_formats": ("read_candidates", "read_test"),
    "lists": ("CandidateList", "RankingTest", "write_candidates"),
    "logs": ("read_training_log",),
    "metrics": ("pair_metrics", "rank_metrics"),
    "models": ("find_model", "load_tokenizer", "read_lineage"),
    "pairs": ("read_pairs",),
    "plots": ("against_the_card", "frequent_texts", "label_balance", "length_histogram",
              "log_values", "loss_curve", "show_figure", "text_reuse"),
    "reference": ("beside_the_card", "card_finding", "reference_card", "reference_log",
                  "step_means"),
    "chain": ("run_chain",),
    "overview": ("best_finding", "differences_finding", "losses", "run_intervals", "seed_spread",
                 "seeds_finding", "states_finding"),
    "runs": ("environment",),
    "scoring": ("ModelScorer", "Scorer"),
    "slices": ("equal_overlap", "negative_couples", "query_features", "slice_table"),
    "splits": ("prepare_data", "read_manifest", "read_side", "split_pairs", "text_groups"),
    "remarks": ("missing_finding", "recipe_finding", "repair_finding", "repair_table",
                "training_finding", "vocabulary_finding"),
    "recipes": ("Recipe",),
    "stages": ("record_figures",),
    "subject": ("find_subject", "ladder_scorers", "other_runs", "stage_scorers"),
    "training": ("Recipe", "fine_tune"),
    "uncertainty": ("bootstrap_mean",),
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
