"""Labelled pairs, their splits, and candidate lists."""

from workbench.files import lazy_names

POSITIVE = 0.5  # labels at or above it count as positive

__getattr__, __dir__ = lazy_names(
    __name__,
    build_lists="build_test look_alikes query_groups ranking_lists seen_queries suspect_negatives",
    lists="CandidateList RankingTest read_test write_candidates",
    pairs="known_positives prepare_data read_manifest read_pairs read_split split_pairs",
    texts="text_groups",
)
