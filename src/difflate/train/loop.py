"""The one training loop.

A step is a function of the weights, the optimizer and the step's number: its images and its noise follow from the seed
and the numbers of the images (`difflate.data.crops`, `difflate.train.draws`). So a run that was killed and resumed has
the same weights as one that was not, to the bit on the same machine; and any number of processes, and of parts that a
step is computed in, has the same up to the order of additions.
"""

import contextlib
import copy
import logging
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from difflate.data.crops import Batch, Samples, numbers_of
from difflate.data.loader import batches_of
from difflate.errors import ConfigError, DifflateError, ImageError, ModelError, OutputExists
from difflate.extras import require
from difflate.files import TEMPORARY_FILES
from difflate.generate.grid import image_grid, save_png
from difflate.store.config import CARD, CONFIG, read_config
from difflate.store.folders import TEMPORARY, load_weights, weight_files
from difflate.store.hub import model_folder
from difflate.train import checkpoint, ema
from difflate.train.checkpoint import Progress
from difflate.train.config import write_settings
from difflate.train.learning_rate import learning_rate
from difflate.train.progress_bar import Reporter, reporter
from difflate.train.resume import check_same, names_of
from difflate.train.settings import LoopSettings
from difflate.train.signals import stopping

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
_AGREE_EVERY = 10
"""Steps after which several processes agree on whether to stop."""
_SKIPPED_SHOWN = 10

Card = Callable[[Progress], str]
"""The text of the model card, from what the training knows of itself."""


def train(
    objective: Any,
    samples: Samples,
    held_back: Samples | None,
    settings: LoopSettings,
    out: Path,
    *,
    config: dict[str, Any],
    card: Card,
    bar: bool = False,
) -> Progress:
    """Trains ``objective`` (see `difflate.train.objective.Objective`) on ``samples``; writes the model folder ``out``.

    ``out`` gets the averaged model, TensorBoard's events in ``log/``, pictures, and checkpoints, from which the same
    call goes on. ``config``: the `resolved` settings, which must be those of the checkpoint but for a few.
    Raises ConfigError, OutputExists (trained already), ModelError (a damaged checkpoint), DifflateError (a loss that is
    not finite), and KeyboardInterrupt after SIGINT or SIGTERM, when the step is done and saved.
    """
    try:
        return _Run(objective, samples, held_back, settings, out, config, card).run(bar)
    finally:  # accelerate's state is global, and another training may follow
        require("accelerate.state", "train").AcceleratorState._reset_state(reset_partial_state=True)


