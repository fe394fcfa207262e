"""The library's trainer, made to go on from a checkpoint bit for bit, and to stop when told to."""

import math
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoderTrainer
from transformers import TrainerCallback, TrainerControl, TrainerState

from workbench.checkpoints import TrainingStoppedError, last_checkpoint, prune, seal, step_of
from workbench.files import read_json, write_json
from workbench.processes import is_main, process_count, wait_for_all

PROGRESS = "progress.json"  # in a checkpoint: what the library forgets


class ResumableTrainer(CrossEncoderTrainer):
    """A trainer whose log, after a resumption, is that of a training without interruption.

    The library starts its sum of losses anew when it resumes, so its next log line and its mean
    over the training differ. Here the loss of each step is kept until it is logged and goes into
    the checkpoint. A checkpoint counts once it is whole; SIGTERM writes one and stops.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fresh: list[torch.Tensor] = []  # losses of this process, not yet shared
        self.pending: list[float] = []  # losses since the last log line, means over processes
        self.total = 0.0  # of all losses before those
        self.before: dict[str, Any] = {"seconds": 0.0, "processor_seconds": 0.0}
        self.started, self.processor_started = time.monotonic(), time.process_time()
        self.told_to_stop = False
        self.given: dict[str, Any] = {}  # the arguments as they were asked for
        self.add_callback(_StopWhenTold(self))

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: str | None = None, **kwargs: Any
    ) -> Any:
        """Train to the end, from the beginning or from a checkpoint.

        Raises:
            TrainingStoppedError: SIGTERM came; a checkpoint was written.
        """
        if resume_from_checkpoint:
            progress = read_json(Path(resume_from_checkpoint) / PROGRESS)
            self.pending, self.total = progress["pending"], progress["total"]
            self.before = progress["spent"]
        self.started, self.processor_started = time.monotonic(), time.process_time()
        with self._listening(), warnings.catch_warnings():
            # The reference recipe pins memory; without a GPU torch warns that this does nothing.
            warnings.filterwarnings("ignore", message=".*pin_memory", category=UserWarning)
            result = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        if self.told_to_stop:
            raise TrainingStoppedError(
                f"told to stop after step {self.state.global_step} of {self.state.max_steps}; "
                "the checkpoint is whole, resume goes on from it"
            )
        return result

    def seconds(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self.before["seconds"] + time.monotonic() - self.started

    def spent(self) -> dict[str, float]:
        """Seconds, and processor seconds of this process."""
        processor = time.process_time() - self.processor_started
        return {
            "seconds": self.seconds(),
            "processor_seconds": self.before["processor_seconds"] + processor,
        }

    def mean_loss(self) -> float:
        """The mean over all steps so far."""
        self._share()
        return math.fsum([self.total, *self.pending]) / max(1, self.state.global_step)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As the library's; the loss is remembered."""
        loss = super().training_step(*args, **kwargs)
        self.remember(loss)
        return loss

    def remember(self, loss: torch.Tensor) -> None:
        """Keep the loss of a step until it is logged."""
        self.fresh.append(loss.detach().clone())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the library's, with the mean loss since the last line, whatever happened between."""
        if "loss" in logs:
            self._share()
            if self.pending:
                logs["loss"] = math.fsum(self.pending) / len(self.pending)
            self.total, self.pending = math.fsum([self.total, *self.pending]), []
        super().log(logs, start_time)

    def _share(self) -> None:
        """Turn this process's losses into means over all processes."""
        if self.fresh:
            losses = torch.stack(self.fresh).float()
            if process_count() > 1:
                losses = self.accelerator.reduce(losses, reduction="mean")
            self.pending += losses.tolist()
            self.fresh = []

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint that counts once it is whole; remove what it makes superfluous."""
        folder = Path(str(self.args.output_dir))
        place = folder / f"checkpoint-{self.state.global_step}"
        self._share()
        try:
            if is_main():
                shutil.rmtree(place, ignore_errors=True)  # half of one, from a kill at this step
            wait_for_all()
            super()._save_checkpoint(model, trial)
            wait_for_all()  # each process writes its own random state
            if is_main():
                (place / "training_args.bin").unlink(missing_ok=True)  # a pickle; nobody reads it
                progress = {"pending": self.pending, "total": self.total,
                            "spent": self.spent()}  # fmt: skip
                write_json(place / PROGRESS, progress)
                seal(place)
                prune(folder)
        except Exception as error:
            shutil.rmtree(place, ignore_errors=True)  # it may be what fills the disk
            good = last_checkpoint(folder)
            state = f"that of step {step_of(good)} is whole" if good else "there is none before it"
            raise RuntimeError(
                f"the checkpoint of step {self.state.global_step} cannot be written to {folder} "
                f"({type(error).__name__}: {error}); {state}. Is the disk full?"
            ) from error

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Take SIGTERM as a wish to stop, where signals can be received: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(*_: Any) -> None:
            self.told_to_stop = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


class _StopWhenTold(TrainerCallback):
    """Has a checkpoint written and the training stopped, after the step that is under way."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """All processes stop at the same step, also if only one of them was told."""
        told = self.trainer.told_to_stop
        if process_count() > 1:
            flag = torch.tensor(float(told), device=args.device)
            told = bool(self.trainer.accelerator.reduce(flag, reduction="sum").item())
            self.trainer.told_to_stop = told
        if told:
            control.should_save = control.should_training_stop = True
