"""Checks of the exercises: a right answer is recognised, a wrong one is told what it confuses.

An exercise draws fresh random inputs each time it is checked, so that no answer can be written down
beforehand. It names the answers that misconceptions give: where a learner's function agrees with
one of them on all inputs, the hint says which it is.
"""

import copy
import math
import runpy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from workbench.files import RequestError
from workbench.lessons.recording import lessons_folder

Function = Callable[..., Any]
CHANGEABLE = (np.ndarray, np.random.Generator, list, dict, pd.DataFrame)


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
        """What is measured of a function, or the error it raises; it gets its own arguments."""
        given = (copy.deepcopy(a) if isinstance(a, CHANGEABLE) else a for a in arguments)
        try:
            with np.errstate(all="ignore"):
                return self.measure(function, *given)
        except Exception as error:
            return error


EXERCISES: dict[str, Exercise] = {}


class Verdict(NamedTuple):
    """Whether an answer is right, and what the learner reads."""

    right: bool
    message: str


def check(number: str, answer: Function, seed: int | None = None) -> None:
    """Print whether your function is the answer to an exercise, or a hint where it is not.

    The inputs are drawn by `seed`, and are others each time without one.

    Example:
        >>> check("1.4", lambda first, second: 0.5, seed=1)  # doctest: +ELLIPSIS
        ✘ 1.4: for (...) the answer is ..., yours is 0.5.
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
    # where the answer is right, a misconception may be right on the other side of it
    slack = [asked.tolerance * (1 if n in failed else 2) for n in range(len(trials))]
    for hint, function in asked.wrong.items():
        if all(map(_equal, found, (asked.outcome(function, trial) for trial in trials), slack)):
            return Verdict(False, hint)
    least = min(failed, key=lambda n: len(_shown(trials[n])))
    return Verdict(False, _difference(asked, trials[least], wanted[least], found[least]))


def _difference(asked: Exercise, given: tuple[Any, ...], right: Any, yours: Any) -> str:
    """What differs on one trial, as a learner can use it."""
    where = "" if asked.parts else f"for {_shown(given)} "
    if isinstance(yours, Exception):
        return f"{where}your function raises {type(yours).__name__}: {yours}"
    values = (np.ravel(np.array(value, dtype=object)) for value in (right, yours))
    for part, one, other in zip(asked.parts, *values, strict=False):
        if not _equal(one, other, asked.tolerance):
            if isinstance(one, bool | np.bool_):
                return f"this does not hold: {part}."
            return f"{part}: it should be {_shown(one)}, yours is {_shown(other)}."
    return f"{where}the answer is {_shown(right)}, yours is {_shown(yours)}."


def find(number: str) -> Exercise:
    """The exercise of that number; `RequestError` if there is none."""
    file = lessons_folder() / f"checks/lesson_{number.partition('.')[0]}.py"
    if number not in EXERCISES and file.is_file():
        runpy.run_path(str(file))
    if number not in EXERCISES:
        raise RequestError(f"there is no exercise {number!r}; the first is '1.1'")
    return EXERCISES[number]


def exercise(number: str, draw: Function, right: Function, wrong: Any, **options: Any) -> None:
    """Register an exercise."""
    EXERCISES[number] = Exercise(draw, right, wrong, **options)


def _equal(first: Any, second: Any, tolerance: float) -> bool:
    """Whether two outcomes are the same; an error of arithmetic counts as an infinite number."""
    infinite = ArithmeticError, ValueError
    first, second = (math.nan if isinstance(v, infinite) else v for v in (first, second))
    try:
        if isinstance(first, str) or isinstance(second, str):
            return bool(first == second)
        if isinstance(first, set) or isinstance(second, set):
            return set(first) == set(second)
        left, right = (np.asarray(value, dtype=float) for value in (first, second))
    except (TypeError, ValueError):
        return False
    left, right = (np.where(np.isfinite(value), value, 1e300) for value in (left, right))
    return left.shape == right.shape and np.allclose(left, right, rtol=0, atol=tolerance)


def _shown(value: Any) -> str:
    """A value on one line, to be read and copied; cut where it is long."""
    if value is None:
        return "nothing (is there a `return`?)"
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    if isinstance(value, float | np.ndarray):
        value = np.asarray(value)
        value = (np.round(value, 4) if value.dtype.kind == "f" else value).tolist()
    if not isinstance(value, str | int | float | list | dict | set | pd.DataFrame):
        return f"a {type(value).__name__}"
    text = repr(value) if isinstance(value, str) else " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:200]}…"
