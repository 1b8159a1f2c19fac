"""The one training loop.

A step is a function of the weights, the optimizer and the step's number: its images and its noise follow from the seed
and the numbers of the images (`difflate.data.crops`, `difflate.train.draws`). So a run that was killed and resumed has
the same weights as one that was not, to the bit on the same machine; and any number of processes, and of parts that a
step is computed in, has the same up to the order of additions.
"""

import contextlib
import functools
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difflate.data.crops import Batch, Samples, numbers_of
from difflate.data.loader import batches_of
from difflate.errors import ConfigError, DifflateError, ImageError, OutputExists
from difflate.extras import require
from difflate.generate.grid import image_grid, save_png
from difflate.store.config import CONFIG
from difflate.train import checkpoint
from difflate.train.average import Average
from difflate.train.checkpoint import Progress
from difflate.train.clock import Clock
from difflate.train.config import write_settings
from difflate.train.learning_rate import learning_rate
from difflate.train.lock import lock
from difflate.train.output import CHECKPOINTS, LOG, PICTURES, clear, holds_model, remove_unfinished
from difflate.train.progress_bar import Reporter, reporter
from difflate.train.recorded import RecordedStep
from difflate.train.resume import check_same, names_of
from difflate.train.signals import stopping
from difflate.train.start import take_weights
from difflate.train.task import Task

log = logging.getLogger(__name__)

_SKIPPED_SHOWN = 10

Card = Callable[[Progress], str]
"""The text of the model card, from what the training knows of itself."""


def train(
    task: Task,
    samples: Samples,
    held_back: Samples | None,
    out: Path,
    *,
    config: dict[str, Any],
    card: Card,
    bar: bool = False,
    stage: str = "",
) -> Progress:
    """Trains ``task`` on ``samples`` as its `LoopSettings` say; writes the model folder ``out``.

    ``out`` gets the averaged model, TensorBoard's events in ``log/``, pictures, and checkpoints, from which the same
    call goes on. ``config``: the `plain_settings`, which must be those of the checkpoint but for a few. ``stage``:
    what it is called where it shows itself, if it is one of several.
    Raises ConfigError, OutputExists (trained already, or being trained), ModelError (a damaged checkpoint),
    DifflateError (a loss that is not finite), and KeyboardInterrupt after SIGINT or SIGTERM, when the step is done and
    saved.
    """
    try:
        return _Run(task, samples, held_back, out, config, card, stage).run(bar)
    finally:  # accelerate's state is global, and another training may follow
        require("accelerate.state", "train").AcceleratorState._reset_state(reset_partial_state=True)


