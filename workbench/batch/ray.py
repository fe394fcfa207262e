"""Runs of a sweep as tasks on a Ray cluster, one here or one that is there already.

A task starts the same worker process as the local engine does. If the process that carries a task
is killed, or its machine is lost, Ray starts the task again, and the run goes on from its last
checkpoint. All machines must see the project, its inputs and the runs under the same paths.
"""

import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.batch.sweep import POLL, EngineError, Work, close_input, start_worker
from workbench.files import project_root, replacing
from workbench.scoring.score_file import CutShortError, Maker, Part, Row

ANSWER = 5.0  # seconds within which a cluster takes a connection


SPOOL = ".rows"
STARTS = 3  # of a cluster here; on a busy machine Ray can take longer than it allows itself


RETRIES = 3  # of a task or a part whose process was lost; a run that failed is not tried again


def unanswered(address: str) -> str:
    """Why nothing answers at `host:port`; empty if something does, or if it is no such address."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return ""  # Ray's own words, such as `auto`
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return ""


def check_cluster(address: str = "") -> None:
    """Make sure that Ray is installed and that something answers at an address, if one is given.

    Raises:
        EngineError: it is not so.
    """
    if find_spec("ray") is None:
        raise EngineError(
            "--engine ray needs Ray: pip install '.[cluster]' in the project's folder"
        )
    if problem := unanswered(address):  # Ray itself would try for minutes
        raise EngineError(f"--engine ray: no cluster at {address!r} ({problem})")


def connect(address: str, slots: int) -> Any:
    """Ray, connected to a cluster; without an address to one started here with so many slots.

    Raises:
        EngineError: Ray is not installed, or no cluster answers there.
    """
    check_cluster(address)
    import ray

    own: dict[str, Any] = {"num_cpus": slots, "include_dashboard": False}
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                ignore_reinit_error=True,
                runtime_env=same_package(),
                **({} if address else own),
            )
            break
        except Exception as error:  # many kinds: no cluster, another version, no room in /tmp
            ray.shutdown()
            if address:
                raise EngineError(f"--engine ray: no cluster at {address!r} ({error})") from error
            if attempt == STARTS or "timed out" not in str(error):
                raise EngineError(f"--engine ray: no cluster can be started ({error})") from error
    return ray


class RayEngine:
    """Runs jobs as Ray tasks, `slots` at a time.

    Args:
        slots: jobs at a time.
        address: of a running cluster, such as `auto` or `10.0.0.1:6379`; empty to start one here.

    Raises:
        EngineError: Ray is not installed, or no cluster answers there.
    """

    def __init__(self, slots: int = 1, address: str = "") -> None:
        self.slots, self.ray = slots, connect(address, slots)
        # Retried only if the process or its machine is lost: an exit code is an answer.
        self.carry_out = self.ray.remote(num_cpus=1, max_retries=RETRIES)(run_task)
        self.tasks: dict[Any, str] = {}

    def start(self, name: str, work: Work, log: Path) -> None:
        """Hand a task to the cluster."""
        self.tasks[self.carry_out.remote(work, str(log), str(project_root()))] = name

    def ended(self) -> dict[str, int]:
        """See `Engine`."""
        if not self.tasks:
            return {}
        ready, _ = self.ray.wait(list(self.tasks), num_returns=1, timeout=POLL)
        codes = {}
        for task in ready:
            try:
                code = self.ray.get(task)
            except self.ray.exceptions.RayError:  # cancelled, or lost more often than is retried
                code = -9
            codes[self.tasks.pop(task)] = code
        return codes

    def stop(self, name: str) -> None:
        """Cancel a task; its worker process stops when the input from it ends."""
        for task, other in self.tasks.items():
            if other == name:
                self.ray.cancel(task, force=True)

    def close(self) -> None:
        """Cancel all tasks and let go of the cluster; one that was started here ends with it."""
        for task in self.tasks:
            self.ray.cancel(task, force=True)
        self.tasks.clear()
        self.ray.shutdown()


def same_package() -> dict[str, Any]:
    """What makes the cluster's processes use this very package, wherever they were started."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths))}}


def run_task(work: Work, log: str, root: str) -> int:
    """One task: a worker process in the project's folder, waited for."""
    process = start_worker(work, Path(log), 1, Path(root))
    try:
        return process.wait()
    finally:
        close_input(process)


class PartMaker:
    """An actor of Ray Data: makes the parts whose numbers it is given."""

    def __init__(self, make: Maker, spool: str) -> None:
        self.make, self.spool = make, Path(spool)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Numbers in, rows done out. A part made twice, after a death, is the same file."""
        return {"rows": [self.make(n, read_rows(self.spool, n)) for n in map(int, batch["number"])]}


def run_on_ray(
    make: Maker,
    missing: Iterator[Part],
    workers: int,
    add: Callable[[int], None],
    address: str = "",
) -> None:
    """Make parts on a Ray cluster; a process that dies is replaced, and its part made anew.

    Args:
        make: makes a part.
        missing: the parts to make.
        workers: actors, one core each.
        add: told the rows of each part that is made.
        address: of a running cluster; empty to start one here.

    Raises:
        EngineError: there is no Ray, or no such cluster.
        CutShortError: a part could not be made, or its processes were lost again and again.
    """
    spool = Path(make.folder) / SPOOL  # rows of each part meanwhile; every machine must see it
    shutil.rmtree(spool, ignore_errors=True)  # of a start that was killed
    numbers = [write_rows(spool, number, rows) for number, rows in missing]
    if not numbers:
        return
    ray = connect(address, workers)
    import ray.data  # noqa: F811

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        data = ray.data.from_items(
            [{"number": number} for number in numbers], override_num_blocks=len(numbers)
        )
        made = data.map_batches(
            PartMaker,
            fn_constructor_args=(replace(make, threads=1, scorer=None), str(spool)),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
        for row in made.iter_rows():
            add(int(row["rows"]))
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CutShortError(f"a part could not be made: {reason}") from error
    finally:
        ray.shutdown()
        shutil.rmtree(spool, ignore_errors=True)


def write_rows(spool: Path, number: int, rows: list[Row]) -> int:
    """Lay the rows of a part down for whoever will score them; returns the part's number."""
    with replacing(spool / f"{number}.parquet") as path, path.open("wb") as file:
        pq.write_table(pa.Table.from_pylist([row._asdict() for row in rows]), file)
    return number


def read_rows(spool: Path, number: int) -> list[Row]:
    """The rows of a part as `write_rows` laid them down."""
    with (spool / f"{number}.parquet").open("rb") as file:
        return [Row(**row) for row in pq.read_table(file).to_pylist()]
