"""Ctrl-C ends work that is shared among threads, and leaves no lock taken."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ROOT
from workbench.machine import in_threads, interrupts_held

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def handlers():
    """Those of the tests' own process, set again after each test."""
    before = [signal.getsignal(number) for number in SIGNALS]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def interrupted(seen, error=None):
    with interrupts_held() as raised:
        signal.raise_signal(signal.SIGINT)
        seen += [type(one) for one in raised]
        if error:
            raise error


def test_what_a_handler_raises_is_raised_at_the_end_of_the_block():
    seen = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(seen)
    assert seen == [KeyboardInterrupt]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_tells_more_than_the_error_that_it_led_to():
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted([], OSError("a worker is gone"))
    assert isinstance(caught.value.__context__, OSError)


def test_a_handler_that_raises_nothing_is_called_at_once():
    called = []

    def note(*_):
        called.append(1)

    signal.signal(signal.SIGTERM, note)
    with interrupts_held() as raised:
        signal.raise_signal(signal.SIGTERM)
        assert called == [1]
    assert raised == []
    assert signal.getsignal(signal.SIGTERM) is note


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_held() as raised:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
    assert raised == []


def test_another_thread_than_the_main_one_changes_nothing():
    def inside():
        with interrupts_held() as raised:
            return signal.getsignal(signal.SIGINT), raised

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() == (signal.default_int_handler, [])


def test_threads_leave_out_what_is_not_begun():
    started = []

    def work(item):
        started.append(item)
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 0.2)  # the main thread has time to see it

    with pytest.raises(KeyboardInterrupt):
        in_threads(2, work, range(50))
    assert 1 <= len(started) <= 4


UNLUCKY = """
import signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from workbench.machine import interrupts_held

enter, struck = threading.Condition.__enter__, []

def unlucky(self):
    entered = enter(self)
    if sys._getframe(1).f_code.co_name == "result" and not struck:
        struck.append(True)
        signal.raise_signal(signal.SIGINT)  # the lock is taken, and not yet to be given back
    return entered

threading.Condition.__enter__ = unlucky
try:
    with interrupts_held() if sys.argv[1] == "held" else nullcontext():
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(time.sleep, [0.1] * 10))
except KeyboardInterrupt:
    print("interrupted")
"""


def unlucky(how, seconds):
    return subprocess.run(
        [sys.executable, "-c", UNLUCKY, how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def test_a_pool_ends_though_the_signal_comes_while_a_lock_is_taken():
    assert unlucky("held", 60).stdout == "interrupted\n"
    with pytest.raises(subprocess.TimeoutExpired):  # what it is for
        unlucky("loose", 5)
