"""A search over parameters by Optuna: every trial is a run, judged by its figure on dev."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workbench.batch.sweep import Job, Search, last_row, make_jobs
from workbench.runs.parameters import Parameters

AGAIN = "instead of trial"  # number of the interrupted trial that another repeats


class SearchError(RuntimeError):
    """The search cannot be had; nothing was started."""


def check_optuna() -> None:
    """Make sure that Optuna is installed.

    Raises:
        SearchError: it is not.
    """
    if find_spec("optuna") is None:
        raise SearchError("search: install it with pip install 'optuna>=4'")


class OptunaSource:
    """Jobs that Optuna proposes, at most `slots` ahead of the results it has seen.

    `halving` is successive halving (Jamieson and Talwalkar, 2016) in Optuna's asynchronous form: of
    the runs that reach a rung, those below the best part are ended. Trials are kept in `study.log`;
    those that an interrupted sweep has left are proposed again, so that their runs go on.

    Args:
        search: what was asked for.
        shared: parameters that all runs share.
        folder: the sweep's.
        slots: trials that may be under way at once.
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
        seed = int(shared.get("seed", 42))
        samplers = {"random": optuna.samplers.RandomSampler}
        sampler = samplers.get(search.method, optuna.samplers.TPESampler)(seed=seed)
        halving = search.method == "halving"
        pruner: Any = optuna.pruners.NopPruner()
        if halving:
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / "study.log"))),
            study_name="sweep",
            load_if_exists=True,
            sampler=sampler,
            pruner=pruner,
            direction="maximize" if search.metric == "dev_ap" else "minimize",
        )
        for lost in self.study.get_trials(states=(self.states.RUNNING,)):
            self.study.tell(lost.number, state=self.states.FAIL)
            self.study.enqueue_trial(lost.params, user_attrs={AGAIN: lost.number})
        self.trials: dict[str, list[Any]] = {}
        self.told: dict[str, int] = {}

    def next(self) -> Job | None:
        """A new proposal; None while enough are under way, or when all trials are made."""
        finished = (self.states.COMPLETE, self.states.PRUNED)
        made = len(self.study.get_trials(deepcopy=False, states=finished))
        under_way = sum(map(len, self.trials.values()))
        if under_way >= self.slots or made + self._failed() + under_way >= self.search.trials:
            return None
        trial = self.study.ask()
        values = {name: self._suggest(trial, name) for name in self.search.space}
        (job,) = make_jobs(self.shared, [values])
        self.trials.setdefault(job.name, []).append(trial)
        return job

    def tell(self, job: Job, state: str, folder: Path) -> None:
        """Tell Optuna the figure on dev, or that there is none."""
        for trial in self.trials.pop(job.name, []):
            value = last_row(folder).get(self.search.metric)
            if state == "done" and value is not None:
                self.study.tell(trial, value)
            else:
                pruned = state == "pruned"
                ended = self.states.PRUNED if pruned else self.states.FAIL
                self.study.tell(trial, state=ended)

    def hopeless(self, job: Job, folder: Path) -> bool:
        """Whether successive halving ends a running job at the rung it has reached."""
        row, trials = last_row(folder), self.trials.get(job.name)
        step = int(row.get("step", 0))
        value = row.get(self.search.metric)
        if self.search.method != "halving" or not trials or value is None:
            return False
        if self.told.get(job.name) == step:
            return False
        self.told[job.name] = step
        rung = round(10 * step / max(1, int(row.get("steps", step))))  # tenths of the training
        trials[0].report(value, max(1, rung))
        return bool(trials[0].should_prune())

    def _failed(self) -> int:
        """Trials that failed: not made up for, or a sweep in which all fail would never end.

        One that was only interrupted, and is proposed again, is not among them.
        """
        trials = self.study.get_trials(deepcopy=False)
        again = sum(AGAIN in trial.user_attrs for trial in trials)
        return sum(trial.state == self.states.FAIL for trial in trials) - again

    def _suggest(self, trial: Any, name: str) -> Any:
        one = self.search.space[name]
        if one.choices is not None:
            return trial.suggest_categorical(name, one.choices)
        low, high = one.low or 0.0, one.high or 0.0
        if Parameters.model_fields[name].annotation is int:
            step = int(one.step or 1)
            return trial.suggest_int(name, int(low), int(high), step=step, log=one.log)
        return trial.suggest_float(name, low, high, step=one.step, log=one.log)
