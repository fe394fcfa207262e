"""Score a file of any size into a folder of Parquet parts: memory stays flat, a kill loses nothing.

Part n holds the n-th stretch of the file's rows and takes its name only when it is whole, so that
going on after a kill means making the parts that are not there. What was asked stands in
`_plan.json`, and a folder that was begun otherwise is refused. What is no part has a name that
begins with `_` or a dot, so that readers of Parquet take the folder as one table.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.data.pairs import Float32Array, TextPair
from workbench.data.readers import (
    BadRow,
    PairsError,
    file_records,
    opened,
    printable,
    suffix_of,
    text_problem,
)
from workbench.engine.packing import PairEncoder
from workbench.files import (
    display_path,
    project_path,
    read_json,
    refuse_links,
    replacing,
    sha256,
    write_json,
)
from workbench.machine import core_count, interrupts_held
from workbench.models import find_model, load_tokenizer
from workbench.scoring.cross_encoder import (
    CHECK_PAIRS,
    ONNX,
    BackendError,
    ModelScorer,
    Scorer,
    distinct,
)
from workbench.scoring.export import EXPORTED, OnnxModel


def give_back_freed() -> None:
    """Have glibc's malloc give back what is free; other libraries are left to themselves.

    Each thread's memory has gaps of its own, and blocks that were kept at hand for the next ones of
    their size: in a process that works on one piece of a file after another they would add up.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(ctypes.c_size_t(0))


LISTS = ("candidates", "positive", "negative")  # the fields of a candidate list that hold texts


LOOKED_AT = 100  # lines, to tell lists from pairs


class Row(NamedTuple):
    """A pair to score, or what stands in its place.

    Attributes:
        line: where it stands in the file, from 1 (row, where a format has no lines).
        query: the first text.
        candidate: the second.
        problem: why it cannot be scored, with line, column and value; empty for a sound row.
        group: the same for all candidates of a query: those of one list, or rows of equal first
            texts that follow one another.
    """

    line: int
    query: str
    candidate: str
    problem: str = ""
    group: int = 0


def holds_lists(path: Path) -> bool:
    """Whether a file holds candidate lists: JSONL whose first object has a `query` and lists."""
    if suffix_of(path)[0] != ".jsonl":
        return False
    with opened(path) as file:
        for line in itertools.islice(file, LOOKED_AT):
            if row := _object(line):
                return isinstance(row.get("query"), str) and bool(_fields(row))
    return False


def text_rows(path: Path, query_column: str, candidate_column: str) -> Iterator[Row]:
    """The rows of a file of pairs, or of candidate lists (`holds_lists`), in the file's order.

    A row that cannot be scored stands in its place, with its problem and what can be shown of it.

    Raises:
        PairsError: the file cannot be read, or lacks a column.
    """
    if path.is_file() and holds_lists(path):
        yield from _list_rows(path)
        return
    group, query = 0, None
    for record in file_records(path, {"sentence_0": query_column, "sentence_1": candidate_column}):
        if isinstance(record, BadRow):  # it belongs to the query it stands among
            yield Row(record.line, "", "", str(record), group)
            continue
        line, first, second = record
        reason, value, column = text_problem(first), first, query_column
        if not reason and first != query:
            group, query = group + 1, first
        if not reason:
            reason, value, column = text_problem(second), second, candidate_column
        if reason:
            problem = str(BadRow(line, reason, column, printable(value)))
            yield Row(line, _shown(first), _shown(second), problem, group)
        else:
            yield Row(line, first, second, "", group)


