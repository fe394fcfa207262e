"""Score a file of any size into a folder of Parquet parts; memory stays flat, a kill loses nothing.

Part n holds the n-th stretch of the file's rows and takes its name only when it is whole, so the
same request after a kill makes only the parts that are missing. `_plan.json` holds the request, and
another request is refused. All other names begin with `_` or a dot, so that Parquet readers take
the folder as one table.
"""

import ctypes
import hashlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import TypedDict

from workbench import files
from workbench.data.pairs import Float32Array, TextPair
from workbench.data.readers import (
    BadRow,
    PairsError,
    bad_text,
    file_records,
    holds_objects,
    printable,
    suffix_of,
)
from workbench.files import display_path, project_path, sha256
from workbench.machine import core_count, interrupts_held
from workbench.models import find_model
from workbench.scoring.baselines import Scorer
from workbench.scoring.cross_encoder import CHECK_PAIRS, ONNX, ModelScorer
from workbench.scoring.export import EXPORTED, OnnxModel

LIST_FIELDS = ("candidates", "positive", "negative")
PLAN, DONE = "_plan.json", "_done.json"
NOTE = b"workbench"  # the key of a part's note in the metadata of its schema
EXAMPLES = 20  # bad rows that a plan names
MAX_PART_CHARACTERS = 2**26  # of the texts, which memory has to hold


class BulkError(ValueError):
    """The request is wrong; nothing was started."""


class ChangedError(RuntimeError):
    """The file was changed while it was read, so that the parts hold something of both."""


class CutShortError(RuntimeError):
    """The work was cut short; what is finished stays, and the same request goes on."""


class Row(NamedTuple):
    """A pair to score. `problem` says why it cannot be scored; a query's rows share a `group`."""

    line: int
    query: str
    candidate: str
    problem: str = ""
    group: int = 0


Part = tuple[int, list[Row]]


@dataclass(frozen=True)
class Job:
    """What is asked; a folder is continued only if all of it is the same.

    Attributes:
        model: as `find_model` takes it.
        source: the file of pairs, or of JSONL candidate lists.
        query_column: of a file of pairs.
        candidate_column: the same.
        backend: see `ModelScorer`; `auto` is decided once, on the first pairs of the file.
        max_length: tokens of a pair, at most the model's own, which None stands for.
        part_rows: rows of a part, or fewer if texts are very long; with `top_k` also more, since no
            query is cut in two.
        top_k: keep only the best candidates of each query: a list, or rows of equal first texts
            that follow one another; 0 for all.
    """

    model: str
    source: str
    query_column: str = "sentence_0"
    candidate_column: str = "sentence_1"
    backend: str = "auto"
    max_length: int | None = None
    part_rows: int = 10_000
    top_k: int = 0

    def rows(self) -> Iterator[Row]:
        """The rows of the source, in order.

        Raises:
            PairsError: the file cannot be read, or lacks a column.
        """
        path = project_path(self.source)
        if _holds_lists(path):
            yield from _rows_of_lists(path)
            return
        names = {"sentence_0": self.query_column, "sentence_1": self.candidate_column}
        group, query = 0, None
        for record in file_records(path, names):
            if isinstance(record, BadRow):  # it belongs to the query of the rows around it
                yield Row(record.line, "", "", str(record), group)
                continue
            line, first, second = record
            bad = bad_text(line, {self.query_column: first, self.candidate_column: second})
            if first != query and (bad is None or bad.column != self.query_column):
                group, query = group + 1, first
            yield _row(line, first, second, bad, group)

    def parts(self) -> Iterator[list[Row]]:
        """The rows of each part.

        Raises:
            PairsError: with `top_k`, a query has so much text that memory might not hold it.
        """
        part, characters = list[Row](), 0
        for row in self.rows():
            size = len(row.query) + len(row.candidate)
            full = len(part) >= self.part_rows or characters + size > MAX_PART_CHARACTERS
            if full and part and not (self.top_k and row.group == part[-1].group):
                yield part
                part, characters = [], 0
            elif characters > 4 * MAX_PART_CHARACTERS:
                raise PairsError(f"line {row.line}: the query has too much text for --top-k")
            part.append(row)
            characters += size
        if part:
            yield part


def _holds_lists(path: Path) -> bool:
    """Whether a file is JSONL whose first object has a `query` and lists."""
    if not holds_objects(path):
        return False
    records = itertools.islice(file_records(path, {"query": "query"}, LIST_FIELDS), 100)
    objects = (r for r in records if not isinstance(r, BadRow) or r.reason == "missing_column")
    return any(isinstance(value, list) for value in next(objects, ()))


