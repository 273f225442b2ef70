"""Training: the loop, on a CPU or a GPU.

What a model is shown and what its loss is are its course's affair (`sepfast.training.course`).
What an epoch computes follows from the options, the songs, the state behind the epoch before and
nothing else: examples and dropout are seeded by (seed, epoch). A run that is resumed is the run
that was not interrupted, bit for bit on a CPU.

Under torchrun several processes train together, see `sepfast.training.processes`: each step is the
one that a single process takes, to rounding, but for dropout, which is each process's own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.fusion import fuse
from sepfast.reference import Model
from sepfast.training import stepping
from sepfast.training.board import Board, check_board
from sepfast.training.course import Batch, Course, Heard, Material
from sepfast.training.courses import course_for
from sepfast.training.folder import RunFolder, check_unused
from sepfast.training.graph import Step, graphed
from sepfast.training.history import Ended, Epoch, History, Report, Silent
from sepfast.training.listening import listening
from sepfast.training.lock import locked
from sepfast.training.options import UNSAID, TrainingOptions
from sepfast.training.processes import Processes, formed
from sepfast.training.record import write_record
from sepfast.training.spread import SpreadLoss, check_batch, synchronise
from sepfast.training.update import Update


def train(
    model: nn.Module,
    songs: Sequence[Heard],
    validation: Sequence[Heard],
    options: TrainingOptions,
    run_dir: PathLike,
    *,
    cache_dir: PathLike | None = None,
    device: str | None = None,
    resume: bool = False,
    report: Report | None = None,
    data: PathLike | None = None,
) -> History:
    """Train a model, or go on with it.

    Args:
        model: that `create_model` made, a DeepConvSep with its statistics set, a Denoiser with
            its separator attached, an Informed, or one of system D's; trained in place, and on a
            GPU with fused layers, which it keeps; on several, with statistics of batches that are
            those of all. What requires no gradient stays as it is.
        songs: what it learns from; for system D, `Talk`s.
        validation: what tells the best epoch; without any, the training loss does.
        options: the choices.
        run_dir: where the run is kept, see `sepfast.training.folder`.
        cache_dir: where what is made of songs is kept; None for the user's cache.
        device: where to train; None for the GPU where there is one, for each of several processes
            one of its own.
        resume: go on from the last whole epoch of the run in `run_dir`, with as many processes as
            there are now.
        report: is told how far it is.
        data: where the songs come from, to be kept in `run.json`.

    Returns:
        All epochs, earlier ones of a resumed run included. The model is that of the last; the
        best one is in `best.safetensors`.

    Raises:
        InputError: for a model, an option, a device or songs that cannot be used, a folder that
            has a run already or one that another process is at, a run that cannot be resumed, a
            loss that is not finite any more, or an error on the way, behind which it can be.
    """
    with formed(device) as group, ExitStack() as stack:
        report = report if report is not None and group.first else Silent()
        with group.together():
            check_batch(options.batch_size, group)
            course_of = course_for(model, options)
            assert isinstance(model, Model)  # no other has a course
            model = model.to(group.place(device))
            if _device(model).type == "cuda":
                fuse(model)
            synchronise(model, group)
            if options.tensorboard:
                check_board()
            update = Update(model, options)
            identity = _identity(course_of, model, songs, validation, options)
            folder = RunFolder(run_dir, identity, UNSAID, options.checkpoint_every, options.keep)
            if group.first:
                stack.enter_context(locked(run_dir, report.note))
            if resume:
                history = folder.restore(model, update)
            else:
                history = History()
                if group.first:
                    check_unused(run_dir)
            if group.first:
                folder.sweep()
        group.check_same((identity, len(history.epochs)))
        cache = None if cache_dir is None else Path(cache_dir)
        with group.in_turn():
            course = course_of(model, Material(songs, validation, options, cache, report))
        first, followers = len(history.epochs) + 1, list[Callable[[Epoch], None]]()
        with group.together():
            if group.first:
                board = None
                if options.tensorboard:
                    board = stack.enter_context(Board(folder.tensorboard, first))
                ear = listening(
                    model, course, validation, options.listen, folder.validation, board, report.note
                )
                followers = [each.epoch for each in (board, ear) if each is not None]
                if not resume:
                    folder.save(model, update, history)
                write_record(
                    folder.record, model, options, data, first, report.note,
                    resumed=resume, processes=group.size,
                )  # fmt: skip
        loop = _Loop(model, update, course, options, report, followers, group)
        with torch.random.fork_rng([loop.device] if loop.device.type == "cuda" else []):
            loop.run(history, folder)
    model.eval()
    return history


class _Loop:
    """The epochs of one call of `train`."""

    def __init__(
        self,
        model: Model,
        update: Update,
        course: Course[Any],
        options: TrainingOptions,
        report: Report,
        followers: Sequence[Callable[[Epoch], None]],
        group: Processes,
    ) -> None:
        self.model, self.update, self.options, self.report = model, update, options, report
        self.course, self.device, self.followers = course, _device(model), followers
        self.group, self.loss = group, SpreadLoss(model, course, group)
        self.deadline = time.monotonic() + (options.time_limit or math.inf)

    def run(self, history: History, folder: RunFolder) -> None:
        """Train until there is a reason to end, and keep every epoch."""
        step: Step = stepping.TrainingStep(self.model, self.update, self.loss)
        if self.options.cuda_graph:
            obstacle, note = self.update.obstacle, self.report.note
            if not self.group.alone:
                obstacle = "several processes share each step"
            step = graphed(step, self.update.optimizer, self.device, note, obstacle)
        updates = stepping.updates(step, self._batches(len(history.epochs) + 1))
        with _worker_errors():
            while not (ended := self._ended(history)):
                epoch = self._epoch(len(history.epochs) + 1, updates)
                history.epochs.append(epoch)
                # Before it is saved: what a saved epoch leaves is there.
                with self.group.together():
                    for follow in self.followers:
                        follow(epoch)
                    if self.group.first:
                        folder.save(self.model, self.update, history)
                self.report.epoch(epoch, history.best == epoch)
        history.ended = ended

    def _ended(self, history: History) -> Ended:
        done, best, patience = len(history.epochs), history.best, self.options.patience
        if done >= self.options.epochs:
            return "epochs"
        if best and patience and done - best.epoch >= patience:
            return "patience"
        return "time limit" if done and self._late() else ""

    def _late(self) -> bool:
        """Whether the time limit has passed, in any process."""
        late = time.monotonic() >= self.deadline
        return self.group.any(late) if self.options.time_limit else False

    def _batches(self, first: int) -> Iterator[Batch]:
        """The batches of all steps from an epoch on."""
        batches = stepping.batches(self.course, self.options, self.device, first)
        if self.group.alone:
            yield from batches
            return
        while True:
            with self.group.together(), _worker_errors():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _epoch(self, number: int, updates: Iterator[Tensor]) -> Epoch:
        began = time.monotonic()
        torch.manual_seed(_seed(self.options.seed, number, self.group.rank))
        rate = self.options.learning_rate_in(number)
        for group in self.update.optimizer.param_groups:
            group["lr"] = rate
        training, norm = self._train(number, updates)
        validation = self._validate(number) if self.course.validation else None
        return Epoch(number, training, validation, rate, time.monotonic() - began, norm)

    def _train(self, number: int, updates: Iterator[Tensor]) -> tuple[float, float | None]:
        """The steps of an epoch, up to the time limit; their mean loss and gradients' norm."""
        self.model.train()
        results, per_epoch = [], self.course.steps
        for done, result in enumerate(islice(updates, per_epoch), 1):
            results.append(result)
            self.report.progress(
                "training", (number - 1) * per_epoch + done, self.options.epochs * per_epoch
            )
            if self._late():
                break
        self.group.level(self.model)
        steps = torch.stack(results).cpu()
        steps[:, 0] = self.group.total(steps[:, 0])
        with self.group.together():
            self._check_finite(number, steps[:, :2])
        norms = steps[:, 2:].double()
        norms = norms[norms.isfinite()]  # float16 leaves steps out whose gradients overflow
        return float(steps[:, 0].double().mean()), float(norms.mean()) if len(norms) else None

    @torch.no_grad()
    def _validate(self, number: int) -> float:
        """The mean loss of all validation examples: a smaller batch counts for less."""
        self.model.eval()
        batches = self.course.validation
        losses = self._validation_losses()
        with self.group.together():
            if not bool(losses.isfinite().all()):
                raise InputError(f"training: the validation loss is not finite in epoch {number}")
        # In parts of the first, so that equal batches are counted and not weighed.
        parts = torch.tensor([len(batch[0]) / len(batches[0][0]) for batch in batches])
        return float((losses.double() * parts).sum() / parts.sum())

    def _validation_losses(self) -> Tensor:
        """Of each batch, (batches,), of which each process computes some; on the host."""
        batches, size = self.course.validation, self.group.size
        own = [self.course.loss(batch) for batch in batches[self.group.rank :: size]]
        if self.group.alone:
            return torch.stack(own).cpu()
        losses = torch.zeros(len(batches))
        if own:
            losses[self.group.rank :: size] = torch.stack(own).cpu()
        return self.group.total(losses)

    def _check_finite(self, number: int, steps: Tensor) -> None:
        """Raise where a loss or the weights behind it, (steps, 2), are not finite."""
        broken = ~steps.isfinite().all(1)
        if bool(broken.any()):
            item = int(broken.nonzero()[0])
            raise InputError(
                f"training: loss or weights are not finite in step {item + 1} of epoch {number}, "
                f"on {', '.join(self.course.names(number, item))}; last.pt has the epoch "
                "before, and a lower learning rate may help"
            )


