"""Several processes that train together: which one this is, and waiting for the others."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 30.0  # seconds in which a child that was told to stop may write a checkpoint


def core_count() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_count() -> int:
    """How many processes train together; 1 unless started by `torchrun` or the like."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes files; true where there is only one."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Return once every process is here; at once where there is only one."""
    if process_count() > 1:
        import torch
        from accelerate import PartialState

        # without a GPU it must be told so, or it takes each process for the only one
        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()


@contextmanager
def handing_on_sigterm(stopped: type[BaseException]) -> Iterator[None]:
    """Hand SIGTERM on to the child processes, so that a training there can write a checkpoint.

    A child that is not training ends at once. When it has ended or stopped, or after `PATIENCE`
    seconds, `stopped` is raised. Outside of the main thread, which alone gets signals, this does
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def hand_on(*_: Any) -> None:
        import psutil

        nonlocal told
        told = True
        for child in psutil.Process().children():
            child.terminate()
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def give_up(*_: Any) -> None:
        raise stopped

    before = [signal.signal(signal.SIGTERM, hand_on), signal.signal(signal.SIGALRM, give_up)]
    try:
        yield
    except Exception:
        if told:
            raise stopped from None
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for name, handler in zip((signal.SIGTERM, signal.SIGALRM), before, strict=True):
            signal.signal(name, handler)
    if told:
        raise stopped
