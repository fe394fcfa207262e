"""Score a file of any size into a folder of Parquet parts: memory stays flat, a kill loses nothing.

Part n holds the n-th stretch of the file's rows and takes its name only when it is whole, so that
going on after a kill means making the parts that are not there. What was asked stands in
`_plan.json`, and a folder that was begun otherwise is refused. What is no part has a name that
begins with `_` or a dot, so that readers of Parquet take the folder as one table.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.backends import CHECK_PAIRS
from workbench.exported import EXPORTED
from workbench.files import display_path, project_path, read_json, refuse_links, sha256, write_json
from workbench.formats import PairsError, printable, suffix_of
from workbench.models import find_model
from workbench.parts import Job, Maker, open_scorer, part_note
from workbench.pool import Part, run_here, run_in_processes
from workbench.progress import Progress
from workbench.scoring import ModelScorer, Scorer

PLAN, DONE, SPOOL = "_plan.json", "_done.json", ".rows"
EXAMPLES = 20  # bad rows that a plan names
ENGINES = ("local", "ray")


class BulkError(ValueError):
    """The request is wrong; nothing was started."""


class ChangedError(RuntimeError):
    """The file was changed while it was read, so that the parts hold something of both."""


def score_file(
    job: Job, out: str | Path, workers: int = 1, engine: str = "local", address: str = ""
) -> dict[str, Any]:
    """Score every row of a file into `out/part-000000.parquet` and so on; or go on with that.

    The parts, in order, hold the rows in order: `line` (of the file), `sentence_0`, `sentence_1`,
    `score` (the logit, float32), with `top_k` `rank` (from 1), and `problem`: null, or why the row
    has no score.

    Args:
        job: what to score, and by what.
        out: the folder; if it has parts of the same job, the others are made.
        workers: processes, each with a model of its own and its share of the cores.
        engine: `local`, or `ray` for Ray Data.
        address: of a running Ray cluster; empty to start one here.

    Returns:
        The record that `out/_done.json` holds: `rows`, `bad_rows` (with `bad_row_examples`),
        `parts`, `backend` (see `ModelScorer.backend_record`) and `seconds` (of this start).

    Raises:
        BulkError: the folder belongs to something else, or is being written to.
        LinkError: a link in the folder leads elsewhere.
        PairsError, ModelError, BackendError, ExportedError, EngineError: what is asked for cannot
            be had.
        CutShortError: a worker was killed; what is finished stays.
        ChangedError: the file was changed while it was read.
    """
    from filelock import FileLock, Timeout

    if engine not in ENGINES or min(workers, job.part_rows) < 1 or job.top_k < 0:
        raise BulkError("engine must be local or ray, workers and part rows 1 or more, top-k 0 up")
    if job.max_length < 8:
        raise BulkError(f"max-length is {job.max_length}; it must be 8 or more")
    if engine == "ray":
        from workbench.ray_engine import check_cluster

        check_cluster(address)
    folder, source, scorer = project_path(out), project_path(job.source), None
    refuse_links(folder)
    stamp, plan = _stamp(source), _read_plan(folder)
    if plan is None:
        plan, scorer = _new_plan(job)
    elif changed := _changed(plan["asked"], _asked(job, plan["chosen"]["backend"])):
        raise BulkError(f"{display_path(folder)} was begun otherwise: {'; '.join(changed)}. Give "
                        "another folder, or remove that one")  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            found = _read_plan(folder)
            if found is None:
                write_json(folder / PLAN, plan)
            elif found != plan:  # another start was quicker
                raise BulkError(f"{display_path(folder)} has just been begun by another process")
            done = _finished(plan, folder)
            if done is None:
                make = Maker(job, _identity(plan), plan["chosen"]["backend"], str(folder),
                             scorer=scorer)  # fmt: skip
                done = _score(make, plan, workers, engine, address, stamp)
            return done
    except Timeout as error:
        raise BulkError(f"{display_path(folder)}: another process is writing there") from error


def _score(
    make: Maker, plan: dict[str, Any], workers: int, engine: str, address: str, stamp: object
) -> dict[str, Any]:
    job, folder = make.job, Path(make.folder)
    for stale in folder.glob(".*.tmp"):  # of a process that was killed
        stale.unlink()
    progress, counts = Progress(plan["rows"]), [0, 0]  # parts and rows that the source gives now

    def missing() -> Iterator[Part]:
        for number, rows in enumerate(job.parts()):
            counts[:] = number + 1, counts[1] + len(rows)
            note = part_note(folder, number)
            if (note.get("job"), note.get("part")) == (make.identity, number):
                progress.skip(len(rows))
            else:
                yield number, rows

    if engine == "ray":
        from workbench.ray_scoring import run_on_ray

        run_on_ray(make, missing(), folder / SPOOL, workers, address, progress.add)
    elif workers == 1:
        run_here(make, missing(), progress.add)
    else:
        run_in_processes(make, missing(), workers, progress.add)
    progress.close()
    notes = [part_note(folder, number) for number in range(counts[0])]
    written = sum(note.get("rows", 0) for note in notes)
    if not written == counts[1] == plan["rows"] or _stamp(project_path(job.source)) != stamp:
        raise ChangedError(f"{plan['source']} was changed while it was read; remove "
                           f"{display_path(folder)} and start again")  # fmt: skip
    record = {
        "rows": written,
        "bad_rows": sum(note["bad_rows"] for note in notes),
        "bad_row_examples": plan["bad_row_examples"],
        "parts": len(notes),
        "backend": plan["chosen"],
        "seconds": round(progress.seconds(), 3),
    }
    write_json(folder / DONE, record)
    return record


def _finished(plan: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """The record of a folder whose parts are all there; None if there is something left to do."""
    if not (folder / DONE).is_file():
        return None
    done, identity = dict(read_json(folder / DONE)), _identity(plan)
    notes = [part_note(folder, number) for number in range(done["parts"])]
    return done if all(note.get("job") == identity for note in notes) else None


def _identity(plan: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan["asked"], sort_keys=True).encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change: what differs if a file is written while it is read."""
    if not path.is_file():
        return 0, 0
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _read_plan(folder: Path) -> dict[str, Any] | None:
    """The plan in a folder; None if the folder is empty or not there.

    Raises:
        BulkError: the folder is something else.
    """
    try:
        near = next(path for path in (folder, *folder.parents) if path.exists())
        if not near.is_dir() or not os.access(near, os.W_OK):
            why = "cannot be written to" if near.is_dir() else "is no folder"
            raise BulkError(f"{display_path(near)} {why}")
        if near != folder:
            return None
        if (folder / PLAN).is_file():
            return dict(read_json(folder / PLAN))
        others = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
    except OSError as error:
        raise BulkError(f"{display_path(folder)}: {error.strerror}") from error
    except ValueError as error:
        raise BulkError(f"{display_path(folder / PLAN)} is damaged ({error})") from error
    if others:
        raise BulkError(f"{display_path(folder)} holds something else ({others[0]}); give another "
                        "folder")  # fmt: skip
    return None


