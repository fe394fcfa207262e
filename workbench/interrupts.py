"""What Ctrl-C raises, held back while the main thread shares locks with other threads."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any


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
