"""Parts of a file made here: one after another, or by processes that end when this one does."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection

from workbench.interrupts import interrupts_held
from workbench.parts import Maker
from workbench.processes import core_count
from workbench.stream import Row

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
