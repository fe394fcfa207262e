"""Sentences chosen by the numbers, one module for each notebook."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "data": (
            "bad_rows contradictions labels lengths missing repair repair_table reuse split "
            "vocabulary"
        ),
        "ranking": (
            "agreement backends calibration curve equal_overlap leak left_out lists negatives "
            "pairs scatter slices ties verdict"
        ),
        "runs": "best differences seeds states",
        "training": "card dev gradient loss outcome recipe",
    },
)
