"""Metrics, uncertainty, and what a model is measured against."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    evaluation="evaluate rank_query save_evaluation worst_queries",
    ladder="find_subject ladder_scorers snapshot_curve",
    metrics="METRICS PAIR_METRICS RANKING_METRICS pair_metrics rank_metrics",
    slices="equal_overlap pairwise_orders query_features slice_table try_blend",
    uncertainty="bootstrap_mean holm randomisation_test",
)
