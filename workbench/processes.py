"""Several processes that train together: which one this is, and waiting for the others."""

import os


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
