"""The library's losses by name: the data that each needs, and what `predict` gives after it."""

import inspect
import math
import typing
from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.data import POSITIVE
from workbench.data.splits import DataError

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
SCHEMES = tuple(f"NDCGLoss{kind}Scheme" for kind in ("1", "2", "2PP"))
CHOICES = {
    "activation_fn": ("Identity", "Sigmoid"),
    "weighting_scheme": ("NoWeightingScheme", "LambdaRankScheme", *SCHEMES),
}
LIST_LENGTH = 32  # documents; those of a query that has more are dealt into several lists
OURS = (  # trainer arguments that parameters of the workbench set
    "output_dir num_train_epochs per_device_train_batch_size per_device_eval_batch_size "
    "learning_rate learning_rate_mapping lr_scheduler_type warmup_steps warmup_ratio weight_decay "
    "optim seed bf16 fp16 use_cpu logging_steps logging_strategy eval_strategy eval_steps "
    "save_strategy save_steps save_total_limit report_to max_steps gradient_accumulation_steps "
    "gradient_checkpointing activation_checkpointing batch_sampler load_best_model_at_end "
    "resume_from_checkpoint push_to_hub do_train do_eval do_predict disable_tqdm"
)


def make_loss(name: str, model: Any, **parameters: Any) -> Any:
    """The library's loss of that name for a model.

    Args:
        name: one of `LOSSES`.
        model: the cross-encoder to train.
        parameters: of the loss, checked by `check_loss`; classes are given by name, and
            `pos_weight` as a number.
    """
    import torch
    from sentence_transformers.cross_encoder import losses

    homes = {"activation_fn": torch.nn, "weighting_scheme": losses}
    made = {k: getattr(homes[k], v)() if k in CHOICES else v for k, v in parameters.items()}
    if "pos_weight" in made:
        made["pos_weight"] = torch.tensor(float(made["pos_weight"]), device=model.device)
    return getattr(losses, LOSSES[name][0])(model, **made)


def check_loss(name: str, parameters: Mapping[str, Any]) -> None:
    """Nothing, if the loss has these parameters and takes their values.

    Raises:
        ValueError: with the parameter, its value and what would be right.
    """
    from pydantic import TypeAdapter
    from sentence_transformers.cross_encoder import losses

    kind = getattr(losses, LOSSES[name][0])
    types = {"pos_weight": float, **dict.fromkeys(CHOICES, str)}
    hidden = {"self", "model", "kwargs", "lambda_weight", "show_progress_bar"}
    known = [key for key in inspect.signature(kind.__init__).parameters if key not in hidden]
    for key, value in parameters.items():
        if key not in known:
            raise ValueError(f"loss {name} has no parameter {key!r}; it has {', '.join(known)}")
        wanted = types.get(key) or typing.get_type_hints(kind.__init__)[key]
        TypeAdapter(wanted).validate_python(value, strict=not isinstance(value, int | float))
        if key in CHOICES and value not in CHOICES[key]:
            raise ValueError(f"{key} {value!r} is none of {', '.join(CHOICES[key])}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not 0 < value < math.inf:
            raise ValueError(f"{key} must be above 0 and finite; it is {value!r}")


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Nothing, if these are arguments of the library's trainer that no other parameter sets.

    Raises:
        ValueError: with the name at fault, or the library's own reason.
    """
    from dataclasses import fields

    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

    known = {field.name for field in fields(CrossEncoderTrainingArguments) if field.init}
    for name in arguments:
        if name in OURS.split():
            raise ValueError(f"{name!r} is set by the workbench's own parameters")
        if name not in known:
            raise ValueError(f"the library's trainer has no argument {name!r}")
    try:
        CrossEncoderTrainingArguments(output_dir="unused", **arguments)
    except (TypeError, ImportError, AttributeError) as error:
        raise ValueError(str(error)) from error


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


def training_rows(pairs: pd.DataFrame, kind: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """Labelled pairs in the form that a loss needs, grouped by query, and what they have become.

    Args:
        pairs: columns `sentence_0` (the query), `sentence_1`, `label`.
        kind: see `needs`. A list is a query with its candidates, the best first; a triple has the
            difference of the labels. Positives get a negative each if at least half of their
            queries have one, else they are pairs, and other queries' texts are the negatives.

    Raises:
        DataError: no query has candidates of different labels, or none is positive.
    """
    columns = ["sentence_0", "sentence_1", "label"]
    if kind == "pairs":
        return pairs[columns], {}
    groups: dict[str, list[tuple[float, str]]] = {}
    for query, text, label in zip(*(pairs[name] for name in columns), strict=True):
        groups.setdefault(query, []).append((float(label), text))
    rows: list[tuple[Any, ...]] = []
    used = 0
    if kind == "lists":
        columns = ["query", "documents", "label"]
        for query, found in groups.items():
            found.sort(key=lambda one: -one[0])
            parts = math.ceil(len(found) / LIST_LENGTH)
            for labels, texts in (zip(*found[n::parts], strict=True) for n in range(parts)):
                if labels[0] > labels[-1]:
                    rows.append((query, list(texts), list(labels)))
                    used += len(texts)
    else:
        split = {
            query: [
                [one for one in found if (one[0] >= POSITIVE) == side] for side in (True, False)
            ]
            for query, found in groups.items()
        }
        split = {query: both for query, both in split.items() if both[0]}
        contrast = {query: both for query, both in split.items() if both[1]}
        columns = ["query", "positive", "negative", "label"]
        if kind == "positives" and 2 * len(contrast) < len(split):
            rows = [(q, text, text, 0.0) for q, both in split.items() for _, text in both[0]]
            made = {"positive_pairs": len(rows), "unused": len(pairs) - len(rows)}
            return pd.DataFrame(rows, columns=columns)[columns[:2]], made
        for query, (good, bad) in contrast.items():
            for n in range(max(len(good), len(bad))):
                (high, text), (low, other) = good[n % len(good)], bad[n % len(bad)]
                rows.append((query, text, other, high - low))
            used += len(good) + len(bad)
        columns = columns[: 3 if kind == "positives" else 4]
        rows = [row[: len(columns)] for row in rows]
    if not rows:
        raise DataError(
            "the loss compares candidates of one query, and no query has candidates of different "
            "labels: set hard_negatives, which mines them, or take loss bce"
        )
    name = "lists" if kind == "lists" else "triples"
    return pd.DataFrame(rows, columns=columns), {name: len(rows), "unused": len(pairs) - used}
