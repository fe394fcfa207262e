"""Where runs of a sweep are made, and parts of a file scored: in processes here, or by Ray.

If the process that carries a task or an actor is killed, or its machine is lost, Ray starts it
again: a run goes on from its last checkpoint, and a part is scored again. All machines must see the
project, its inputs and the runs under the same paths.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workbench.files import FailedError, RequestError, project_root
from workbench.scoring.score_file import Part, PartWriter, Row

STOP_SECONDS = 60.0  # for a run to stop cleanly
RELEASE_SECONDS = 60.0  # for the process of an earlier attempt to release the folder
CONNECT_SECONDS = 5.0
STARTS = 3  # of a cluster here; on a busy machine Ray can take longer than it allows itself
RETRIES = 3  # of a task or a call whose process was lost; a run that failed is not tried again


class Worker(subprocess.Popen[bytes]):
    """A process of `workbench run`, whose input stays open for as long as this one lives.

    It has its own session, so that a Ctrl-C at the terminal reaches only the sweep.
    """

    def __init__(self, arguments: list[str], log: Path, cores: int, root: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        limits = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(cores))
        with log.open("a", encoding="utf-8") as output:
            super().__init__(
                [sys.executable, "-m", "workbench", "run", "--supervised", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=root,
                env={**limits, "TOKENIZERS_PARALLELISM": "false", **os.environ},
                start_new_session=True,
            )

    def stop(self) -> None:
        """Close its input, at which it stops."""
        if self.stdin:
            self.stdin.close()


def stop_with_input() -> None:
    """Have this process stop as by Ctrl-C when its input ends: nobody waits for it any more."""

    def wait_for_the_end() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(STOP_SECONDS)
        os._exit(1)

    # a sweep in the background of a script (`nohup ... &`) inherits that Ctrl-C is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=wait_for_the_end, daemon=True).start()


def check_cluster(address: str = "") -> None:
    """Refuse (`RequestError`) where Ray is not installed or nothing answers at a given address."""
    if find_spec("ray") is None:
        raise RequestError(
            "--engine ray needs Ray: pip install '.[cluster]' in the project's folder"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return  # one of Ray's own words, such as `auto`
    try:  # Ray itself would try for minutes
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RequestError(f"--engine ray: no cluster at {address!r} ({error})") from error


@contextmanager
def connected(address: str, slots: int) -> Iterator[Any]:
    """Ray, connected to a cluster; without an address to one started here with `slots` cores."""
    check_cluster(address)
    import ray

    # the cluster's processes use this very package, wherever they were started
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    options: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "ignore_reinit_error": True,
        "runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths))}},
    }
    if not address:
        options |= {"num_cpus": slots, "include_dashboard": False}
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(**options)
            break
        except Exception as error:  # many kinds: no cluster, another version, no room in /tmp
            ray.shutdown()
            what = f"no cluster at {address!r}" if address else "no cluster can be started"
            if address or attempt == STARTS or "timed out" not in str(error):
                raise RequestError(f"--engine ray: {what} ({error})") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def run_task(arguments: list[str], log: Path, root: Path) -> int:
    """One task: a worker process in the project's folder, waited for."""
    with Worker(arguments, log, 1, root) as worker:
        return worker.wait()


class Task:
    """A run as a Ray task, with `poll` and `stop` as a `Worker` has them."""

    def __init__(self, ray: Any, arguments: list[str], log: Path) -> None:
        # tried again only if the process or its machine is lost: an exit code is a result
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(run_task)
        self.ray, self.result = ray, remote.remote(arguments, log, project_root())

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        ready, _ = self.ray.wait([self.result], timeout=0)
        try:
            return int(self.ray.get(self.result)) if ready else None
        except self.ray.exceptions.RayError:  # cancelled, or lost more often than is retried
            return -9

    def stop(self) -> None:
        """Cancel the task; its worker process stops when the input from it ends."""
        self.ray.cancel(self.result, force=True)


class PartMaker:
    """An actor that writes parts; one written twice, after a lost process, is the same file."""

    def __init__(self, write: PartWriter) -> None:
        self.write = write

    def part(self, number: int, rows: list[Row]) -> int:
        """The rows written."""
        return self.write(number, rows)


def run_on_ray(
    write: PartWriter,
    missing: Iterator[Part],
    add: Callable[[int], None],
    workers: int,
    address: str = "",
) -> None:
    """Write the missing parts on a Ray cluster; `add` is called with the rows of each.

    Each worker is an actor with one core and one part under way, so that memory is flat. Without an
    address a cluster is started here.

    Raises:
        RequestError: there is no Ray, or no such cluster.
        FailedError: a part could not be written, or its processes were lost again and again.
    """
    with connected(address, workers) as ray:
        from ray.util import ActorPool

        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)(PartMaker)
        single = replace(write, threads=1, scorer=None)
        pool = ActorPool([actor.remote(single) for _ in range(workers)])
        try:
            for part in missing:
                if not pool.has_free():
                    add(pool.get_next_unordered())
                pool.submit(lambda actor, part: actor.part.remote(*part), part)
            while pool.has_next():
                add(pool.get_next_unordered())
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            text = f"a part could not be written: {reason}\nthe same command goes on"
            raise FailedError(text) from error
