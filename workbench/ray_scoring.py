"""Parts of a file made over a Ray cluster with Ray Data; they are the same files as without.

All machines must see the project, the model and the folder of the parts under the same paths.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.files import replacing
from workbench.parts import Maker
from workbench.pool import CutShortError, Part
from workbench.ray_engine import RETRIES, connect
from workbench.stream import Row


class PartMaker:
    """An actor of Ray Data: makes the parts whose numbers it is given."""

    def __init__(self, make: Maker, spool: str) -> None:
        self.make, self.spool = make, Path(spool)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Numbers in, rows done out. A part made twice, after a death, is the same file."""
        return {"rows": [self.make(n, read_rows(self.spool, n)) for n in map(int, batch["number"])]}


def run_on_ray(
    make: Maker,
    missing: Iterator[Part],
    spool: Path,
    workers: int,
    address: str,
    add: Callable[[int], None],
) -> None:
    """Make parts on a Ray cluster; a process that dies is replaced, and its part made anew.

    Args:
        make: makes a part.
        missing: the parts to make.
        spool: where the rows of each are laid for the time of the work; every machine must see it.
        workers: actors, one core each.
        address: of a running cluster; empty to start one here.
        add: told the rows of each part that is made.

    Raises:
        EngineError: there is no Ray, or no such cluster.
        CutShortError: a part could not be made, or its processes were lost again and again.
    """
    shutil.rmtree(spool, ignore_errors=True)  # of a start that was killed
    numbers = [write_rows(spool, number, rows) for number, rows in missing]
    if not numbers:
        return
    ray = connect(address, workers)
    import ray.data  # noqa: F811

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        data = ray.data.from_items(
            [{"number": number} for number in numbers], override_num_blocks=len(numbers)
        )
        made = data.map_batches(
            PartMaker,
            fn_constructor_args=(replace(make, threads=1, scorer=None), str(spool)),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
        for row in made.iter_rows():
            add(int(row["rows"]))
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CutShortError(f"a part could not be made: {reason}") from error
    finally:
        ray.shutdown()
        shutil.rmtree(spool, ignore_errors=True)


def write_rows(spool: Path, number: int, rows: list[Row]) -> int:
    """Lay the rows of a part down for whoever will score them; returns the part's number."""
    with replacing(spool / f"{number}.parquet") as path, path.open("wb") as file:
        pq.write_table(pa.Table.from_pylist([row._asdict() for row in rows]), file)
    return number


def read_rows(spool: Path, number: int) -> list[Row]:
    """The rows of a part as `write_rows` laid them down."""
    with (spool / f"{number}.parquet").open("rb") as file:
        return [Row(**row) for row in pq.read_table(file).to_pylist()]