@contextmanager
def _worker_errors() -> Iterator[None]:
    """Say what went wrong in a process that reads examples as if it had in this one."""
    try:
        yield
    except InputError as error:
        text = str(error).strip()
        if "InputError: " not in text:
            raise
        # A worker's error comes with a traceback in words, which a person should not see,
        # and one of frames, which would keep the workers alive.
        error.__traceback__ = None
        raise InputError(text.rpartition("InputError: ")[2]) from None
    except RuntimeError as error:
        # From wherever the training was when the kernel told it; PyTorch has no class for it.
        if not str(error).startswith("DataLoader worker"):
            raise
        error.__traceback__ = None
        signal = str(error).partition("killed by signal: ")[2].partition(". ")[0].strip(". ")
        raise InputError(
            f"training: a process that reads examples has died ({signal or 'it exited'}), as "
            "where memory is short; the run can be resumed, with fewer workers too"
        ) from None


def _device(model: Model) -> torch.device:
    return next(model.parameters()).device


def _identity(
    course: type[Course[Heard]],
    model: Model,
    songs: Sequence[Heard],
    validation: Sequence[Heard],
    options: TrainingOptions,
) -> dict[str, Any]:
    """What must be the same for a run to be resumed, in plain types."""
    return {
        "model": model.model_name,
        "model_options": model.model_options,
        **options.resumable(),
        **course.identity(model),
        f"training {course.learns_from}": [course.described(song) for song in songs],
        f"validation {course.learns_from}": [course.described(song) for song in validation],
    }


def _seed(seed: int, epoch: int, rank: int) -> int:
    """One seed of 64 bits for the dropout of an epoch, in each process another."""
    key = (seed, epoch, rank) if rank else (seed, epoch)
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
