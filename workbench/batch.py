"""The commands about many runs: `workbench sweep`."""

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.files import display_path, project_path, write_text
from workbench.parameters import ParameterError
from workbench.preflight import preflight
from workbench.runs import RequestError, fresh_folder, fresh_name, holding, name_problem
from workbench.sweep_plan import Job, Plan, SweepFile, read_plan
from workbench.yaml_files import read_settings

if TYPE_CHECKING:
    from workbench.engines import Engine


def sweep(options: argparse.Namespace) -> int:
    """Carry out, or with `--dry-run` describe, a sweep; the exit code."""
    from workbench.engines import EngineError
    from workbench.search import OptunaSource, SearchError, check_optuna
    from workbench.sweep_table import SweepTable, summary
    from workbench.sweeps import ListSource, Source, Sweep, read_sweep

    folder, file = _place(options)
    plan = read_plan(file, options.overrides)
    check_jobs(plan, folder, options.resume)
    if options.dry_run:
        describe(plan, folder)
        return 0
    try:
        if plan.search:
            check_optuna()
        engine = make_engine(options.engine, options.jobs, options.address)
    except (EngineError, SearchError) as error:
        raise RequestError(str(error)) from error
    import matplotlib.font_manager  # noqa: F401  # fills its cache, before many do at once

    try:
        with closing(engine):
            if not options.name:
                folder = fresh_folder(file.stem, options.runs_dir)
            with holding(folder):
                _check_folder(folder, options.resume)  # another process may have been here since
                keep_request(file, plan, folder)
                source: Source = ListSource(plan.jobs)
                earlier = None
                if plan.search:
                    if options.resume and (folder / "sweep.json").is_file():
                        earlier = read_sweep(folder)
                    source = OptunaSource(plan.search, plan.base, folder, options.jobs)
                with SweepTable(folder) as table:
                    record = Sweep(folder, source, engine, options.max_failures, table.show,
                                   earlier).run()  # fmt: skip
    except KeyboardInterrupt:
        print(f"stopped; go on with: workbench sweep --name {folder.name} --resume "
              f"--runs-dir {options.runs_dir}", file=sys.stderr)  # fmt: skip
        return 1
    print(f"{display_path(folder)}: {summary(record)}")
    return 0 if record["state"] == "done" else 1


def _place(options: argparse.Namespace) -> tuple[Path, Path]:
    """The sweep's folder and the file that describes it."""
    if options.name and (problem := name_problem(options.name)):
        raise RequestError(problem)
    if options.jobs < 1 or options.max_failures < 0:
        raise RequestError("--jobs must be 1 or more, --max-failures 0 or more")
    if options.resume and not options.name:
        raise RequestError("--resume: say which sweep with --name")
    if options.sweep is None and not options.resume:
        raise RequestError("SWEEP.yaml is missing (only --resume can do without)")
    stem = Path(options.sweep or "sweep").stem
    folder = project_path(options.runs_dir) / (options.name or fresh_name(stem, options.runs_dir))
    _check_folder(folder, options.resume)
    return folder, Path(options.sweep) if options.sweep else folder / "sweep.yaml"


def _check_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder that this sweep must not be written into."""
    shown, is_sweep = display_path(folder), (folder / "sweep.yaml").is_file()
    if is_sweep and not resume:
        raise RequestError(f"{shown} exists: choose another --name, or --resume it")
    if resume and not is_sweep:
        raise RequestError(f"{shown} does not exist, so it cannot be resumed")
    inside = folder.iterdir() if folder.is_dir() and not is_sweep else ()
    if folder.is_symlink() or any(path.name != ".lock" for path in inside):
        raise RequestError(f"{shown} is not a sweep's folder and not empty")


def check_jobs(plan: Plan, folder: Path, resume: bool) -> None:
    """Look at each distinct request of a plan; what is found is told once for all runs.

    Raises:
        ParameterError: with every problem of any run.
    """
    seen: dict[Any, Job] = {}
    looked_at = ("pairs", "test_pairs", "candidates", "base_model", "base_revision", "max_pairs",
                 "dev_share", "test_share", "snapshots", "label_column", "sentence_0_column",
                 "sentence_1_column", "on_bad_rows", "fallback_model")  # fmt: skip
    for job in plan.jobs:
        seen.setdefault(tuple(getattr(job.parameters, name) for name in looked_at), job)
    told: dict[str, None] = {}
    wrong: dict[str, None] = {}
    for job in seen.values():
        for one in preflight(job.parameters, folder / job.name, resume=False).findings:
            if one.level == "problem" and not (resume and "exists:" in one.text):
                wrong[str(one)] = None
            elif one.level == "warning":
                told[f"{one.level}: {one}"] = None
    print(*told, sep="\n" if told else "", end="\n" if told else "", flush=True)
    if wrong:
        raise ParameterError("\n".join(wrong))


def describe(plan: Plan, folder: Path) -> None:
    """Print what a sweep would do."""
    from workbench.catalog import done_runs

    known = done_runs(folder.parent) if folder.parent.is_dir() else {}
    trials = f", {plan.search.trials} trials by {plan.search.method}" if plan.search else ""
    print(f"{display_path(folder)}: {len(plan.jobs)} runs{trials}")
    for job in plan.jobs:
        values = ", ".join(f"{name}={value}" for name, value in job.values.items())
        found = known.get(job.identity)
        print(f"  {job.name}  {values}" + (f"  done: {display_path(found)}" if found else ""))
    print(f"notebook 1 runs {len({job.data for job in plan.jobs})} times, once for each data "
          "setting; nothing was started")  # fmt: skip


def keep_request(file: Path, plan: Plan, folder: Path) -> None:
    """Write `sweep.yaml`: the sweep file with everything that the runs share spelled out in it."""
    import yaml

    asked = SweepFile(**read_settings(file)).model_copy(
        update={"parameters": "", "base": plan.base}
    )
    values = asked.model_dump(exclude_defaults=True)
    write_text(folder / "sweep.yaml", yaml.safe_dump(values, allow_unicode=True, sort_keys=False))


def make_engine(name: str, slots: int, address: str = "") -> "Engine":
    """The engine of that name, `local` or `ray`.

    Raises:
        EngineError: it is not installed, or the cluster cannot be reached.
    """
    from workbench.engines import LocalEngine

    if name == "local":
        return LocalEngine(slots)
    from workbench.ray_engine import RayEngine

    return RayEngine(slots, address)
