"""What this machine has: cores, processes, threads, and what its processor is quick in."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from types import FrameType
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


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Within the block an operation uses so many threads; None for as many as before.

    Yields how many those were.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # instructions of x86-64 and of ARM


WORTH_IT = 1.2  # the least gain over float32 for which training is made less exact


def on_gpu() -> bool:
    """Whether a model is trained on a GPU here."""
    import torch

    return torch.cuda.is_available()


def quick_in_bfloat16() -> bool:
    """Whether a model is trained faster in bfloat16 than in float32 here; a GPU says so itself."""
    import torch

    return torch.cuda.is_bf16_supported() if on_gpu() else processor_quick_in_bfloat16()


def processor_quick_in_bfloat16() -> bool:
    """Whether the processor multiplies matrices faster in bfloat16 than in float32.

    One without instructions of its own for bfloat16 is slower in it; with them it may be either:
    of two that name `avx512_bf16`, one was 2.5 times as fast as in float32, the other half as
    fast. So there, a product of a model's size is timed.
    """
    known = processor_capabilities()
    return any(known.get(name, False) for name in CPU_BFLOAT16) and _gain_of_bfloat16() > WORTH_IT


def processor_capabilities() -> Mapping[str, Any]:
    """What the processor can do, by torch's names; an older torch does not say."""
    import torch

    ask = getattr(torch.cpu, "get_capabilities", dict)
    known: Mapping[str, Any] = ask()
    return known


@cache
def _gain_of_bfloat16() -> float:
    """How many times as fast as in float32 a feed-forward layer's product is, in 30 ms."""
    import torch

    rows, weight = torch.zeros(1024, 384), torch.zeros(1536, 384)
    seconds: dict[torch.dtype, float] = {}
    with torch.inference_mode():
        for _ in range(6):  # in turns, and the best of each, so that other work hardly matters
            for dtype in (torch.float32, torch.bfloat16):
                left, right = rows.to(dtype), weight.to(dtype)
                start = time.perf_counter()
                torch.nn.functional.linear(left, right)
                took = time.perf_counter() - start
                seconds[dtype] = min(took, seconds.get(dtype, took))
    return seconds[torch.float32] / seconds[torch.bfloat16]


@contextmanager
def interrupts_held() -> Iterator[list[BaseException]]:
    """Raise what the handlers of SIGINT and SIGTERM raise at the end of the block only.

    A handler runs between any two instructions of the main thread. What it raises just after a
    lock was taken and before the block that frees it was entered (in `Condition.__enter__`)
    leaves the lock taken, and the threads that need it waiting for ever; what it raises in the
    finalizer of an object is lost. Pools of threads and of processes are full of both.

    Handlers are still called at once. In another thread than the main one, where none is called,
    nothing is changed.

    Yields:
        What was raised so far: where it is not empty, the block should come to its end.
    """
    raised = list[BaseException]()
    if threading.current_thread() is not threading.main_thread():
        yield raised
        return

    def hold(number: int, frame: FrameType | None) -> None:
        try:
            handlers[number](number, frame)
        except BaseException as error:
            raised.append(error)

    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {int(number): handler for number, handler in found.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, hold)
        yield raised
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if raised:
            raise raised[0]


def in_threads(threads: int, work: Callable[[Any, Sized], Any], items: Iterable[Any]) -> list[Any]:
    """What `work` gives for each item, in their order; so many items are worked on at a time.

    After Ctrl-C no item is begun any more.

    Args:
        threads: one or more.
        work: is given an item, and the interrupts so far: where there are any, it may stop. Within
            an outer block of `interrupts_held`, that one has them all.
        items: to be worked on.
    """
    with interrupts_held() as interrupts:

        def unless_interrupted(item: Any) -> Any:
            return None if interrupts else work(item, interrupts)

        if threads == 1:
            return list(map(unless_interrupted, items))
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(unless_interrupted, items))
