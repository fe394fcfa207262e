"""Training without a notebook: for a cluster, or for several processes that `torchrun` starts."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from workbench.files import display_path, project_path
from workbench.parameters import load_parameters
from workbench.processes import is_main
from workbench.runs import RequestError, holding


def train_run(run_dir: str | Path, resume: bool = False) -> dict[str, Any]:
    """Train a run folder whose data is prepared, with its own parameters, as notebook 2 does.

    Started by `torchrun`, each process calls this; they share every batch equally.

    Args:
        run_dir: a run folder in which notebook 1 is done.
        resume: go on from the last checkpoint.

    Returns:
        The record of the last stage.

    Raises:
        RequestError: the folder is no run, or another process writes into it.
    """
    from workbench.card import SETTINGS, write_card
    from workbench.models import find_model
    from workbench.recipes import Recipe
    from workbench.training import fine_tune

    folder = project_path(run_dir)
    if not (folder / "data" / "manifest.json").is_file():
        raise RequestError(
            f"{run_dir} has no data: prepare it with `workbench run ... --name "
            f"{folder.name} --only 01`"
        )
    given = load_parameters(folder / "parameters.yaml").model_dump()
    recipe = Recipe.of(given)
    base = find_model(given["base_model"], given["base_revision"], given["fallback_model"])
    with holding(folder) if is_main() else nullcontext():
        record = fine_tune(
            display_path(folder), base, recipe, resume, snapshots=given["snapshots"],
            stages=given["stages"], checkpoint_steps=given["checkpoint_steps"],
        )  # fmt: skip
        if is_main():
            write_card(folder, **{name: given[name] for name in SETTINGS})
    return record
