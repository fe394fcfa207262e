"""What a process has freed, given back to the system."""

import ctypes


def give_back_freed() -> None:
    """Have glibc's malloc give back what is free; other libraries are left to themselves.

    Each thread's memory has gaps of its own, and blocks that were kept at hand for the next ones of
    their size: in a process that works on one piece of a file after another they would add up.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(ctypes.c_size_t(0))
