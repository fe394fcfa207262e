"""A search over parameters by Optuna: every trial is a run, judged by its figure on dev."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench.batch.plan import Job, Search, make_jobs
from workbench.run_folder import RunFolder
from workbench.runs.parameters import Parameters

AGAIN = "instead of trial"  # the number of the interrupted trial that another repeats


class OptunaSearch:
    """Jobs that Optuna proposes, at most `slots` ahead of the results it has seen.

    `halving` is successive halving (Jamieson and Talwalkar, 2016) in Optuna's asynchronous form: of
    the runs that reach a rung, those below the best part are ended. Trials are kept in `study.log`
    in the sweep's folder; those that an interrupted sweep has left are proposed again, so that
    their runs go on.
    """

    def __init__(
        self, search: Search, shared: Mapping[str, Any], folder: Path, slots: int = 1
    ) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.search, self.shared, self.slots = search, shared, slots
        self.states = optuna.trial.TrialState
        random, seed = search.method == "random", int(shared.get("seed", 42))
        sampler = optuna.samplers.RandomSampler if random else optuna.samplers.TPESampler
        pruner: Any = optuna.pruners.NopPruner()
        if search.method == "halving":
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / "study.log"))),
            study_name="sweep",
            load_if_exists=True,
            sampler=sampler(seed=seed),
            pruner=pruner,
            direction="maximize" if search.metric == "dev_ap" else "minimize",
        )
        for lost in self.study.get_trials(states=(self.states.RUNNING,)):
            self.study.tell(lost.number, state=self.states.FAIL)
            self.study.enqueue_trial(lost.params, user_attrs={AGAIN: lost.number})
        self.trials: dict[str, list[Any]] = {}  # under way, by the name of their job
        self.reported: dict[str, int] = {}  # the last step, by the name of the job

    def next(self) -> Job | None:
        """A new proposal; None while enough are under way, or when all trials are made.

        A failed trial is not made up for, or a sweep in which all fail would never end; one that
        was only interrupted and is proposed again does not count as failed.
        """
        trials = self.study.get_trials(deepcopy=False)
        made = sum(trial.state.is_finished() for trial in trials)
        made -= sum(AGAIN in trial.user_attrs for trial in trials)
        under_way = sum(map(len, self.trials.values()))
        if under_way >= self.slots or made + under_way >= self.search.trials:
            return None
        trial = self.study.ask()
        values = {name: self._suggest(trial, name) for name in self.search.space}
        (job,) = make_jobs(self.shared, [values])
        self.trials.setdefault(job.name, []).append(trial)
        return job

    def tell(self, job: Job, state: str, folder: Path) -> None:
        """Tell Optuna the figure on dev, or that there is none (`state` is not `done`)."""
        value = last_row(folder).get(self.search.metric)
        for trial in self.trials.pop(job.name, []):
            if state == "done" and value is not None:
                self.study.tell(trial, value)
            else:
                ended = self.states.PRUNED if state == "pruned" else self.states.FAIL
                self.study.tell(trial, state=ended)

    def hopeless(self, job: Job, folder: Path) -> bool:
        """Whether successive halving ends a running job at the rung it has reached."""
        if self.search.method != "halving":
            return False
        row, trials = last_row(folder), self.trials.get(job.name)
        step, value = int(row.get("step", 0)), row.get(self.search.metric)
        if not trials or value is None or self.reported.get(job.name) == step:
            return False
        self.reported[job.name] = step
        rung = round(10 * step / max(1, int(row.get("steps", step))))  # tenths of the training
        trials[0].report(value, max(1, rung))
        return bool(trials[0].should_prune())

    def _suggest(self, trial: Any, name: str) -> Any:
        one = self.search.space[name]
        if one.choices is not None:
            return trial.suggest_categorical(name, one.choices)
        low, high = one.low or 0.0, one.high or 0.0
        if Parameters.model_fields[name].annotation is int:
            return trial.suggest_int(
                name, int(low), int(high), step=int(one.step or 1), log=one.log
            )
        return trial.suggest_float(name, low, high, step=one.step, log=one.log)


def last_row(folder: Path) -> dict[str, Any]:
    """The last complete row of a training log that has a figure on dev; empty if there is none."""
    file = RunFolder(folder).training_log
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    for line in reversed(lines):
        with suppress(ValueError):  # half written
            row = dict(json.loads(line))
            if row.get("dev_ap") is not None:
                return row
    return {}