def parts(rows: Iterable[Row], size: int, whole_queries: bool = False) -> Iterator[list[Row]]:
    """The rows in parts of `size`; with `whole_queries` larger ones, where a query needs it."""
    stream = iter(rows)
    if not whole_queries:
        while part := list(itertools.islice(stream, size)):
            yield part
        return
    part = []
    for row in stream:
        if len(part) >= size and row.group != part[-1].group:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _object(line: bytes) -> dict[str, object]:
    """A line as a JSON object; empty if it is none."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _fields(row: dict[str, object]) -> list[str]:
    return [name for name in LISTS if isinstance(row.get(name), list)]


def _shown(text: object) -> str:
    """A value as the text that stands in the output; nothing for one that is missing."""
    return printable("" if text is None else text)


def _list_rows(path: Path) -> Iterator[Row]:
    with opened(path) as file:
        for line, raw in enumerate(file, start=1):
            if raw.strip():
                yield from _rows_of_list(line, raw)


def _rows_of_list(line: int, raw: bytes) -> Iterator[Row]:
    row = _object(raw)
    shown = raw[:80].decode("utf-8", "backslashreplace").rstrip()
    if not row:
        yield Row(line, "", "", str(BadRow(line, "invalid_json", "", shown)), line)
        return
    query = row.get("query")
    if reason := text_problem(query):
        bad = BadRow(line, reason, "query", printable(query))
        yield Row(line, _shown(query), "", str(bad), line)
        return
    if not _fields(row):
        bad = BadRow(line, "missing_column", "candidates", shown)
        yield Row(line, _shown(query), "", str(bad), line)
    for field in _fields(row):
        texts = row[field]
        assert isinstance(texts, list)
        for text in texts:
            reason = text_problem(text)
            problem = str(BadRow(line, reason, field, printable(text))) if reason else ""
            yield Row(line, str(query), _shown(text), problem, line)


KEY = b"workbench"  # of what a part says about itself, among the metadata of its schema


@dataclass(frozen=True)
class Job:
    """What is asked; all of it must be the same for a folder to be gone on with.

    Attributes:
        model: as `find_model` takes it.
        source: the file of pairs or candidate lists.
        query_column: of a file of pairs.
        candidate_column: the same.
        backend: see `ModelScorer`; `auto` is decided once, on the first pairs of the file.
        max_length: tokens of a pair.
        part_rows: rows of a part; with `top_k` at least so many, since no query is cut in two.
        top_k: keep only the best so many candidates of each query (see `Row.group`); 0 for all.
    """

    model: str
    source: str
    query_column: str = "sentence_0"
    candidate_column: str = "sentence_1"
    backend: str = "auto"
    max_length: int = 512
    part_rows: int = 10_000
    top_k: int = 0

    def rows(self) -> Iterator[Row]:
        """The rows of the source, in order."""
        return text_rows(project_path(self.source), self.query_column, self.candidate_column)

    def parts(self) -> Iterator[list[Row]]:
        """The rows of each part."""
        return parts(self.rows(), self.part_rows, whole_queries=self.top_k > 0)


def open_scorer(job: Job, backend: str, threads: int = 0) -> Scorer:
    """The model of a job; torch is loaded only where the backend needs it.

    Args:
        job: says which model.
        backend: one of `BACKENDS`.
        threads: at most so many; 0 for as many as there are cores.

    Raises:
        ModelError, ExportedError, BackendError: the model or the backend cannot be had.
    """
    location = find_model(job.model)
    if backend not in ONNX:
        if threads:
            import torch

            torch.set_num_threads(threads)
        return ModelScorer.load(location, job.max_length, backend=backend)
    onnx = OnnxModel(location.path, backend, threads)
    longest = min(job.max_length, onnx.max_length)
    try:
        encoder = PairEncoder(load_tokenizer(location), longest, onnx.typed)
    except ValueError as error:
        raise BackendError(f"backend {backend!r}: {error}") from error
    return _OnnxScorer(onnx, encoder)


class _OnnxScorer:
    def __init__(self, model: OnnxModel, encoder: PairEncoder) -> None:
        self.model, self.encoder = model, encoder

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Logits of shape (n,); equal pairs are scored once."""
        once, places = distinct(pairs)
        return self.model.score(self.encoder.encode(once))[places]


@dataclass
class Maker:
    """Makes parts; it can be sent to another process, and loads the model there at first use.

    Attributes:
        job: what is asked.
        identity: of the job and its inputs, for the parts to carry.
        backend: the one that was chosen.
        folder: where parts go.
        threads: see `open_scorer`.
        scorer: the model, if it is loaded already.
    """

    job: Job
    identity: str
    backend: str
    folder: str
    threads: int = 0
    scorer: Scorer | None = None

    def __call__(self, number: int, rows: list[Row]) -> int:
        """Score the rows and write them as the part of that number; returns how many they are."""
        if self.scorer is None:
            self.scorer = open_scorer(self.job, self.backend, self.threads)
        sound = [place for place, row in enumerate(rows) if not row.problem]
        scores = np.full(len(rows), np.nan, dtype=np.float32)
        if sound:
            scores[sound] = self.scorer.score([(rows[n].query, rows[n].candidate) for n in sound])
        for place in sound:
            if np.isnan(scores[place]):
                row = rows[place]
                rows[place] = row._replace(problem=f"line {row.line}: the model's score is NaN")
        note = {
            "job": self.identity,
            "part": number,
            "rows": len(rows),
            "bad_rows": int(np.isnan(scores).sum()),
        }
        table = part_table(rows, scores, self.job.top_k)
        table = table.replace_schema_metadata({KEY: json.dumps(note)})
        with replacing(part_file(Path(self.folder), number)) as path, path.open("wb") as file:
            pq.write_table(table, file)  # pyarrow cannot open every name that a file can have
        del scores, table
        give_back_freed()
        return len(rows)