def _rows_of_lists(path: Path) -> Iterator[Row]:
    for record in file_records(path, {"query": "query"}, LIST_FIELDS):
        if isinstance(record, BadRow):
            yield Row(record.line, "", "", str(record), record.line)
            continue
        line, query, *values = record
        lists = {n: v for n, v in zip(LIST_FIELDS, values, strict=True) if isinstance(v, list)}
        bad = bad_text(line, {"query": query})
        if bad or not lists:
            bad = bad or BadRow(line, "missing_column", LIST_FIELDS[0], query)
            yield _row(line, query, "", bad, line)
            continue
        for name, text in ((name, text) for name, texts in lists.items() for text in texts):
            yield _row(line, query, text, bad_text(line, {name: text}), line)


def _row(line: int, query: Any, candidate: Any, bad: BadRow | None, group: int) -> Row:
    if bad is None:
        return Row(line, query, candidate, "", group)
    query, candidate = ("" if text is None else printable(text) for text in (query, candidate))
    return Row(line, query, candidate, str(bad), group)


def open_scorer(job: Job, backend: str, threads: int = 0) -> Scorer:
    """The model of a job, with at most `threads` threads (0: one per core); ONNX needs no torch.

    Raises:
        ModelError, ExportedError, BackendError: there is no such model or backend here.
    """
    location = find_model(job.model)
    if backend in ONNX:
        return _OnnxScorer(OnnxModel(location.path, backend, threads), job.max_length)
    if threads:
        import torch

        torch.set_num_threads(threads)
    return ModelScorer.load(location, job.max_length, backend=backend)


@lru_cache(maxsize=1)  # a worker makes many parts with one model, whose SHA-256 the identity covers
def _loaded(identity: str, job: Job, backend: str, threads: int) -> Scorer:
    return open_scorer(job, backend, threads)


class _OnnxScorer:
    def __init__(self, model: OnnxModel, max_length: int | None) -> None:
        self.model, self.encoder = model, model.encoder(max_length)

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        return self.model.score(self.encoder.encode(pairs))


@dataclass
class Maker:
    """Makes the parts of a job in `folder`, each marked with the identity of job and inputs."""

    job: Job
    identity: str
    backend: str
    folder: str
    threads: int = 0
    scorer: Scorer | None = None

    def __call__(self, number: int, rows: list[Row]) -> int:
        """Score the rows and write them as the part of that number; returns their count."""
        scorer = self.scorer or _loaded(self.identity, self.job, self.backend, self.threads)
        frame = pd.DataFrame(rows, columns=list(Row._fields)).assign(score=np.float32(np.nan))
        sound = frame["problem"] == ""
        if sound.any():
            texts = frame.loc[sound, ["query", "candidate"]].itertuples(index=False, name=None)
            frame.loc[sound, "score"] = scorer.score(list(texts))
        lost = frame.loc[sound & frame["score"].isna(), "line"].astype(str)
        frame.loc[lost.index, "problem"] = "line " + lost + ": the model's score is NaN"
        bad = int(frame["score"].isna().sum())
        note = {"job": self.identity, "part": number, "rows": len(rows), "bad_rows": bad}
        table = part_table(frame, self.job.top_k)
        table = table.replace_schema_metadata({NOTE: json.dumps(note)})
        with files.replacing(self.file(number)) as path, path.open("wb") as file:
            pq.write_table(table, file)  # pyarrow cannot open every name that a file can have
        # The gaps that each part leaves in glibc's memory would add up.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
        return len(rows)

    def file(self, number: int) -> Path:
        """The file of the part of that number."""
        return Path(self.folder) / f"part-{number:06d}.parquet"

    def note(self, number: int) -> dict[str, Any]:
        """A part's own record, `rows` (of the source) and `bad_rows`; empty if it is not made."""
        try:
            if not self.file(number).is_file():
                return {}
            with self.file(number).open("rb") as file:
                note = dict(json.loads(pq.read_metadata(file).metadata[NOTE]))
            known = (note["job"], note["part"]) == (self.identity, number)
            return note if known and note["rows"] >= note["bad_rows"] >= 0 else {}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):  # cut off, another's
            return {}