class _Run:
    def __init__(
        self, objective: Any, samples: Samples, held_back: Samples | None, settings: LoopSettings, out: Path,
        config: dict[str, Any], card: Card,
    ):  # fmt: skip
        accelerate = require("accelerate", "train")
        require("tensorboard", "train")
        self.settings, self.out, self.config, self.card = settings, out, config, card
        self.samples, self.held_back = samples, held_back
        self.accelerator = accelerate.Accelerator(
            mixed_precision="bf16" if settings.precision == "bf16" else "no",
            log_with="tensorboard",
            project_dir=str(out),
            step_scheduler_with_optimizer=False,
        )
        processes = self.accelerator.num_processes
        log.info("%d process%s on %s", processes, "es" if processes > 1 else "", self.accelerator.device.type)
        if settings.batch % (processes * settings.accumulate):
            raise ConfigError(
                f"batch (={settings.batch}) must be divisible by processes x accumulate "
                f"(={processes} x {settings.accumulate})"
            )
        self.main = self.accelerator.is_main_process
        for module in objective.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = settings.gradient_checkpointing
        # before accelerate puts its hooks around forward
        self.average = copy.deepcopy(objective).requires_grad_(False).eval().to(self.accelerator.device)
        self.objective = objective
        optimizer = torch.optim.AdamW(
            [p for p in objective.parameters() if p.requires_grad],
            lr=settings.lr,
            betas=(0.9, settings.beta2),
            weight_decay=settings.weight_decay,
        )
        self.wrapped, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.progress = Progress()
        self.gamma = ema.exponent(settings.ema) if settings.ema else None
        self.stop_requested = False
        """In this process."""
        self.stop_asked = False
        """In all of them."""
        self.skipped = 0
        """In this process and sitting."""
        self.saved_step = -1
        self.checked = {**config, "data": names_of(samples, held_back)}
        """What a checkpoint must have been made with."""

    def run(self, bar: bool) -> Progress:
        self._begin()
        steps = max(self.settings.max_steps, self.progress.step)
        try:
            with stopping(self._ask_to_stop), reporter(steps, self.progress.step, bar and self.main) as shown:
                if not self.progress.validations:
                    self._validate()
                self._steps(shown)
        finally:
            self.accelerator.end_training()
        if self.stop_asked:
            raise KeyboardInterrupt
        return self.progress

    def _begin(self) -> None:
        """From the newest checkpoint, or from new."""
        settings, folder = self.settings, self.out / CHECKPOINTS
        newest = None if settings.force or not settings.resume else checkpoint.latest(folder)
        if newest is not None:
            self.progress, before = checkpoint.read_head(newest)
            check_same(before, self.checked, newest)
            checkpoint.restore(newest, self.optimizer.optimizer, objective=self.objective, average=self.average)
            if self._finished():
                self._repair()
                raise OutputExists(
                    f"{self.out}: is trained already ({self.progress.step} steps, {self.progress.seconds / 60:.1f} "
                    "minutes); raise max_steps or max_minutes to go on, or set force=true to start anew"
                )
            self.saved_step = self.progress.step
            log.info("going on from %s", newest)
        elif not settings.force and (checkpoint.latest(folder) or (self.out / CONFIG).exists()):
            raise OutputExists(f"{self.out}: holds a model already; choose another folder or set force=true")
        elif settings.init_from:
            self._init_from(settings.init_from)
        self.accelerator.wait_for_everyone()
        if self.main:
            if newest is None and settings.force:
                self._clear()
            self._remove_unfinished()
            write_settings(self.config, self.out)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # tensorboard's own
            self.accelerator.init_trackers("log", init_kwargs={"tensorboard": {"purge_step": self.progress.step + 1}})

    def _repair(self) -> None:
        """A kill between the last checkpoint and the model folder leaves an older model there, or none."""
        try:
            if (self.out / CARD).exists() and read_config(self.out):
                saved = copy.deepcopy(self.average.model)
                load_weights(saved, self.out)
                ours, theirs = (module.state_dict() for module in (self.average.model, saved))
                dtype = self._save_dtype()
                if all(torch.equal(theirs[name], value.to(dtype).to(value)) for name, value in ours.items()):
                    return
        except (ModelError, SafetensorError):
            pass
        if self.main:
            self._save_model()

    def _save_model(self) -> None:
        self.average.model.save_pretrained(self.out, card=self.card(self.progress), dtype=self._save_dtype())

    def _save_dtype(self) -> torch.dtype:
        return getattr(torch, self.settings.save_dtype)

    def _init_from(self, name: str) -> None:
        folder = model_folder(name)
        if folder is None:
            raise ConfigError(f"training.init_from (={name}): no such folder; name the folder of a model")
        source = type(self.objective.model).from_pretrained(folder)
        try:
            self.objective.model.load_state_dict(source.state_dict())
        except RuntimeError as error:
            raise ModelError(
                f"{folder}: is a network of another shape than the one to train; change `network`"
            ) from error
        self.average.load_state_dict(self.objective.state_dict())

    def _clear(self) -> None:
        """Removes what a training has written here, and nothing else."""
        checkpoint.remove_all(self.out / CHECKPOINTS)
        own = [*(self.out / "log").rglob("events.out.tfevents.*"), *(self.out / "pictures").glob("step-*.png")]
        for path in [*own, *weight_files(self.out), self.out / CONFIG, self.out / CARD]:
            path.unlink(missing_ok=True)

    def _remove_unfinished(self) -> None:
        """What a training that was killed was writing."""
        for left in self.out.glob(f"{TEMPORARY}*"):
            shutil.rmtree(left)
        for folder in (self.out, self.out / CHECKPOINTS, self.out / "pictures"):
            for left in folder.glob(TEMPORARY_FILES):
                left.unlink()

    def _steps(self, shown: Reporter) -> None:
        settings, progress, device = self.settings, self.progress, self.accelerator.device
        batches = self._loader()
        self.wrapped.train()
        total, counted = torch.zeros((), device=device), 0
        since, before, skipped_before = time.monotonic(), progress.seconds, progress.skipped
        logged_at, logged_step = since, progress.step
        while not self._finished() and not self.stop_asked:
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate()
            self.optimizer.zero_grad(set_to_none=True)
            for piece in range(settings.accumulate):
                batch = next(batches)
                if batch.dropped:
                    raise ImageError(f"the images cannot be read, one after the other; the last: {batch.skipped[-1]}")
                self._tell(batch.skipped)
                last = piece == settings.accumulate - 1
                with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                    loss = self.wrapped(batch)["loss"]
                    self.accelerator.backward(loss / settings.accumulate)
                total += loss.detach()
                counted += 1
            if settings.clip_norm:
                self.accelerator.clip_grad_norm_(self.wrapped.parameters(), settings.clip_norm)
            self.optimizer.step()
            progress.step += 1
            if self.gamma is not None:
                ema.update(self.average, self.objective, progress.step, self.gamma)
            else:
                self.average.load_state_dict(self.objective.state_dict())
            self._agree(before + time.monotonic() - since)
            saves = progress.step % settings.checkpoint_every == 0 or self._finished() or self.stop_asked
            if progress.step % settings.log_every == 0 or saves:  # weights of a loss that is not finite are not kept
                loss_value = float(self._reduced(total / counted, "mean"))
                self._check(loss_value)
                progress.skipped = skipped_before + int(self._reduced(torch.tensor(float(self.skipped)), "sum"))
                now = time.monotonic()
                rate = (progress.step - logged_step) * settings.batch / max(now - logged_at, 1e-9)
                self._log(loss_value, rate, shown)
                total.zero_()
                counted, logged_at, logged_step = 0, now, progress.step
            if progress.step % settings.validate_every == 0 or self._finished():
                self._validate()
            if settings.pictures_every and (progress.step % settings.pictures_every == 0 or self._finished()):
                self._pictures()
            if saves:
                self._save()
        if self.saved_step != progress.step:  # nothing was trained, or a signal came while something else was done
            self._save()

    def _loader(self) -> Iterator[Batch]:
        accelerator, settings = self.accelerator, self.settings
        numbers = numbers_of(
            settings.batch, accelerator.process_index, accelerator.num_processes, self.progress.step,
            settings.accumulate,
        )  # fmt: skip
        return batches_of(self.samples, numbers, settings.workers, accelerator.device)

    def _rate(self) -> float:
        s = self.settings
        done = self.progress.step / max(s.max_steps, 1)
        if s.max_minutes is not None:
            done = max(done, min(self.progress.seconds / 60 / s.max_minutes, 1.0))
        return learning_rate(s.lr, self.progress.step, s.warmup_steps, s.decay, done, s.decay_steps)

    def _finished(self) -> bool:
        s, done = self.settings, self.progress
        return done.step >= s.max_steps or (s.max_minutes is not None and done.seconds >= 60 * s.max_minutes)

    def _agree(self, seconds: float) -> None:
        """All processes have the same clock, and stop at the same step."""
        if self.accelerator.num_processes == 1:
            self.progress.seconds = seconds
        elif self.progress.step % _AGREE_EVERY == 0:
            found = self._reduced(torch.tensor([seconds, float(self.stop_requested)]), "mean")
            self.progress.seconds = float(found[0])
            self.stop_asked = bool(found[1] > 0)

    def _ask_to_stop(self) -> None:
        self.stop_requested = True
        if self.accelerator.num_processes == 1:
            self.stop_asked = True

    def _reduced(self, value: Tensor, how: str) -> Tensor:
        """``value`` over all processes, its sum or mean."""
        reduced = self.accelerator.reduce(value.to(self.accelerator.device), how)
        assert isinstance(reduced, Tensor)
        return reduced

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            kept = checkpoint.latest(self.out / CHECKPOINTS)
            raise DifflateError(
                f"the loss is {loss} at step {self.progress.step} (the last checkpoint: {kept or 'none'}); start anew "
                "with a lower lr or clip_norm, from this model with init_from if it was good"
            )

    def _log(self, loss: float, rate: float, shown: Reporter) -> None:
        s, done = self.settings, self.progress
        left = (s.max_steps - done.step) * s.batch / rate
        if s.max_minutes is not None:
            left = min(left, max(60 * s.max_minutes - done.seconds, 0.0))
        values = {"train/loss": loss, "train/lr": self.optimizer.param_groups[0]["lr"], "train/images_per_s": rate,
                  "train/skipped_images": float(done.skipped)}  # fmt: skip
        self.accelerator.log(values, step=done.step)
        if self.main:
            shown.show(done.step, s.max_steps, loss, rate, left)

    def _tell(self, skipped: list[str]) -> None:
        for text in skipped[: max(_SKIPPED_SHOWN - self.skipped, 0)]:
            log.warning("skipped: %s", text)
        self.skipped += len(skipped)

    def _check_weights(self) -> None:
        """A loss is of before its step: what the last step made of the weights must not be kept unseen."""
        if not all(bool(value.isfinite().all()) for value in self.objective.parameters()):
            self._check(math.nan)

    @torch.no_grad()
    def _validate(self) -> None:
        """The averaged model's losses on the held-back images, always with the same noise."""
        if self.held_back is None:
            return
        part, parts, size = self.accelerator.process_index, self.accelerator.num_processes, self.settings.batch
        pieces = [list(range(i, min(i + size, len(self.held_back)))) for i in range(0, len(self.held_back), size)]
        mine = pieces[part::parts]
        sums: dict[str, float] = {}
        count = 0
        # a process that has none computes the first, so that it knows the names, and counts it for nothing
        for batch in batches_of(self.held_back, iter(mine or pieces[:1]), 0, self.accelerator.device):
            if not self.progress.validations and mine:
                self._tell(batch.skipped)  # once; those that are left are the same each time
            if not len(batch.numbers):
                continue
            with self.accelerator.autocast():
                values = self.average(batch)
            counts = len(batch.numbers) if mine else 0
            count += counts
            for key, value in values.items():
                sums[key] = sums.get(key, 0.0) + float(value) * counts
        keys = sorted(sums) or ["loss"]
        packed = torch.tensor([*(sums.get(key, 0.0) for key in keys), count], dtype=torch.float32)
        packed = self._reduced(packed, "sum")
        if not packed[-1]:
            raise ImageError(f"none of the {len(self.held_back)} images that are held back can be read")
        found = {key: float(packed[i] / packed[-1]) for i, key in enumerate(keys)}
        self.progress.validations.append((self.progress.step, found))
        self.accelerator.log({f"held_back/{key}": value for key, value in found.items()}, step=self.progress.step)
        text = ", ".join(f"{key} {value:.4f}" for key, value in found.items())
        if self.main:
            log.info("step %d: on held-back images %s", self.progress.step, text)

    def _pictures(self) -> None:
        if not self.main:
            return
        pictures = self.average.pictures()
        if pictures is None:
            return
        grid = image_grid(pictures)
        self.accelerator.get_tracker("tensorboard", unwrap=True).add_image("samples", grid, self.progress.step)
        save_png(grid, self.out / "pictures" / f"step-{self.progress.step:08d}.png")

    def _save(self) -> None:
        """The checkpoint, and the model folder with the averaged weights."""
        self._check_weights()
        self.saved_step = self.progress.step
        self.accelerator.wait_for_everyone()
        if self.main:
            checkpoint.save(
                self.out / CHECKPOINTS, self.settings.keep_checkpoints, self.progress, self.checked,
                self.optimizer.optimizer, objective=self.objective, average=self.average,
            )  # fmt: skip
            self._save_model()
        self.accelerator.wait_for_everyone()
