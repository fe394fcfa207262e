"""What this machine has: cores, threads, and whether its processor is fast in bfloat16."""

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
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
def quiet() -> Iterator[None]:
    """Silence warnings, and log messages below errors, within the block."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Let torch use `count` threads within the block (None: as before); yields the old count."""
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
    """Whether a model is trained faster in bfloat16 than in float32 here; a GPU says so itself.

    Of two processors with `avx512_bf16` one was 2.5 times as fast as in float32, the other half as
    fast, so a product of a model's size is timed.
    """
    import torch

    if on_gpu():
        return torch.cuda.is_bf16_supported()
    # an older torch does not say
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name) for name in CPU_BFLOAT16) and _gain_of_bfloat16() > LEAST_GAIN


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

    A handler runs between any two instructions of the main thread. If it raises just after a lock
    was taken, the lock stays taken and other threads wait forever; what it raises in a finalizer is
    lost. Pools of threads are full of both. Handlers never run in other threads.

    Yields:
        What was raised so far: once it is not empty, the block should come to its end.
    """
    raised = list[BaseException]()
    main = threading.current_thread() is threading.main_thread()  # others cannot set handlers
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {int(number): one for number, one in found.items() if main and callable(one)}

    def hold(number: int, frame: FrameType | None) -> None:
        try:
            handlers[number](number, frame)
        except BaseException as error:
            raised.append(error)

    try:
        for number in handlers:
            signal.signal(number, hold)
        yield raised
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if raised:
            raise raised[0]


def in_threads(threads: int, work: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Do `work` on each item, `threads` items at a time; after an interrupt none is begun."""
    with interrupts_held() as interrupts:

        def unless_interrupted(item: Any) -> None:
            if not interrupts:
                work(item)

        if threads == 1:
            list(map(unless_interrupted, items))
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(unless_interrupted, items))  # raises what `work` raised
