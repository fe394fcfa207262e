"""What the numbers say, in words: each function returns a short paragraph of Markdown.

The numbers choose the sentences, so these hold for any parameters. They quote no text of the data
and are therefore safe to show as Markdown.
"""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "data": "bad_rows contradictions labels lengths missing repair repair_table reuse split "
        "vocabulary",
        "ranking": "agreement backends blend calibration curve equal_overlap leak left_out "
        "lists negatives pairs scatter slices ties verdict",
        "runs": "best differences seeds states",
        "training": "card dev gradient loss outcome recipe warm_up",
    },
)
