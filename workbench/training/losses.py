"""The library's losses by name: their parameters, what each learns from, and what `predict` gives.

A loss is added in `LOSSES`. What the library's trainer takes is checked here in the same way.
"""

import difflib
import inspect
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

LOSSES = {  # name -> class of the library, and what it learns from
    "bce": ("BinaryCrossEntropyLoss", "pairs"),
    "mse": ("MSELoss", "pairs"),
    "margin_mse": ("MarginMSELoss", "triples"),
    "mnrl": ("MultipleNegativesRankingLoss", "positives"),
    "cached_mnrl": ("CachedMultipleNegativesRankingLoss", "positives"),
    "lambda": ("LambdaLoss", "lists"),
    "listnet": ("ListNetLoss", "lists"),
    "listmle": ("ListMLELoss", "lists"),
    "plistmle": ("PListMLELoss", "lists"),
    "ranknet": ("RankNetLoss", "lists"),
    "adr_mse": ("ADRMSELoss", "lists"),
}
TAUGHT = ("mse", "margin_mse")  # losses that can learn a teacher's scores
CHOICES: dict[str, Any] = {  # classes, given by name
    "activation_fn": Literal["Identity", "Sigmoid"],
    "weighting_scheme": Literal[
        "NoWeightingScheme",
        "LambdaRankScheme",
        "NDCGLoss1Scheme",
        "NDCGLoss2Scheme",
        "NDCGLoss2PPScheme",
    ],
}
OURS = (  # trainer arguments that parameters of the workbench set
    "output_dir num_train_epochs per_device_train_batch_size per_device_eval_batch_size "
    "learning_rate learning_rate_mapping lr_scheduler_type warmup_steps warmup_ratio weight_decay "
    "optim seed bf16 fp16 use_cpu logging_steps logging_strategy eval_strategy eval_steps "
    "save_strategy save_steps save_total_limit report_to max_steps gradient_accumulation_steps "
    "gradient_checkpointing activation_checkpointing batch_sampler load_best_model_at_end "
    "metric_for_best_model resume_from_checkpoint push_to_hub do_train do_eval do_predict "
    "disable_tqdm"
)


def make_loss(name: str, model: Any, **parameters: Any) -> Any:
    """The library's loss of that name for a cross-encoder.

    The parameters are those that `check_loss` allows: classes by name, `pos_weight` as a number.
    """
    import torch
    from sentence_transformers.cross_encoder import losses

    homes = {"activation_fn": torch.nn, "weighting_scheme": losses}
    made = {k: getattr(homes[k], v)() if k in CHOICES else v for k, v in parameters.items()}
    if "pos_weight" in made:
        made["pos_weight"] = torch.tensor(float(made["pos_weight"]), device=model.device)
    return getattr(losses, LOSSES[name][0])(model, **made)


def check_loss(name: str, parameters: Mapping[str, Any]) -> None:
    """Make sure that the loss has these parameters and takes their values.

    Raises:
        ValueError: with the parameter, its value and what would be right.
    """
    from sentence_transformers.cross_encoder import losses

    start = getattr(losses, LOSSES[name][0]).__init__
    hidden = {"self", "model", "kwargs", "lambda_weight", "show_progress_bar"}
    hints = typing.get_type_hints(start) | {"pos_weight": float} | CHOICES
    types = {n: hints[n] for n in inspect.signature(start).parameters if n not in hidden}
    _check_types(parameters, types, f"loss {name} has no parameter")
    for key, value in parameters.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not 0 < value < math.inf:
            raise ValueError(f"{key} must be above 0 and finite; it is {value!r}")


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Make sure that these are arguments of the library's trainer that no parameter of ours sets.

    Raises:
        ValueError: with the name at fault, or the library's own reason.
    """
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments as Arguments

    if own := arguments.keys() & {*OURS.split()}:
        raise ValueError(f"{min(own)!r} is set by the workbench's own parameters")
    hints = typing.get_type_hints(Arguments)
    types = {name: hints[name] for name in inspect.signature(Arguments).parameters}
    _check_types(arguments, types, "the library's trainer has no argument")
    try:
        Arguments(output_dir="unused", **arguments)
    except (TypeError, ImportError, AttributeError) as error:
        raise ValueError(str(error)) from error


def _check_types(given: Mapping[str, Any], types: Mapping[str, Any], unknown: str) -> None:
    """Refuse (`ValueError`) unknown names, and values of another type; integers do for floats."""
    for name, value in given.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, 3, 0.3) or [*types]
            raise ValueError(f"{unknown} {name!r}; did you mean {' or '.join(near)}?")
        adapter = TypeAdapter(types[name], config=ConfigDict(arbitrary_types_allowed=True))
        try:
            adapter.validate_python(value, strict=not isinstance(value, int | float))
        except ValidationError as error:
            reason = error.errors()[0]["msg"].replace("Input", "input")
            raise ValueError(f"{name} {value!r}: {reason}") from error


def needs(loss: Any) -> str:
    """`pairs`, `triples`, `positives` or `lists`; `pairs` for a class that is not in `LOSSES`."""
    return dict(LOSSES.values()).get(type(loss).__name__, "pairs")


def stored_activation(loss: Any) -> Any:
    """What `predict` applies to the logit: a sigmoid where that is the probability it learned."""
    import torch
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, MSELoss

    if isinstance(loss, BinaryCrossEntropyLoss):
        return torch.nn.Sigmoid()
    return loss.activation_fn if isinstance(loss, MSELoss) else torch.nn.Identity()
