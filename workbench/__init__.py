"""The Reranker Workbench: fine-tune a cross-encoder and know whether it got better.

Every name below is loaded from its module when it is first used, so that importing the package
costs next to nothing and nothing loads torch before it is needed.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "batch.execute": ("run_chain",),
    "data.build_lists": (
        "build_candidates",
        "build_test",
        "look_alikes",
        "query_groups",
        "seen_queries",
        "suspect_negatives",
    ),
    "data.list_files": ("read_candidates", "read_test"),
    "data.lists": ("CandidateList", "RankingTest", "write_candidates"),
    "data.pairs": ("read_pairs",),
    "data.splits": ("prepare_data", "read_manifest", "read_side", "split_pairs", "text_groups"),
    "files": ("display_path", "project_path"),
    "models": ("find_model", "load_tokenizer", "read_lineage"),
    "ranking.blend": ("fit_blend", "load_blend", "try_blend"),
    "ranking.evaluation": ("rank_query", "save_evaluation", "worst_queries", "evaluate"),
    "ranking.ladder": (
        "find_snapshots",
        "snapshot_curve",
        "find_subject",
        "ladder_scorers",
        "other_runs",
        "stage_scorers",
    ),
    "ranking.metrics": ("pair_metrics", "rank_metrics"),
    "ranking.slices": ("equal_overlap", "negative_couples", "query_features", "slice_table"),
    "ranking.uncertainty": ("bootstrap_mean",),
    "reports.browser": ("browser_records", "error_browser", "live_ranking", "save_browser"),
    "reports.figures.data": ("frequent_texts", "label_balance", "length_histogram", "text_reuse"),
    "reports.figures.ranking": (
        "ladder",
        "learning_curve",
        "model_against",
        "negatives_plot",
        "reliability_plot",
        "score_distributions",
        "slices_plot",
    ),
    "reports.figures.runs": ("losses", "run_intervals", "seed_spread"),
    "reports.figures.style": ("show_figure",),
    "reports.figures.training": ("against_the_card", "log_values", "loss_curve"),
    "reports.findings.data": (
        "bad_rows_finding",
        "contradictions_finding",
        "labels_finding",
        "lengths_finding",
        "reuse_finding",
        "split_finding",
        "missing_finding",
        "repair_finding",
        "repair_table",
        "vocabulary_finding",
    ),
    "reports.findings.ranking": (
        "backends_finding",
        "agreement_finding",
        "calibration_finding",
        "curve_finding",
        "equal_overlap_finding",
        "leak_finding",
        "left_out_finding",
        "lists_finding",
        "negatives_finding",
        "pairs_finding",
        "ranking_finding",
        "scatter_finding",
        "slices_finding",
        "ties_finding",
    ),
    "reports.findings.runs": (
        "best_finding",
        "differences_finding",
        "seeds_finding",
        "states_finding",
    ),
    "reports.findings.training": (
        "dev_finding",
        "gradient_finding",
        "loss_finding",
        "card_finding",
        "recipe_finding",
        "training_finding",
    ),
    "reports.model_card": ("write_card",),
    "reports.page": ("verdict_card",),
    "runs.comparison": (
        "best_run",
        "differences",
        "find_runs",
        "paired_table",
        "runs_table",
        "seed_table",
    ),
    "runs.folder": ("environment",),
    "scoring.baselines": (
        "Bm25",
        "CandidateOrder",
        "CharacterJaccard",
        "NgramRegression",
        "RandomScorer",
        "Scorer",
        "TfidfCosine",
    ),
    "scoring.cross_encoder": ("ModelScorer",),
    "training.log": (
        "read_training_log",
        "beside_the_card",
        "reference_card",
        "reference_log",
        "step_means",
    ),
    "training.recipe": ("Recipe",),
    "training.stages": ("record_figures", "fine_tune"),
    "vocabulary.inspection": (
        "contradictory_rows",
        "inspect_pairs",
        "lists_for_ceiling",
        "pair_tokens",
        "sample_rows",
        "save_inspection",
        "token_view",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
