"""The figures: each function draws on the axes it is given, labels them, and returns them."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "data": "frequent_texts label_balance length_histogram text_reuse",
        "ranking": "ladder learning_curve model_against negatives_plot reliability_plot "
        "score_distributions slices_plot",
        "runs": "losses run_intervals seed_spread",
        "style": "save_figure show",
        "training": "against_the_card log_values loss_curve",
    },
)
