"""From a base model to a fine-tuned one."""

from workbench.files import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    log="last_record read_training_log step_means",
    recipe="Recipe make_loss",
    stages="Training fine_tune record_figures",
)
