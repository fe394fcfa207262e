"""One run of a sweep in its own process: `python -m workbench.batch.worker`, told over its input.

The first line of standard input is the job as JSON. When the input ends, whoever started this
process is gone or wants it to end: the run is then stopped as by Ctrl-C, so that nothing goes on
training unseen and a resumed sweep finds the folder free.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import Any

GRACE = 60.0  # seconds that a run has to stop cleanly
PATIENCE = 60.0  # seconds to wait for the process of an earlier attempt to let go of the folder


def main() -> int:
    """Carry out the job; the exit code is that of `workbench run`."""
    # a sweep in the background of a script (`nohup ... &`) hands on that Ctrl-C is to be ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    return carry_out(job)


def carry_out(job: dict[str, Any]) -> int:
    """Run the chain of a job, going on with what an earlier attempt has left.

    Args:
        job: `parameters`, `run_dir`, `only`, and `prepared` (see `run_chain`).
    """
    from workbench.batch.execute import run_chain
    from workbench.files import project_path
    from workbench.run_folder import ActError, RequestError
    from workbench.runs.parameters import check_parameters

    begun = (project_path(job["run_dir"]) / "parameters.yaml").is_file()
    try:
        run_chain(
            check_parameters(job["parameters"]),
            job["run_dir"],
            job["only"],
            resume=begun,
            checked=True,
            prepared=job["prepared"],
            patience=PATIENCE,
        )
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    except (ActError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    return 0


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