def _asked(job: Job, backend: str) -> dict[str, Any]:
    """All that the parts depend on, as plain values, if they are made by this backend."""
    location, file = find_model(job.model), project_path(job.source)
    if not file.is_file():
        next(job.rows())  # says so
    names = [
        "*.safetensors",
        "config.json",
        "tokenizer*.json",
        *filter(None, [EXPORTED.get(backend)]),
    ]
    files = sorted(path for name in names for path in location.path.glob(name))
    return {
        "schema": 1,
        **asdict(job),
        "model": {str(path.relative_to(location.path)): sha256(path) for path in files},
        "source": {"kind": "".join(suffix_of(file)), "sha256": sha256(file)},
    }


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, one phrase each."""
    found = []
    for name, value in now.items():
        was = before.get(name)
        if was == value:
            continue
        if isinstance(value, dict) and isinstance(was, dict):
            parts = [key for key in {**was, **value} if was.get(key) != value.get(key)]
            found.append(f"{name} had another {', '.join(parts)}")
        else:
            found.append(f"{name} was {was!r} and is {value!r} now")
    return found


def _new_plan(job: Job) -> tuple[dict[str, Any], Scorer]:
    """Look through the file once, and choose the backend on its first pairs.

    Raises:
        PairsError: the file has no row that can be scored, or is damaged.
    """
    location = find_model(job.model)
    rows, bad, examples, first = 0, 0, list[str](), dict[tuple[str, str], None]()
    for row in job.rows():
        rows += 1
        if row.problem:
            bad += 1
            if bad <= EXAMPLES:
                examples.append(row.problem)
        elif len(first) <= CHECK_PAIRS:
            first[row.query, row.candidate] = None
    shown = printable(display_path(job.source))
    if not first:
        why = f"; the first problem is at {examples[0]}" if examples else ""
        raise PairsError(f"{shown}: no pair in it that can be scored{why}")
    scorer: Scorer
    chosen: dict[str, Any] = {"backend": job.backend, "asked": job.backend}
    if job.backend == "auto":
        scorer = ModelScorer.load(location, job.max_length, backend="auto")
        scorer.expect(rows)
        scorer.score(list(first))
        chosen = scorer.backend_record
    else:
        scorer = open_scorer(job, job.backend)
    asked = _asked(job, chosen["backend"])
    return {
        "schema": 1, "asked": asked, "model": job.model, "source": shown, "rows": rows,
        "bad_rows": bad, "bad_row_examples": examples, "chosen": chosen,
    }, scorer  # fmt: skip
