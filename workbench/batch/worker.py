"""One run of a sweep in its own process, `python -m workbench.batch.worker`, and how to start it.

The job comes as a line of JSON on standard input. When that input ends, the process that started
this one is gone or wants it to end: the run is then stopped as by Ctrl-C, so that nothing goes on
training unseen and a resumed sweep finds the folder free.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

STOP_SECONDS = 60.0  # for a run to stop cleanly
LOCK_SECONDS = 60.0  # for the process of an earlier attempt to release the folder
Work = dict[str, Any]  # `parameters`, `run_dir`, `only` and `prepared`, see `run_chain`


class Worker:
    """A worker process with a job; its input stays open for as long as this process lives.

    It has its own session, so that a Ctrl-C at the terminal reaches only the sweep, which then
    stops its workers in good order.

    Args:
        work: the job.
        log: the file for what it prints.
        cores: for it to use.
        root: the project's folder, where it is started.
    """

    def __init__(self, work: Work, log: Path, cores: int, root: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        limits = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(cores))
        with log.open("a", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workbench.batch.worker"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=root,
                env={**limits, "TOKENIZERS_PARALLELISM": "false", **os.environ},
                start_new_session=True,
            )
        assert self.process.stdin is not None
        self.input = self.process.stdin
        self.input.write(json.dumps(work).encode() + b"\n")
        self.input.flush()

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """Close its input, at which it stops."""
        self.input.close()


def main() -> int:
    """Carry out the job, going on from an earlier attempt; an exit code as of `workbench run`."""
    # a sweep in the background of a script (`nohup ... &`) inherits that Ctrl-C is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()

    from workbench.batch.execute import run_chain
    from workbench.files import project_path
    from workbench.run_folder import ActError, RequestError
    from workbench.runs.parameters import check_parameters

    try:
        run_chain(
            check_parameters(job["parameters"]),
            job["run_dir"],
            job["only"],
            resume=(project_path(job["run_dir"]) / "parameters.yaml").is_file(),
            checked=True,
            prepared=job["prepared"],
            patience=LOCK_SECONDS,
        )
    except (RequestError, ActError, OSError, KeyboardInterrupt) as error:
        print(str(error) or "interrupted", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1
    return 0


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(STOP_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
