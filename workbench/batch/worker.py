"""One run of a sweep in its own process: `workbench run --supervised`, and how to start it.

Also what processes that were killed have left in the system's temporary folder.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

SCRATCH = "wb-"  # the names of private folders begin so
SCRATCH_SECONDS = 60.0  # after which such a folder is locked, or nobody's
STOP_SECONDS = 60.0  # for a run to stop cleanly
RELEASE_SECONDS = 60.0  # for the process of an earlier attempt to release the folder


class Worker:
    """A process that makes a prepared run; its input stays open for as long as this one lives.

    It has its own session, so that a Ctrl-C at the terminal reaches only the sweep. It is started
    in the project's folder with arguments of `workbench run`, a log for what it prints, and cores.
    """

    def __init__(self, arguments: list[str], log: Path, cores: int, root: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        limits = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(cores))
        with log.open("a", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workbench", "run", "--supervised", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=root,
                env={**limits, "TOKENIZERS_PARALLELISM": "false", **os.environ},
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """Close its input, at which it stops."""
        if self.process.stdin:
            self.process.stdin.close()


def stop_with_input() -> None:
    """Have this process stop as by Ctrl-C when its standard input ends.

    Whoever started it is then gone or wants it to end: nothing goes on training unseen, and a
    resumed sweep finds the folder free.
    """

    def wait_for_the_end() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(STOP_SECONDS)
        os._exit(1)

    # a sweep in the background of a script (`nohup ... &`) inherits that Ctrl-C is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=wait_for_the_end, daemon=True).start()


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A private folder in `/tmp`, locked while it is in use.

    It is there because the path of a kernel's socket may have only about 100 characters.
    """
    near = "/tmp" if os.path.isdir("/tmp") else None
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH, dir=near, ignore_cleanup_errors=True) as place,
        FileLock(f"{place}/.lock"),
    ):
        yield place


def remove_leftovers() -> None:
    """Remove the private folders of commands that were killed: nobody holds their lock."""
    for top in {"/tmp", tempfile.gettempdir()}:
        for place in Path(top).glob(f"{SCRATCH}*/"):
            with suppress(OSError):  # somebody else's, in use, or gone by now
                found = place.lstat()
                mine = found.st_uid == os.getuid() and not place.is_symlink()
                if mine and time.time() - found.st_mtime > SCRATCH_SECONDS:
                    with FileLock(place / ".lock", timeout=0):
                        shutil.rmtree(place)