def part_file(folder: Path, number: int) -> Path:
    """Where the part of a number lies."""
    return folder / f"part-{number:06d}.parquet"


def part_note(folder: Path, number: int) -> dict[str, Any]:
    """What a part says about itself: `job`, `part`, `rows`, `bad_rows`; empty if it is not whole.

    `rows` are those of the source it was made from, of which `top_k` may have kept some.
    """
    try:
        with part_file(folder, number).open("rb") as file:
            return dict(json.loads(pq.read_metadata(file).metadata[KEY]))
    except (OSError, ValueError, LookupError, TypeError):  # absent, cut off, or of something else
        return {}


def part_table(rows: Sequence[Row], scores: Float32Array, top_k: int = 0) -> pa.Table:
    """The rows of a part as they are written: all, or the best of each query by rank.

    Rows without a score (NaN) have null there and say why in `problem`; with `top_k` they come
    after the ranked ones of their query. Ties are ranked in the order of the file.
    """
    order: list[int] = list(range(len(rows)))
    columns: dict[str, Any] = {}
    if top_k:
        order, ranks = [], []
        groups = itertools.groupby(range(len(rows)), lambda place: rows[place].group)
        for _, group in groups:
            places = list(group)
            unscored = [place for place in places if np.isnan(scores[place])]
            ranked = sorted(set(places) - set(unscored), key=lambda place: (-scores[place], place))
            best = ranked[:top_k]
            order += best + unscored
            ranks += [*range(1, len(best) + 1), *[None] * len(unscored)]
        columns["rank"] = pa.array(ranks, pa.int32())
    kept = [rows[place] for place in order]
    return pa.table(
        {
            "line": pa.array([row.line for row in kept], pa.int64()),
            "sentence_0": pa.array([row.query for row in kept], pa.string()),
            "sentence_1": pa.array([row.candidate for row in kept], pa.string()),
            "score": pa.array(scores[order], pa.float32(), from_pandas=True),
            **columns,
            "problem": pa.array([row.problem or None for row in kept], pa.string()),
        }
    )


Part = tuple[int, list[Row]]


PATIENCE = 0.1  # seconds until it is seen that Ctrl-C was pressed


class CutShortError(RuntimeError):
    """The work was cut short; what is finished stays, and the same request goes on."""


def run_here(make: Maker, missing: Iterator[Part], add: Callable[[int], None]) -> None:
    """Make parts one after another; `add` is told the rows of each."""
    for number, rows in missing:
        add(make(number, rows))


def run_in_processes(
    make: Maker, missing: Iterator[Part], workers: int, add: Callable[[int], None]
) -> None:
    """Make parts in processes, at most two a process under way, so that memory is flat.

    Raises:
        CutShortError: one of the processes was killed.
    """
    threads = max(1, core_count() // workers)
    theirs, lifeline = get_context("spawn").Pipe(duplex=False)
    given = (replace(make, threads=threads, scorer=None), theirs)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, given)
    running: set[Future[int]] = set()

    def collect(most: int) -> None:
        """Wait till no more than so many parts are under way."""
        nonlocal running
        while len(running) > most and not interrupts:
            done, running = wait(running, PATIENCE, FIRST_COMPLETED)
            for one in done:
                add(one.result())
        if interrupts:
            raise interrupts[0]

    with interrupts_held() as interrupts:
        try:
            for number, rows in missing:
                with _interrupts_wait():
                    running.add(pool.submit(_make, number, rows))  # this may start a process
                collect(2 * workers - 1)
            collect(0)
        except BrokenProcessPool as error:
            raise CutShortError("a worker was killed (out of memory?)") from error
        except BaseException:
            lifeline.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            lifeline.close()
            theirs.close()


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back, also in a process that is started meanwhile, till that lets it through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_maker: Maker | None = None  # of a worker process


def _start(make: Maker, lifeline: Connection) -> None:
    """Make ready a worker, which lives as long as the other end of `lifeline` is open."""
    global _maker
    _maker = make
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)  # nothing is ever sent: this returns when the other end is closed
    os._exit(1)


def _make(number: int, rows: list[Row]) -> int:
    assert _maker is not None
    return _maker(number, rows)