class _Run:
    def __init__(
        self, task: Task, samples: Samples, held_back: Samples | None, out: Path, config: dict[str, Any], card: Card,
        stage: str,
    ):  # fmt: skip
        accelerate = require("accelerate", "train")
        require("tensorboard", "train")
        settings = task.loop
        self.settings, self.out, self.config, self.card = settings, out, config, card
        self.samples, self.held_back, self.stage = samples, held_back, stage
        self.named = f"{stage}: " if stage else ""
        # a parameter has no gradient in the turns that do not train it
        unused = accelerate.DistributedDataParallelKwargs(find_unused_parameters=len(task.turns) > 1)
        self.accelerator = accelerate.Accelerator(
            mixed_precision="bf16" if settings.precision == "bf16" else "no",
            log_with="tensorboard",
            project_dir=str(out),
            step_scheduler_with_optimizer=False,
            kwargs_handlers=[unused],
        )
        processes = self.accelerator.num_processes
        device = self.accelerator.device.type
        log.info("%s%d process%s on %s", self.named, processes, "es" if processes > 1 else "", device)
        if settings.batch % (processes * settings.accumulate):
            raise ConfigError(
                f"batch (={settings.batch}) must be divisible by processes x accumulate "
                f"(={processes} x {settings.accumulate})"
            )
        if settings.cuda_graph and (device != "cuda" or processes > 1 or settings.accumulate > 1):
            raise ConfigError("cuda_graph (=true) needs one process on a CUDA device and accumulate=1; set it to false")
        self.main = self.accelerator.is_main_process
        for module in task.modules():
            if hasattr(module, "gradient_checkpointing"):
                setattr(module, "gradient_checkpointing", settings.gradient_checkpointing)  # noqa: B010
        self.task = task.to(self.accelerator.device)
        self.average = Average(task.model, settings.ema)
        self.trained = {turn: task.trained(turn) for turn in task.turns}
        optimizers = [task.optimizer(turn) for turn in task.turns]
        self.wrapped, *prepared = self.accelerator.prepare(task, *optimizers)
        self.optimizers = dict(zip(task.turns, prepared, strict=True))
        names = ["optimizer", *(f"optimizer-{turn}" for turn in task.turns[1:])]
        self.states = dict(zip(names, optimizers, strict=True))
        """The optimizers under their names in checkpoints."""
        self.progress = Progress()
        self.stop_requested = False
        """Whether a signal reached this process."""
        self.stop_asked = False
        """Whether all processes know of a signal."""
        self.skipped = 0
        """Images that this process skipped in this sitting."""
        self.saved_step = -1
        self.checked = {**config, "data": names_of(samples, held_back)}
        """What a checkpoint must have been made with."""

    def run(self, bar: bool) -> Progress:
        with lock(self.out) if self.main else contextlib.nullcontext():
            self._begin()
            steps = max(self.settings.max_steps, self.progress.step)
            self.clock = Clock(
                self.settings, self.progress, self._reduce if self.accelerator.num_processes > 1 else None
            )
            shown = reporter(steps, self.progress.step, bar and self.main, self.stage)
            try:
                with stopping(self._ask_to_stop), shown as shows:
                    if not self.progress.validations:
                        self._validate()
                    self._steps(shows)
            finally:
                self.accelerator.end_training()
        if self.stop_asked:
            raise KeyboardInterrupt
        return self.progress

    def _begin(self) -> None:
        """Starts from the newest checkpoint, or anew."""
        settings, folder = self.settings, self.out / CHECKPOINTS
        newest = None if settings.force or not settings.resume else checkpoint.latest_readable(folder)
        if newest is not None:
            path, self.progress, before = newest
            check_same(before, self.checked, path)
            checkpoint.restore(path, self.states, objective=self.task.load_state_dict, average=self._load_average)
            if self._was_finished():
                self._repair()
                raise OutputExists(
                    f"{self.out}: is trained already ({self.progress.step} steps, {self.progress.seconds / 60:.1f} "
                    "minutes); raise max_steps or max_minutes to go on, or set force=true to start anew"
                )
            self.saved_step = self.progress.step
            log.info("%sgoing on from %s", self.named, path)
        elif not settings.force and (checkpoint.latest(folder) or (self.out / CONFIG).exists()):
            raise OutputExists(f"{self.out}: holds a model already; choose another folder or set force=true")
        elif settings.init_from:
            take_weights(self.task.model, settings.init_from, "training.init_from")
            self.average.load(self.task.model.state_dict())
        self.accelerator.wait_for_everyone()
        if self.main:
            if newest is None and settings.force:
                clear(self.out)
            remove_unfinished(self.out)
            write_settings(self.config, self.out)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # tensorboard's own
            self.accelerator.init_trackers(LOG, init_kwargs={"tensorboard": {"purge_step": self.progress.step + 1}})

    def _load_average(self, tensors: dict[str, Tensor]) -> None:
        self.average.load({name.removeprefix("model."): value for name, value in tensors.items()})

    def _was_finished(self) -> bool:
        s, done = self.settings, self.progress
        if s.max_minutes is None:
            return done.step >= s.max_steps
        return done.step >= s.max_steps or max(done.finished_minutes, done.seconds / 60) >= s.max_minutes

    def _repair(self) -> None:
        with self.average.swap_in():
            complete = holds_model(self.out, self.task.model, self._save_dtype())
        if self.main and not complete:
            self._save_model()

    def _save_model(self) -> None:
        with self.average.swap_in():
            self.task.model.save_pretrained(self.out, card=self.card(self.progress), dtype=self._save_dtype())

    def _save_dtype(self) -> torch.dtype:
        return getattr(torch, self.settings.save_dtype)

    def _steps(self, shown: Reporter) -> None:
        settings, progress, clock = self.settings, self.progress, self.clock
        batches = self._loader()
        self.task.train()
        if settings.cuda_graph:
            self.recorded = {
                turn: RecordedStep(
                    functools.partial(self.wrapped, turn=turn), optimizer, settings.clip_norm, settings.seed
                )
                for turn, optimizer in zip(self.optimizers, self.states.values(), strict=True)
            }
        self._restart_losses()
        skipped_before = progress.skipped
        logged_at, logged_step = time.monotonic(), progress.step
        ends = progress.step >= settings.max_steps
        while not ends and not self.stop_asked:
            self._step(batches)
            progress.step += 1
            self.average.update(progress.step)
            self.stop_asked = clock.agree(self.stop_requested) or self.stop_asked
            # once for the whole step: signals may come while it is shown and saved
            finishes = progress.step >= settings.max_steps or clock.is_over
            if clock.is_over:
                progress.finished_minutes = max(progress.finished_minutes, settings.max_minutes or 0)
            ends = finishes or self.stop_asked
            saves = progress.step % settings.checkpoint_every == 0 or ends
            if progress.step % settings.log_every == 0 or saves:  # weights of a loss that is not finite are not kept
                progress.skipped = skipped_before + int(self._reduce([float(self.skipped)], "sum")[0])
                now = time.monotonic()
                rate = (progress.step - logged_step) * settings.batch / max(now - logged_at, 1e-9)
                self._log(rate, shown)
                logged_at, logged_step = now, progress.step
            if progress.step % settings.validate_every == 0 or finishes:
                self._validate()
            if settings.pictures_every and (progress.step % settings.pictures_every == 0 or finishes):
                self._pictures()
            if saves:
                self._save()
        if self.saved_step != progress.step:  # nothing was trained, or a signal came while something else was done
            self._save()

    def _step(self, batches: Iterator[Batch]) -> None:
        """One turn after the other, on the same images."""
        settings = self.settings
        pieces = [next(batches) for _ in range(settings.accumulate)]
        for batch in pieces:
            if batch.dropped:
                raise ImageError(f"the images cannot be read, one after the other; the last: {batch.skipped[-1]}")
            self._tell(batch.skipped)
        rate = self._rate()
        if self.settings.cuda_graph:
            (batch,) = pieces
            for turn, recorded in self.recorded.items():
                self._take_turn(turn)
                self.losses[turn] += recorded(batch, self.task.draws_of(batch), rate)
            self.counted += 1
            return
        for turn, optimizer in self.optimizers.items():
            self._take_turn(turn)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            for number, batch in enumerate(pieces, 1):
                last = number == len(pieces)
                with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                    loss = self.wrapped(batch, turn)["loss"]
                    self.accelerator.backward(loss / settings.accumulate)
                self.losses[turn] += loss.detach()
            if settings.clip_norm:
                self.accelerator.clip_grad_norm_(self.trained[turn], settings.clip_norm)
            optimizer.step()
        self.counted += len(pieces)

    def _take_turn(self, turn: str) -> None:
        """Only the parameters of ``turn`` get a gradient."""
        if len(self.trained) > 1:
            for parameters in self.trained.values():
                for parameter in parameters:
                    parameter.requires_grad_(False)
            for parameter in self.trained[turn]:
                parameter.requires_grad_(True)

    def _restart_losses(self) -> None:
        self.losses = {
            turn: torch.zeros((), dtype=torch.float32, device=self.accelerator.device) for turn in self.optimizers
        }
        self.counted = 0

    def _loader(self) -> Iterator[Batch]:
        accelerator, settings = self.accelerator, self.settings
        numbers = numbers_of(
            settings.batch, accelerator.process_index, accelerator.num_processes, self.progress.step,
            settings.accumulate,
        )  # fmt: skip
        return batches_of(self.samples, numbers, settings.workers, accelerator.device)

    def _rate(self) -> float:
        s = self.settings
        return learning_rate(s.lr, self.progress.step, s.warmup_steps, s.decay, self.clock.share_done, s.decay_steps)

    def _ask_to_stop(self) -> None:
        self.stop_requested = True
        if self.accelerator.num_processes == 1:
            self.stop_asked = True

    def _reduce(self, values: list[float], how: str = "mean") -> list[float]:
        """``values`` over all processes, their sums or means."""
        packed = torch.tensor(values, dtype=torch.float32, device=self.accelerator.device)
        reduced = self.accelerator.reduce(packed, how)
        assert isinstance(reduced, Tensor)
        return reduced.tolist()

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            kept = checkpoint.latest(self.out / CHECKPOINTS)
            raise DifflateError(
                f"the loss is {loss} at step {self.progress.step} (the last checkpoint: {kept or 'none'}); start anew "
                "with a lower lr or clip_norm, from this model with init_from if it was good"
            )

    def _log(self, rate: float, shown: Reporter) -> None:
        """Checks and shows the mean losses since the last time."""
        s, done = self.settings, self.progress
        means = self._reduce([float(total) / self.counted for total in self.losses.values()])
        losses = dict(zip(self.losses, means, strict=True))
        for loss in losses.values():
            self._check(loss)
        self._restart_losses()
        left = min((s.max_steps - done.step) * s.batch / rate, self.clock.left_s)
        values = {**{f"train/{turn}": loss for turn, loss in losses.items()}, "train/lr": self._last_rate(),
                  "train/images_per_s": rate, "train/skipped_images": float(done.skipped)}  # fmt: skip
        self.accelerator.log(values, step=done.step)
        if self.main:
            shown.show(done.step, s.max_steps, losses["loss"], rate, left)

    def _last_rate(self) -> float:
        return float(next(iter(self.optimizers.values())).param_groups[0]["lr"])

    def _tell(self, skipped: list[str]) -> None:
        for text in skipped[: max(_SKIPPED_SHOWN - self.skipped, 0)]:
            log.warning("skipped: %s", text)
        self.skipped += len(skipped)

    @contextlib.contextmanager
    def _with_average(self) -> Iterator[None]:
        """Within, the task is that of the averaged weights, in evaluation mode."""
        self.task.eval()
        with self.average.swap_in(), torch.no_grad():
            yield
        self.task.train()

    def _validate(self) -> None:
        """The averaged model's losses on the held-back images, always with the same noise."""
        if self.held_back is None:
            return
        part, parts, size = self.accelerator.process_index, self.accelerator.num_processes, self.settings.batch
        pieces = [list(range(i, min(i + size, len(self.held_back)))) for i in range(0, len(self.held_back), size)]
        mine = pieces[part::parts]
        sums: dict[str, float] = {}
        count = 0
        with self.clock.measure("validation"), self._with_average():
            # a process that has none computes the first, so that it knows the names, and counts it for nothing
            for batch in batches_of(self.held_back, iter(mine or pieces[:1]), 0, self.accelerator.device):
                if not self.progress.validations and mine:
                    self._tell(batch.skipped)  # once; those that are left are the same each time
                if not len(batch.numbers):
                    continue
                with self.accelerator.autocast():
                    values = self.task(batch)
                counts = len(batch.numbers) if mine else 0
                count += counts
                for key, value in values.items():
                    sums[key] = sums.get(key, 0.0) + float(value) * counts
        keys = sorted(sums) or ["loss"]
        *totals, images = self._reduce([*(sums.get(key, 0.0) for key in keys), count], "sum")
        if not images:
            raise ImageError(f"none of the {len(self.held_back)} images that are held back can be read")
        means = {key: total / images for key, total in zip(keys, totals, strict=True)}
        self.progress.validations.append((self.progress.step, means))
        self.accelerator.log({f"held_back/{key}": value for key, value in means.items()}, step=self.progress.step)
        text = ", ".join(f"{key} {value:.4f}" for key, value in means.items())
        if self.main:
            log.info("%sstep %d: on held-back images %s", self.named, self.progress.step, text)

    def _pictures(self) -> None:
        if not self.main:
            return
        with self.clock.measure("pictures"):
            with self._with_average():
                pictures = self.task.pictures()
            if pictures is None:
                return
            grid = image_grid(pictures)
            self.accelerator.get_tracker("tensorboard", unwrap=True).add_image("samples", grid, self.progress.step)
            save_png(grid, self.out / PICTURES / f"step-{self.progress.step:08d}.png")

    def _save(self) -> None:
        """The checkpoint, and the model folder with the averaged weights."""
        # a loss is of before its step: what the last step made of the weights must not be kept unseen
        if not all(bool(value.isfinite().all()) for value in self.task.parameters()):
            self._check(math.nan)
        self.clock.agree(self.stop_requested, now=True)
        self.saved_step = self.progress.step
        with self.clock.measure("saving"):
            self.accelerator.wait_for_everyone()
            if self.main:
                average = {f"model.{name}": value for name, value in self.average.tensors.items()}
                checkpoint.save(
                    self.out / CHECKPOINTS, self.settings.keep_checkpoints, self.progress, self.checked, self.states,
                    objective=self.task.state_dict(), average=average,
                )  # fmt: skip
                self._save_model()
            self.accelerator.wait_for_everyone()
