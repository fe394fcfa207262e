"""What people read: findings in words, figures, the report, the model card, the error browser."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    browser="browser_records error_browser live_ranking save_browser",
    model_card="write_card",
    page="write_report",
    **{"figures.style": "verdict_card"},
)
