"""The figures: each function draws on the axes it is given, labels them, and returns them."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "data": "label_balance length_histogram",
        "ranking": "ladder learning_curve model_against reliability_plot "
        "score_distributions slices_plot",
        "runs": "label_efficiency run_intervals seed_spread",
        "style": "save_figure show",
        "training": "log_values loss_curve",
    },
)
