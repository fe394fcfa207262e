"""The library's losses by name: the data that each needs, and what `predict` gives after it.

Everything that can be found out about training pairs before a model is loaded is here as well
(`check_training`), so that a preflight and a training refuse the same.
"""

import difflib
import inspect
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.data import POSITIVE
from workbench.data.lists import CandidateList
from workbench.data.pairs import text_pairs
from workbench.data.readers import COLUMNS, PairsError, file_records
from workbench.data.splits import DataError, read_manifest
from workbench.files import display_path, project_path
from workbench.machine import on_gpu
from workbench.models import ModelError, find_model
from workbench.scoring.baselines import BASELINES, NgramRegression
from workbench.training.mining import with_mined
from workbench.training.recipe import LOSSES, Recipe

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
LIST_LENGTH = 32  # documents; those of a query that has more are dealt into several lists
Judged = tuple[float, str, float]  # label, text and target of a candidate
Origin = tuple[str, Mapping[str, str]]  # a file, and its column for each role
NOWHERE: Origin = ("", {})
SAMPLE = 2000  # pairs that usually show that mining will find something
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
    """Nothing, if these are arguments of the library's trainer that no other parameter sets.

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
    """Nothing, if each name is known and its value has the type; integers do for floats."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

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


def training_rows(
    pairs: pd.DataFrame, kind: str, targets: ArrayLike | None = None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Labelled pairs in the form that a loss needs, grouped by query, and what they have become.

    Args:
        pairs: columns `sentence_0` (the query), `sentence_1`, `label`.
        kind: see `needs`. A list is a query with its candidates, the best first; a triple has the
            difference of the targets. Positives get a negative each if at least half of their
            queries have one, else they are pairs, and other queries' texts are the negatives.
        targets: what pairs and triples learn, shape (pairs,); the labels if None.

    Raises:
        DataError: no query has candidates of different labels, or none is positive.
    """
    target = np.asarray(pairs["label"] if targets is None else targets, dtype=float)
    if kind == "pairs":
        return pairs[[*COLUMNS]].assign(label=target), {}
    groups: dict[str, list[Judged]] = {}
    for query, text, label, learned in zip(*(pairs[name] for name in COLUMNS), target, strict=True):
        groups.setdefault(query, []).append((float(label), text, learned))
    split = _lists if kind == "lists" else _triples
    rows = [(query, *row) for query, found in groups.items() for row in split(found)]
    compared = {row[0] for row in rows}
    used = sum(len(groups[query]) for query in compared)
    name, columns = "triples", ["query", "positive", "negative", "label"]
    if kind == "lists":
        name, columns = "lists", ["query", "documents", "label"]
        used = sum(len(row[1]) for row in rows)
    elif kind == "positives":
        columns = columns[:3]
        rows = [row[:3] for row in rows]
        good = [(q, one[1]) for q, found in groups.items() for one in found if one[0] >= POSITIVE]
        if 2 * len(compared) < len({query for query, _ in good}):
            name, columns, rows, used = "positive_pairs", columns[:2], good, len(good)
    if not rows:
        raise DataError(
            "the loss compares candidates of one query, and no query has candidates of different "
            "labels: set hard_negatives, which mines them, or take loss bce"
        )
    made = pd.DataFrame(rows, columns=columns)
    return made, {name: len(made), "unused": len(pairs) - used}


def _lists(found: list[Judged]) -> Iterator[tuple[list[str], list[float]]]:
    """Texts and labels of a query's lists, the best first; none where all labels are equal."""
    found = sorted(found, key=lambda one: -one[0])
    parts = math.ceil(len(found) / LIST_LENGTH)
    for labels, texts, _ in (zip(*found[part::parts], strict=True) for part in range(parts)):
        if labels[0] > labels[-1]:
            yield list(texts), list(labels)


def _triples(found: list[Judged]) -> Iterator[tuple[str, str, float]]:
    """A query's positives and negatives in turn, and how far apart their targets are."""
    good = [one for one in found if one[0] >= POSITIVE]
    bad = [one for one in found if one[0] < POSITIVE]
    for turn in range(max(len(good), len(bad)) if good and bad else 0):
        (_, text, high), (_, other, low) = good[turn % len(good)], bad[turn % len(bad)]
        yield text, other, high - low


def stage_pairs(train: pd.DataFrame, size: int, seed: int = 42) -> pd.DataFrame:
    """A seeded random sample of `size` rows in their given order; all rows for 0 or too many."""
    if not 0 < size < len(train):
        return train
    chosen = np.random.default_rng(seed).choice(len(train), size, replace=False)
    return train.iloc[np.sort(chosen)].reset_index(drop=True)


def check_training(
    train: pd.DataFrame, recipe: Recipe, sizes: Sequence[int] = (0,), origin: Origin = NOWHERE
) -> None:
    """Nothing, if every stage has the pairs that the recipe learns from.

    Args:
        train: the train split, or as much of it as is known.
        recipe: how to train.
        sizes: pairs of each stage, see `read_stages`.
        origin: of the pairs, see `known_scores`.

    Raises:
        DataError: there is no pair, all labels are equal, or what the loss needs is neither there
            nor can be mined.
        ValueError: the recipe cannot be carried out on this machine.
    """
    if recipe.precision == "float16" and not on_gpu():
        raise ValueError("precision: float16 needs a GPU; take bfloat16, float32 or auto")
    if train.empty:
        raise DataError("there is no training pair: give more pairs, or smaller shares")
    kind = LOSSES[recipe.loss][1]
    for pairs in (stage_pairs(train, size, recipe.seed) for size in dict.fromkeys(sizes)):
        positive = pairs["label"] >= POSITIVE
        alike = pairs["label"].nunique() == 1 and not (kind == "positives" and positive.all())
        if alike or (recipe.hard_negatives and positive.nunique() == 1):
            have, other = ("positive", 0) if positive.iloc[0] else ("negative", 1)
            raise DataError(
                f"{len(pairs):,} training pairs are all {have}: add pairs with label {other} to "
                "tell them apart"
            )
        for part in (pairs.head(SAMPLE), pairs) if recipe.hard_negatives else (pairs,):
            try:
                made = with_mined(part, recipe)[0]
                training_rows(made, kind)
                break
            except ValueError as error:
                if len(part) == len(pairs):
                    raise DataError(str(error)) from error
        if recipe.teacher:
            known_scores(recipe.teacher, made, origin, recipe.seed)
    if recipe.lexical_pairs:  # fitted as the warm-up will; what a part allows, the whole does
        try:
            NgramRegression(recipe.seed).fit(train.head(SAMPLE))
        except ValueError:
            NgramRegression(recipe.seed).fit(train)


def origin_of(run_dir: str | Path) -> Origin:
    """The file that a run's pairs were read from, and its columns; `NOWHERE` for the Hub."""
    manifest = read_manifest(run_dir)
    source = str(manifest["source"])
    return NOWHERE if source.startswith("hub:") else (source, manifest["columns"])


def known_scores(
    teacher: str, pairs: pd.DataFrame, origin: Origin = NOWHERE, seed: int = 42
) -> np.ndarray | None:
    """What a loss learns in place of the labels, float of shape (pairs,); None if a model knows it.

    Args:
        teacher: a scorer of the ladder that is made from pairs alone, such as `ngram_regression`;
            a column of the file; or a model or run.
        pairs: columns `sentence_0`, `sentence_1`, `label`; a scorer is fitted on them.
        origin: the file that the pairs were read from, and the names of its columns.
        seed: of a scorer.

    Raises:
        DataError: there is no such teacher, or it has no score for a pair.
    """
    file, columns = origin
    if teacher in BASELINES:
        texts = tuple(dict.fromkeys([*pairs["sentence_0"], *pairs["sentence_1"]]))
        lists = [CandidateList("", texts, (0.0,) * len(texts))]
        scorer = BASELINES[teacher](train=pairs, lists=lists, seed=seed)
        if scorer is None:
            raise DataError(f"teacher: {teacher} is made from more than pairs; take another")
        return scorer.score(text_pairs(pairs)).astype(float)
    if file:
        names = dict(zip(COLUMNS, COLUMNS, strict=True)) | {**columns, "label": teacher}
        with suppress(PairsError):  # it has no such column
            return _column_scores(pairs, project_path(file), names)
    try:
        find_model(teacher)
    except ModelError as error:
        known = f"a scorer ({', '.join(BASELINES)}), a column of {file or 'a file'}"
        raise DataError(f"teacher {teacher!r} is neither {known}, nor a model: {error}") from None
    return None


def _column_scores(pairs: pd.DataFrame, file: Path, names: Mapping[str, str]) -> np.ndarray:
    """The numbers in the column that `names` has as `label`, for each of the pairs."""
    found: dict[Any, float] = {}
    for _, *texts, value in (row for row in file_records(file, names) if type(row) is tuple):
        with suppress(ValueError, TypeError, AttributeError):  # such a row is no pair either
            found[tuple(text.strip() for text in texts)] = float(value)
    scores = np.array([found.get(pair, math.nan) for pair in text_pairs(pairs)])
    if not (good := np.isfinite(scores)).all():
        raise DataError(
            f"teacher: column {names['label']!r} of {display_path(file)} has no number for "
            f"{(~good).sum():,} training pairs, the first of them "
            f"{text_pairs(pairs)[int(good.argmin())]}; pairs that hard_negatives and symmetric add "
            "need a scorer or a model as teacher"
        )
    return scores
