"""Checks of the exercises: a right answer is recognised, a wrong one is told what it confuses.

An exercise draws fresh random inputs each time it is checked, so that no answer can be written down
beforehand. It names the answers that misconceptions give: where a learner's function agrees with
one of them wherever it is wrong, the hint says which it is.
"""

import math
import runpy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from workbench.lessons.recording import lessons_folder

Function = Callable[..., Any]
NOT_WRITTEN = "not written yet"


class ExerciseError(ValueError):
    """There is no such exercise."""


class Verdict(NamedTuple):
    """Whether an answer is right, and what the learner reads."""

    right: bool
    message: str


@dataclass(frozen=True)
class Exercise:
    """What is asked, and which wrong answers have a name.

    Attributes:
        draw: makes the arguments of one trial from a random generator.
        right: the right answer.
        wrong: for each hint, the function that this misconception writes.
        measure: what is compared of an answer: `measure(function, *arguments)`.
        trials: the number of inputs.
        tolerance: the largest difference that counts as equal.
    """

    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    right: Function
    wrong: Mapping[str, Function]
    measure: Function = field(default=lambda function, *arguments: function(*arguments))
    trials: int = 30
    tolerance: float = 1e-6


EXERCISES: dict[str, Exercise] = {}


def check(number: str, answer: Function, seed: int | None = None) -> None:
    """Print whether the answer to an exercise is right, or a hint where it is not.

    Args:
        number: of the exercise, such as "3.1".
        answer: the function you wrote.
        seed: of the inputs; different ones each time if None.

    Example:
        >>> check("1.4", lambda first, second: 0.5, seed=1)  # doctest: +ELLIPSIS
        ✘ 1.4: for (...) the answer is ..., yours is 0.5000.
    """
    verdict = examine(number, answer, seed)
    print(f"{'✔' if verdict.right else '✘'} {number}: {verdict.message}")


def examine(number: str, answer: Function, seed: int | None = None) -> Verdict:
    """The verdict on an answer; see `check`.

    Raises:
        ExerciseError: there is no such exercise.
    """
    exercise, rng = find(number), np.random.default_rng(seed)
    trials = [exercise.draw(rng) for _ in range(exercise.trials)]
    found = [_outcome(exercise, answer, trial) for trial in trials]
    if isinstance(found[0], NotImplementedError):
        return Verdict(False, NOT_WRITTEN)
    wanted = [_outcome(exercise, exercise.right, trial) for trial in trials]
    same = [_equal(*pair, exercise.tolerance) for pair in zip(found, wanted, strict=True)]
    if all(same):
        return Verdict(True, f"right, on {len(trials)} random inputs.")
    failed = [place for place, right in enumerate(same) if not right]
    for hint, function in exercise.wrong.items():
        theirs = (_outcome(exercise, function, trials[place]) for place in failed)
        yours = (found[place] for place in failed)
        if all(map(_equal, yours, theirs, [exercise.tolerance] * len(failed))):
            return Verdict(False, hint)
    first = failed[0]
    return Verdict(
        False,
        f"for {_shown(trials[first])} the answer is {_shown(wanted[first])}, "
        f"yours is {_shown(found[first])}.",
    )


def find(number: str) -> Exercise:
    """The exercise of that number; those of a lesson are in `checks/` beside its source.

    Raises:
        ExerciseError: there is none.
    """
    file = lessons_folder() / f"checks/lesson_{number.partition('.')[0]}.py"
    if number not in EXERCISES and file.is_file():
        runpy.run_path(str(file))
    if number not in EXERCISES:
        raise ExerciseError(f"there is no exercise {number!r}; the first is '1.1'")
    return EXERCISES[number]


def exercise(number: str, draw: Function, right: Function, wrong: Any, **options: Any) -> None:
    """Register an exercise."""
    EXERCISES[number] = Exercise(draw, right, wrong, **options)


def _outcome(exercise: Exercise, function: Function, arguments: Iterable[Any]) -> Any:
    """What is measured of a function, or the error it raises."""
    try:
        with np.errstate(all="ignore"):
            return exercise.measure(function, *arguments)
    except Exception as error:
        return error


def _equal(first: Any, second: Any, tolerance: float) -> bool:
    if isinstance(first, Exception) or isinstance(second, Exception):
        return type(first) is type(second)
    if isinstance(first, set | str) or isinstance(second, set | str):
        return bool(first == second)
    try:
        left, right = (np.asarray(value, dtype=float) for value in (first, second))
    except (TypeError, ValueError):
        return False
    if left.shape != right.shape or (np.isfinite(left) != np.isfinite(right)).any():
        return False
    with np.errstate(invalid="ignore"):
        return bool(np.all((np.abs(left - right) <= tolerance) | ~np.isfinite(left)))


def _shown(value: Any) -> str:
    """A value on one line, cut where it is long."""
    if isinstance(value, Exception):
        return f"the error {type(value).__name__}: {value}"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4f}"
    with np.printoptions(precision=4, threshold=12):
        text = " ".join(str(value).split())
    return text if len(text) <= 160 else f"{text[:160]}…"