class Progress:
    """Tells rows done, rows a second and the time left on stderr.

    Args:
        total: rows in all; 0 if that is not known.
        every: seconds between two lines.
    """

    def __init__(self, total: int, every: float = 10.0) -> None:
        self.total, self.every = total, every
        self.renewed = sys.stderr.isatty()
        if self.renewed:
            self.every = min(every, 0.5)
        self.rows = self.made = 0
        self.start = self.last = time.monotonic()

    def skip(self, rows: int) -> None:
        """Count rows that an earlier start has done."""
        self.rows += rows

    def add(self, rows: int) -> None:
        """Count rows done now, and tell if it is time."""
        self.rows, self.made, now = self.rows + rows, self.made + rows, time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            line = self.line(self.seconds())
            print(
                f"\r{line:79}" if self.renewed else line,
                file=sys.stderr,
                end="" if self.renewed else "\n",
                flush=True,
            )

    def close(self) -> None:
        """End a line that renews itself."""
        if self.renewed and self.last > self.start:
            print(file=sys.stderr)

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def line(self, seconds: float) -> str:
        """Rows so far, rows a second since the start, and the time left."""
        rate = self.made / max(seconds, 1e-9)
        if not self.total:
            return f"{self.rows:,} rows, {rate:,.0f} rows/s"
        left = max(0, self.total - self.rows) / max(rate, 1e-9)
        shown = f"{left / 60:,.0f} min" if left >= 120 else f"{left:.0f} s"
        return f"{self.rows:,} of {self.total:,} rows, {rate:,.0f} rows/s, {shown} left"


PLAN, DONE = "_plan.json", "_done.json"


EXAMPLES = 20  # bad rows that a plan names


Runner = Callable[[Maker, Iterator[Part], int, Callable[[int], None]], None]


class BulkError(ValueError):
    """The request is wrong; nothing was started."""


class ChangedError(RuntimeError):
    """The file was changed while it was read, so that the parts hold something of both."""


def score_file(
    job: Job, out: str | Path, workers: int = 1, run: Runner | None = None
) -> dict[str, Any]:
    """Score every row of a file into `out/part-000000.parquet` and so on; or go on with that.

    The parts, in order, hold the rows in order: `line` (of the file), `sentence_0`, `sentence_1`,
    `score` (the logit, float32), with `top_k` `rank` (from 1), and `problem`: null, or why the row
    has no score.

    Args:
        job: what to score, and by what.
        out: the folder; if it has parts of the same job, the others are made.
        workers: processes, each with a model of its own and its share of the cores.
        run: makes the parts, for example on a cluster; None for this machine.

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

    if min(workers, job.part_rows) < 1 or job.top_k < 0:
        raise BulkError("workers and part rows must be 1 or more, top-k 0 or more")
    if job.max_length < 8:
        raise BulkError(f"max-length is {job.max_length}; it must be 8 or more")
    folder, source, scorer = project_path(out), project_path(job.source), None
    refuse_links(folder)
    stamp, plan = _stamp(source), _read_plan(folder)
    if plan is None:
        plan, scorer = _new_plan(job)
    elif changed := _changed(plan["asked"], _asked(job, plan["chosen"]["backend"])):
        raise BulkError(
            f"{display_path(folder)} was begun otherwise: {'; '.join(changed)}. Give "
            "another folder, or remove that one"
        )
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
                make = Maker(
                    job, _identity(plan), plan["chosen"]["backend"], str(folder), scorer=scorer
                )
                done = _score(make, plan, workers, run, stamp)
            return done
    except Timeout as error:
        raise BulkError(f"{display_path(folder)}: another process is writing there") from error


def _score(
    make: Maker, plan: dict[str, Any], workers: int, run: Runner | None, stamp: object
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

    if run:
        run(make, missing(), workers, progress.add)
    elif workers == 1:
        run_here(make, missing(), progress.add)
    else:
        run_in_processes(make, missing(), workers, progress.add)
    progress.close()
    notes = [part_note(folder, number) for number in range(counts[0])]
    written = sum(note.get("rows", 0) for note in notes)
    if not written == counts[1] == plan["rows"] or _stamp(project_path(job.source)) != stamp:
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
        raise BulkError(
            f"{display_path(folder)} holds something else ({others[0]}); give another folder"
        )
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
        "schema": 1,
        "asked": asked,
        "model": job.model,
        "source": shown,
        "rows": rows,
        "bad_rows": bad,
        "bad_row_examples": examples,
        "chosen": chosen,
    }, scorer
