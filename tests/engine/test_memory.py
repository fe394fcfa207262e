"""What is free goes back to the system."""

import ctypes
import subprocess
import sys

import pytest

from workbench.scoring.score_file import give_back_freed

GAPS = """
import psutil
from workbench.memory import give_back_freed

blocks = [bytearray(100_000) for _ in range(2000)]
kept = blocks[::20]  # one in twenty stays, so that no end of the heap is free
del blocks
before = psutil.Process().memory_info().rss
give_back_freed()
print((before - psutil.Process().memory_info().rss) / 2**20)
assert all(not any(block[:9]) for block in kept)
"""


def test_gaps_between_what_is_in_use_are_given_back():
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("not glibc")
    found = subprocess.run([sys.executable, "-c", GAPS], capture_output=True, text=True, check=True)
    assert float(found.stdout) > 100  # MiB of 181 that were freed


def test_another_c_library_is_left_to_itself(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    give_back_freed()
