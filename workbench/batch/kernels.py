"""The kernels that notebooks run in, each with its own folder and ready when its turn comes."""

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from workbench.files import project_root, scratch_folder
from workbench.machine import core_count
from workbench.run_folder import NOTEBOOKS, Terminated

AHEAD = 2  # kernels that wait, each with 0.5 GB
LAUNCH = (  # ipykernel ignores Ctrl-C outside cells, but not while it is being loaded
    "import runpy, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "runpy.run_module('ipykernel_launcher', run_name='__main__')"
)


def notebook(number: str) -> Path:
    """The file of the notebook of that number."""
    return project_root() / "notebooks" / f"{NOTEBOOKS[number]}.ipynb"


class Kernel(AbstractContextManager["Kernel"]):
    """A kernel of this very Python for one notebook, whatever Jupyter's paths say.

    It starts at once and loads the module that the notebook's metadata name: `workbench.loads`.
    """

    def __init__(self, source: Path) -> None:
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import AsyncKernelManager
        from jupyter_core.utils import run_sync

        # it logs an interrupt as an error when it is asked to end; what is wrong is raised here
        arguments = ["--IPKernelApp.log_level=50"]
        with suppress(ValueError, LookupError, TypeError):  # papermill refuses a broken notebook
            content = json.loads(source.read_text(encoding="utf-8"))
            module = str(content["metadata"]["workbench"]["loads"])
            lines = f"import {module}", f"del {module.partition('.')[0]}"
            arguments += [f"--IPKernelApp.exec_lines={line}" for line in lines]
        with ExitStack() as stack:
            place = stack.enter_context(scratch_folder())
            own = dict.fromkeys(("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_PATH"), place)
            self.manager = AsyncKernelManager(
                kernel_name="python3",
                kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
                connection_file=f"{place}/kernel.json",
                # Files instead of TCP ports: two kernels that start at once can get the same port.
                transport="ipc",
                ip=f"{place}/socket",
            )
            argv = [sys.executable, "-c", LAUNCH, "-f", "{connection_file}"]
            self.manager.kernel_spec.argv = argv  # type: ignore[union-attr]
            self.is_alive = run_sync(self.manager.is_alive)
            start = run_sync(self.manager.start_kernel)
            start(extra_arguments=arguments, cwd=str(source.parent), env=os.environ | own)
            # papermill ends neither kernel nor client of a manager that it was given
            client: Any = self.manager.client()
            vars(self.manager)["client"] = lambda: client
            stack.callback(client.stop_channels)
            self._end, self._opened = run_sync(self.manager.shutdown_kernel), stack.pop_all()

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Kill it; after an error, what is under way is interrupted first."""
        from jupyter_core.utils import ensure_event_loop

        loop = ensure_event_loop()
        if not loop.is_running():  # else it is that of a notebook in which all this is called
            for task in asyncio.all_tasks(loop):  # papermill's, if it was interrupted
                task.add_done_callback(lambda one: one.cancelled() or one.exception())
                task.cancel()
        with self._opened:
            self._end(now=kind is None)


class Kernels(AbstractContextManager["Kernels"]):
    """The kernels of notebooks: one at work, and those of the next that start meanwhile.

    None starts ahead where the work may not use all cores: others are at work there.
    """

    def __init__(self, numbers: Sequence[str]) -> None:
        self.numbers, self.started = list(numbers), dict[str, Kernel]()
        threads, cores = os.environ.get("OMP_NUM_THREADS", ""), core_count()
        alone = not threads.isdecimal() or int(threads) >= cores
        self.ahead = AHEAD if alone and cores > 1 else 0

    def take(self, number: str) -> Kernel:
        """The kernel of the notebook whose turn it is, while those of the next ones start."""
        kernel = self.started.pop(number, None) or Kernel(notebook(number))
        if not kernel.is_alive():  # it was ended while it waited, such as for memory
            with kernel:
                kernel = Kernel(notebook(number))
        place = self.numbers.index(number) + 1
        for one in self.numbers[place : place + self.ahead]:
            if one not in self.started:
                with suppress(Exception):  # if something is wrong, its own turn will say so
                    self.started[one] = Kernel(notebook(one))
        return kernel

    def __exit__(self, *_: Any) -> None:
        """End those whose turn has not come."""
        with ExitStack() as stack:
            for kernel in self.started.values():
                stack.enter_context(kernel)


@contextmanager
def sigterm_for_kernels() -> Iterator[None]:
    """Hand SIGTERM on to the kernels, where a training saves a checkpoint; raise `Terminated`."""
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    handed_on = []

    def hand_on(*_: Any) -> None:
        handed_on.extend(psutil.Process().children())
        for child in handed_on:
            child.terminate()

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if handed_on:  # in place of what the end of the kernel is to papermill
            raise Terminated
