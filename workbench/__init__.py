"""The Reranker Workbench: fine-tune a cross-encoder and know whether it got better.

Here are the names that every notebook uses, and the rooms: `wb.scoring.Bm25`,
`wb.figures.loss_curve`, `wb.findings.split`. Everything is loaded when it is first used, so that
importing the package takes no time and nothing loads torch before it is needed.
"""

from workbench.files import lazy_names

__version__ = "0.1.0"

ROOMS = (
    *("data", "vocabulary", "scoring", "ranking", "training", "runs", "reports", "batch"),
    *("reports.figures", "reports.findings"),
)
__getattr__, __dir__ = lazy_names(
    __name__,
    **{
        **dict.fromkeys(ROOMS, ""),
        "batch.execute": "run_chain",
        "data.build_lists": "build_test",
        "data.lists": "read_test",
        "data.pairs": "prepare_data read_manifest read_pairs read_split",
        "files": "display_path",
        "models": "find_model load_tokenizer read_lineage",
        "ranking.evaluation": "evaluate rank_query save_evaluation",
        "ranking.ladder": "find_subject ladder_scorers",
        "reports.figures.style": "show",
        "reports.model_card": "write_card",
        "runs.comparison": "best_run find_runs",
        "runs.folder": "environment",
        "training.log": "read_training_log",
        "training.recipe": "Recipe",
        "training.stages": "fine_tune record_figures",
        "vocabulary.inspection": "inspect_pairs save_inspection",
    },
)
