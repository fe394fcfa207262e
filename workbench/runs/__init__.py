"""Run folders: parameters, records, and comparisons."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    comparison="best_run differences find_runs label_table paired_table runs_table seed_table",
    folder="environment",
)
