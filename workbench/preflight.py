"""Preflight: what would make a run fail, found before it starts, all of it at once.

No model is loaded and nothing is written. Rows are read for a second at most and the vocabulary is
judged on a sample of them; where that is not the whole file, the finding says so.
"""

import itertools
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from workbench import estimate as size
from workbench.checks import Finding, Rows, check_candidates, check_pairs, check_test_side
from workbench.files import display_path, project_path
from workbench.formats import COLUMNS
from workbench.models import (
    HubUnreachableError,
    ModelError,
    ModelLocation,
    find_model,
    hub_state,
    is_hub_name,
)
from workbench.parameters import Parameters
from workbench.recipes import Recipe, quick_in_bfloat16
from workbench.runs import ACTS, folder_problems

SAMPLE = 4000  # pairs that the vocabulary is judged on


class Preflight(NamedTuple):
    """Everything that was found, in the order of looking."""

    findings: list[Finding]

    @property
    def problems(self) -> list[Finding]:
        """What would make the run fail."""
        return [finding for finding in self.findings if finding.level == "problem"]


def preflight(
    parameters: Parameters,
    run_dir: str | Path,
    only: Sequence[str] = (),
    resume: bool = False,
    problems: Sequence[str] = (),
    trial: bool = False,
) -> Preflight:
    """Look at a request without carrying it out.

    Args:
        parameters: with sound values; of those that are not, the defaults (see `sound_parameters`).
        run_dir: where the run would go.
        only: acts that would run; empty for all.
        resume: whether an interrupted run would go on.
        problems: what is known already, one line each; told first.
        trial: train for two seconds to say how long it will take (loads torch and the model).
    """
    folder = project_path(run_dir)
    found = [Finding("problem", line) for line in problems]
    found += [Finding("problem", f"--only {act}: the notebooks are {', '.join(ACTS)}")
              for act in only if act not in ACTS]  # fmt: skip
    acts = [act for act in ACTS if not only or act in only]
    found += [Finding("problem", line)
              for line in folder_problems(parameters, folder, only, resume)]  # fmt: skip
    prepared = (folder / "data" / "test.parquet").is_file() and (resume or "01" not in acts)
    found += _writable(folder)
    rows = None
    for name in ("pairs", "test_pairs"):
        more, read = check_pairs(parameters, name, look=not prepared and "01" in acts)
        found += more
        rows = read if name == "pairs" else rows
    found += check_test_side(parameters, acts, rows, prepared, folder)
    found += check_candidates(parameters)
    more, location = _model(parameters)
    found += more
    if not any(finding.level == "problem" for finding in found) and rows and location:
        found += _vocabulary(location, rows)
        found += _size(parameters, rows, location, folder, trial)
    if parameters.precision == "bfloat16" and "02" in acts and not quick_in_bfloat16():
        text = "precision: bfloat16 is not quicker than float32 on this processor"
        found.append(Finding("warning", text, "use precision: auto"))
    return Preflight(found)


def _writable(folder: Path) -> list[Finding]:
    parent = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=parent):  # has no name where the system can do without
            return []
    except OSError as error:
        text = f"{display_path(parent)} cannot be written to ({error.strerror})"
        fix = "change its permissions, make room, or choose another --runs-dir"
        return [Finding("problem", text, fix)]


def _existing(folder: Path) -> Path:
    """The nearest folder at or above this one that is there."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _model(parameters: Parameters) -> tuple[list[Finding], ModelLocation | None]:
    name, revision, fallback = (
        parameters.base_model,
        parameters.base_revision,
        parameters.fallback_model,
    )
    try:
        if not is_hub_name(name):
            parent, _, rest = name.partition("/")
            inside = parent and rest and parent != "." and project_path(parent).is_dir()
            if inside and not project_path(name).is_dir():
                raise ModelError(f"base_model: there is no folder {name!r}")
            return [], find_model(name)
        if fallback and is_hub_name(fallback):
            raise ModelError(f"fallback_model {fallback!r} is on the Hub too, so it is none")
        state = hub_state(name, revision)
        if state == "reachable":
            text = f"base_model: {name} will be fetched from the Hub when the run starts"
            return [Finding("note", text)], None
        location = find_model(name, revision, fallback)
    except HubUnreachableError as error:
        return [Finding("problem", f"base_model: {error}")], None
    except (ModelError, OSError) as error:
        return [Finding("problem", str(error))], None
    if location.name != name:
        return [Finding("warning", f"base_model: {location}")], location
    return [], location


def _vocabulary(location: ModelLocation, rows: Rows) -> list[Finding]:
    import pandas as pd

    from workbench.coverage import repair_outlook, vocabulary_verdict
    from workbench.models import load_tokenizer

    chosen = rows.good
    if len(chosen) > SAMPLE:
        chosen = random.Random(0).sample(chosen, SAMPLE)
    pairs = pd.DataFrame(chosen, columns=["line", *COLUMNS])
    try:
        verdict = vocabulary_verdict(repair_outlook(pairs, pairs, load_tokenizer(location)))
    except ModelError as error:
        return [Finding("problem", f"base_model: {error}")]
    basis = "" if len(chosen) == len(rows.good) and rows.whole else (
        f" (on a sample of {len(chosen):,} pairs; notebook 1 says it of all)"
    )  # fmt: skip
    level = "note" if verdict["colour"] == "green" else "warning"
    text = f"vocabulary: {verdict['colour']}. {verdict['why']}{basis}"
    return [Finding(level, text, verdict["action"] if level == "warning" else "")]


def _size(
    parameters: Parameters, rows: Rows, location: ModelLocation, folder: Path, trial: bool
) -> list[Finding]:
    data_bytes = project_path(parameters.pairs).stat().st_size
    count = round(rows.estimated * len(rows.good) / (len(rows.good) + len(rows.bad)))
    model_bytes = size.weight_bytes(location.path)
    need = size.estimate(parameters, count, rows.positive_share, model_bytes, data_bytes)
    found = [
        Finding(
            "note",
            f"at most {need.pairs:,} training pairs an epoch, {need.steps:,} steps, "
            f"{size.in_words(need.kept)} on the disk ({size.in_words(need.disk)} while it trains)",
        )
    ]
    free = shutil.disk_usage(_existing(folder)).free
    if free < need.disk:
        text = (
            f"the disk of {display_path(_existing(folder))} has {size.in_words(free)} left, and "
            f"the run needs {size.in_words(need.disk)} for model and checkpoints"
        )
        fix = "make room, choose another --runs-dir, or ask for fewer snapshots"
        found.append(Finding("problem", text, fix))
    if trial:
        recipe = Recipe.of(parameters.model_dump())
        sample = list(itertools.islice(rows.good, SAMPLE))
        rate = size.trial_rate(location, recipe, sample)
        seconds = need.steps * parameters.batch_size / rate
        text = (
            f"training: about {size.duration(seconds)} here ({rate:.0f} pairs/s in a short trial)"
        )
        found.append(Finding("note", text))
    return found
