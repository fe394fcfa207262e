"""What this machine has: cores, threads, and whether its processor is fast in bfloat16."""

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

CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # instructions of x86-64 and of ARM
LEAST_GAIN = 1.2  # over float32, for which training is made less exact


def core_count() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Have torch use `count` threads within the block (None: as before); yields the old count."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


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

    Without instructions for bfloat16 it is slower. With them it may be either: of two that have
    `avx512_bf16`, one was 2.5 times as fast as in float32, the other half as fast. So a product of
    a model's size is timed.
    """
    known = processor_capabilities()
    return any(known.get(name) for name in CPU_BFLOAT16) and _gain_of_bfloat16() > LEAST_GAIN


def processor_capabilities() -> Mapping[str, Any]:
    """What the processor can do, by torch's names; an older torch does not say."""
    import torch

    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return known


@cache
def _gain_of_bfloat16() -> float:
    """Seconds of a feed-forward layer's product in float32, over those in bfloat16."""
    import torch

    rows, weight = torch.zeros(1024, 384), torch.zeros(1536, 384)
    seconds: dict[torch.dtype, float] = {}
    with torch.inference_mode():
        for _ in range(6):  # alternating, and the best of each, so that other work hardly matters
            for dtype in (torch.float32, torch.bfloat16):
                left, right = rows.to(dtype), weight.to(dtype)
                start = time.perf_counter()
                torch.nn.functional.linear(left, right)
                took = time.perf_counter() - start
                seconds[dtype] = min(took, seconds.get(dtype, took))
    return seconds[torch.float32] / seconds[torch.bfloat16]


@contextmanager
def interrupts_held() -> Iterator[list[BaseException]]:
    """Raise what the handlers of SIGINT and SIGTERM raise only at the end of the block.

    A handler runs between any two instructions of the main thread. What it raises just after a
    lock was taken and before the block that frees it was entered leaves the lock taken, and the
    threads that need it waiting forever; what it raises in the finalizer of an object is lost.
    Pools of threads and of processes are full of both. In other threads nothing is changed, since
    no handler is called there.

    Yields:
        What was raised so far: once it is not empty, the block should come to its end.
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
    """The results of `work` for each item, in their order, `threads` items at a time.

    `work` is given an item and the interrupts so far: once there are any, it may stop, and no
    further item is begun. Within an outer block of `interrupts_held`, that one has them all.
    """
    with interrupts_held() as interrupts:

        def unless_interrupted(item: Any) -> Any:
            return None if interrupts else work(item, interrupts)

        if threads == 1:
            return list(map(unless_interrupted, items))
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(unless_interrupted, items))