def part_table(frame: pd.DataFrame, top_k: int = 0) -> pa.Table:
    """The rows of a part as they are written: all, or the best of each query by rank.

    Rows without a score (NaN) have null there and say why in `problem`; with `top_k` they come
    after the ranked ones of their query. Ties are ranked in the order of the file.

    Args:
        frame: a column for each field of `Row`, and `score`.
        top_k: see `Job`.
    """
    frame = frame.rename(columns={"query": "sentence_0", "candidate": "sentence_1"})
    frame["problem"] = frame["problem"].replace("", None)
    columns = {"line": pa.int64(), "sentence_0": pa.string(), "sentence_1": pa.string()}
    columns["score"] = pa.float32()
    if top_k:
        frame["rank"] = frame.groupby("group")["score"].rank("first", ascending=False)
        frame = frame[~(frame["rank"] > top_k)].sort_values(["group", "rank"], kind="stable")
        columns["rank"] = pa.int32()
    schema = pa.schema({**columns, "problem": pa.string()})
    return pa.Table.from_pandas(frame, schema, preserve_index=False)


def run_in_processes(
    make: Maker, missing: Iterator[Part], workers: int, add: Callable[[int], None]
) -> None:
    """Make parts in processes, at most two per process under way, so that memory is flat.

    Raises:
        CutShortError: one of the processes was killed.
    """
    make = replace(make, threads=max(1, core_count() // workers), scorer=None)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker)
    running: set[Future[int]] = set()
    with interrupts_held() as interrupts:
        try:
            for part in itertools.chain(missing, [None]):
                if part:  # a worker that this starts has Ctrl-C held back until `_start_worker`
                    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                    running.add(pool.submit(make, *part))
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                while len(running) >= (2 * workers if part else 1) and not interrupts:
                    done, running = wait(running, 0.1, FIRST_COMPLETED)
                    for one in done:
                        add(one.result())
                if interrupts:
                    raise interrupts[0]
        except BrokenProcessPool as error:
            raise CutShortError("a worker was killed (out of memory?)") from error
        except BaseException:
            for worker in active_children():
                worker.terminate()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


Runner = Callable[[Maker, Iterator[Part], int, Callable[[int], None]], None]


def score_file(
    job: Job, out: str | Path, workers: int = 1, run: Runner | None = None
) -> dict[str, Any]:
    """Score every row of a file into `out/part-000000.parquet` and so on, or continue with that.

    The parts, in order, hold the rows in order: `line` (of the file), `sentence_0`, `sentence_1`,
    `score` (the logit, float32), with `top_k` `rank` (from 1), and `problem`: null, or why the row
    has no score.

    Args:
        job: what to score, and by what.
        out: the folder; if it has parts of the same job, the others are made.
        workers: processes, each with its own model and its share of the cores.
        run: makes the parts, for example on a cluster; None for this machine.

    Returns:
        The record that `out/_done.json` holds: `rows`, `bad_rows` (with `bad_row_examples`),
        `parts`, `backend` (see `ModelScorer.backend_record`) and `seconds` (of this start).

    Raises:
        BulkError, PathError: the folder belongs to something else, is in use, or leads elsewhere.
        PairsError, ModelError, BackendError, ExportedError, EngineError: file, model, backend or
            cluster cannot be used.
        CutShortError: a worker was killed; what is finished stays.
        ChangedError: the file was changed while it was read.
    """
    from filelock import FileLock, Timeout

    if min(workers, job.part_rows) < 1 or job.top_k < 0:
        raise BulkError("workers and part rows must be 1 or more, top-k 0 or more")
    if job.max_length is not None and job.max_length < 8:
        raise BulkError(f"max-length is {job.max_length}; it must be 8 or more")
    folder, scorer = project_path(out), None
    files.refuse_links(folder)
    plan = _read_plan(folder)
    if plan is None:
        plan, scorer = _new_plan(job)
    elif changed := _changed(plan["asked"], _asked(job, plan["chosen"]["backend"])):
        raise BulkError(
            f"{display_path(folder)} was started with another request: {'; '.join(changed)}. Give "
            "another folder, or remove that one"
        )
    identity = hashlib.sha256(json.dumps(plan["asked"], sort_keys=True).encode()).hexdigest()
    make = Maker(job, identity, plan["chosen"]["backend"], str(folder), scorer=scorer)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            if (found := _read_plan(folder)) is None:
                files.write_json(folder / PLAN, plan)
            elif found != plan:
                raise BulkError(f"{display_path(folder)} has just been started by another process")
            return _score(make, plan, workers, run)
    except Timeout as error:
        raise BulkError(f"{display_path(folder)}: another process is writing there") from error
    except PermissionError as error:
        raise BulkError(f"{display_path(folder)} cannot be written to ({error})") from error


def _score(make: Maker, plan: dict[str, Any], workers: int, run: Runner | None) -> dict[str, Any]:
    from tqdm import tqdm

    folder, start = Path(make.folder), time.monotonic()
    counts: list[int] = []  # rows of each part, as the file is now
    for stale in folder.glob(".*.tmp"):  # of a process that was killed
        stale.unlink()

    def missing() -> Iterator[Part]:
        for number, rows in enumerate(make.job.parts()):
            counts.append(len(rows))
            if make.note(number):
                bar.initial += len(rows)
                bar.update(len(rows))
            else:
                yield number, rows

    every = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm(total=plan["rows"], unit="rows", mininterval=every, delay=every, smoothing=0) as bar:
        if run:
            run(make, missing(), workers, bar.update)
        elif workers > 1:
            run_in_processes(make, missing(), workers, bar.update)
        else:
            for part in missing():
                bar.update(make(*part))
    notes = [make.note(number) for number in range(len(counts))]
    written = sum(note.get("rows", 0) for note in notes)
    digest = sha256(project_path(make.job.source))
    if not written == sum(counts) == plan["rows"] or digest != plan["asked"]["source"]["sha256"]:
        raise ChangedError(
            f"{plan['source']} was changed while it was read; remove "
            f"{display_path(folder)} and start again"
        )
    record = {
        "rows": written,
        "bad_rows": sum(note["bad_rows"] for note in notes),
        "bad_row_examples": plan["bad_row_examples"],
        "parts": len(notes),
        "backend": plan["chosen"],
        "seconds": round(time.monotonic() - start, 3),
    }
    files.write_json(folder / DONE, record)
    return record


class _Chosen(TypedDict):
    backend: str


class _Plan(TypedDict):
    asked: dict[str, Any]
    source: str
    rows: int
    bad_rows: int
    bad_row_examples: list[str]
    chosen: _Chosen


def _read_plan(folder: Path) -> dict[str, Any] | None:
    """The plan in a folder; None if the folder is empty or not there."""
    near = next(path for path in (folder, *folder.parents) if path.exists())
    if not near.is_dir():
        raise BulkError(f"{display_path(near)} is no folder")
    if not os.access(near, os.W_OK | os.X_OK):
        raise BulkError(f"{display_path(near)} cannot be written to; give another folder")
    if (folder / PLAN).is_file():
        return dict(files.read_json(folder / PLAN, _Plan))
    if others := sorted(path.name for path in folder.glob("*") if path.name[0] != "."):
        raise BulkError(
            f"{display_path(folder)} holds something else ({others[0]}); give another folder"
        )
    return None


def _asked(job: Job, backend: str) -> dict[str, Any]:
    """All that the parts of this backend depend on, as plain values."""
    model, file = find_model(job.model).path, project_path(job.source)
    if not file.is_file():
        next(job.rows())  # raises the error that says so
    names = ("*.safetensors", "*.json", EXPORTED.get(backend, "*.json"))
    paths = sorted({path for name in names for path in model.glob(name)})
    return {
        "schema": 1,
        **asdict(job),
        "model": {str(path.relative_to(model)): sha256(path) for path in paths},
        "source": {"kind": "".join(suffix_of(file)), "sha256": sha256(file)},
    }


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, one phrase each."""
    found = []
    for name, value in now.items():
        was = before.get(name)
        if isinstance(value, dict) and isinstance(was, dict) and was != value:
            keys = [key for key in {**was, **value} if was.get(key) != value.get(key)]
            found.append(f"{name} had another {', '.join(keys)}")
        elif was != value:
            found.append(f"{name} was {was!r} and is {value!r} now")
    return found


def _new_plan(job: Job) -> tuple[dict[str, Any], Scorer]:
    """Read the file once, and choose the backend on its first pairs.

    Raises:
        PairsError: the file has no row that can be scored, or is damaged.
    """
    rows, bad, examples, first = 0, 0, list[str](), dict[TextPair, None]()
    for row in job.rows():
        rows, bad = rows + 1, bad + bool(row.problem)
        if row.problem and bad <= EXAMPLES:
            examples.append(row.problem)
        elif not row.problem and len(first) <= CHECK_PAIRS:
            first[row.query, row.candidate] = None
    shown = printable(display_path(job.source))
    if not first:
        why = f"; the first problem is at {examples[0]}" if examples else ""
        raise PairsError(f"{shown}: no pair in it that can be scored{why}")
    scorer, chosen = open_scorer(job, job.backend), {"backend": job.backend, "asked": job.backend}
    if isinstance(scorer, ModelScorer) and job.backend == "auto":
        scorer.expect(rows)
        scorer.score(list(first))
        chosen = scorer.backend_record
    plan = {
        "schema": 1,
        "asked": _asked(job, chosen["backend"]),
        "model": job.model,
        "source": shown,
        "rows": rows,
        "bad_rows": bad,
        "bad_row_examples": examples,
        "chosen": chosen,
    }
    return plan, scorer
