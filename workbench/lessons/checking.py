"""Checks of the exercises: a right answer is recognised, a wrong one is told what it confuses.

An exercise draws fresh random inputs each time it is checked, so that no answer can be written down
beforehand. It names the answers that misconceptions give: where a learner's function agrees with
one of them wherever it is wrong, the hint says which it is.
"""

import math
import runpy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from workbench.lessons.recording import lessons_folder

Function = Callable[..., Any]


class Exercise(NamedTuple):
    """What is asked, and which wrong answers have a name."""

    draw: Callable[[np.random.Generator], tuple[Any, ...]]  # the arguments of one trial
    right: Function
    wrong: Mapping[str, Function]  # for each hint, what this misconception writes
    measure: Function = lambda function, *arguments: function(*arguments)  # what is compared
    parts: tuple[str, ...] = ()  # of what is compared, by name
    trials: int = 30
    tolerance: float = 1e-6  # the largest difference that counts as equal

    def outcome(self, function: Function, arguments: tuple[Any, ...]) -> Any:
        """What is measured of a function, or the error it raises."""
        try:
            with np.errstate(all="ignore"):
                return self.measure(function, *arguments)
        except Exception as error:
            return error


EXERCISES: dict[str, Exercise] = {}


class ExerciseError(ValueError):
    """There is no such exercise."""


class Verdict(NamedTuple):
    """Whether an answer is right, and what the learner reads."""

    right: bool
    message: str


def check(number: str, answer: Function, seed: int | None = None) -> None:
    """Print whether the function you wrote for an exercise is right, or a hint where it is not.

    Args:
        number: of the exercise, such as "3.1".
        answer: your function.
        seed: of the inputs; different ones each time if None.

    Example:
        >>> check("1.4", lambda first, second: 0.5, seed=1)  # doctest: +ELLIPSIS
        ✘ 1.4: for (...) the answer is ..., yours is 0.5000.
    """
    verdict = examine(number, answer, seed)
    print(f"{'✔' if verdict.right else '✘'} {number}: {verdict.message}")


def examine(number: str, answer: Function, seed: int | None = None) -> Verdict:
    """The verdict on an answer; arguments as of `check`, errors as of `find`."""
    asked, rng = find(number), np.random.default_rng(seed)
    trials = [asked.draw(rng) for _ in range(asked.trials)]
    found, wanted = ([asked.outcome(f, trial) for trial in trials] for f in (answer, asked.right))
    if isinstance(found[0], NotImplementedError):
        return Verdict(False, "not written yet")
    failed = [n for n, f in enumerate(found) if not _equal(f, wanted[n], asked.tolerance)]
    if not failed:
        return Verdict(True, f"right, on {len(trials)} random inputs.")
    for hint, function in asked.wrong.items():
        theirs = (asked.outcome(function, trials[n]) for n in failed)
        if all(_equal(found[n], t, asked.tolerance) for n, t in zip(failed, theirs, strict=True)):
            return Verdict(False, hint)
    given, right, yours = (each[failed[0]] for each in (trials, wanted, found))
    if not isinstance(yours, Exception):
        for part, one, other in zip(asked.parts, *map(np.ravel, (right, yours)), strict=False):
            if not _equal(one, other, asked.tolerance):
                wrong = f"{part}: it should be {_shown(one)}, yours is {_shown(other)}."
                return Verdict(False, wrong)
    said = f"for {_shown(given)} the answer is {_shown(right)}, yours is {_shown(yours)}."
    return Verdict(False, said)


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


def _equal(first: Any, second: Any, tolerance: float) -> bool:
    if isinstance(first, Exception) or isinstance(second, Exception):
        return type(first) is type(second)
    if isinstance(first, set | str) or isinstance(second, set | str):
        return bool(first == second)
    try:
        left, right = (np.asarray(value, dtype=float) for value in (first, second))
    except (TypeError, ValueError):
        return False
    same = left.shape == right.shape and (np.isfinite(left) == np.isfinite(right)).all()
    with np.errstate(invalid="ignore"):
        near = same and (np.abs(left - right) <= tolerance) | ~np.isfinite(left)
    return bool(np.all(near))


def _shown(value: Any) -> str:
    """A value on one line, cut where it is long."""
    if isinstance(value, Exception):
        return f"the error {type(value).__name__}: {value}"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4f}"
    with np.printoptions(precision=4, threshold=12):
        text = " ".join(str(value).split())
    return text if len(text) <= 160 else f"{text[:160]}…"
