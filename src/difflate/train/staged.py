"""Trainings in stages, each in the one loop, from the averaged weights of the one before."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from difflate.errors import OutputExists
from difflate.store.config import CONFIG
from difflate.store.fingerprint import fingerprint
from difflate.store.folders import FolderModel
from difflate.train import checkpoint
from difflate.train.cards import card_of
from difflate.train.checkpoint import Progress
from difflate.train.config import plain_settings, write_settings
from difflate.train.lock import BeingTrained
from difflate.train.loop import train
from difflate.train.output import CHECKPOINTS
from difflate.train.recipe import Data, crops_of
from difflate.train.settings import ImageSettings
from difflate.train.stages import AnyStage
from difflate.train.task import Task

STAGES = "stages"
"""Folder in `out` that has one for each stage."""


def check_out(out: Path) -> None:
    """Raises OutputExists if ``out`` holds a model that no stages made."""
    if (out / CONFIG).exists() and not (out / STAGES).exists():
        raise OutputExists(f"{out}: holds a model already; choose another folder")


def train_stages(
    settings: Any,
    recipe: str,
    model: FolderModel,
    start: FolderModel | None,
    *,
    command: str,
    progress: bool,
    task: Callable[[Any, Data], Task],
    apart: Callable[[Any], set[str]],
    take: Callable[[Any], None],
    finish: Callable[[Data], str] = lambda data: "",
    data_of: Callable[[Any], Data] | None = None,
) -> Path:
    """Each stage of ``settings`` is a training with checkpoints and a model folder of its own; what is finished is not
    repeated. The whole ``model`` is then written to `out`.

    ``start``: the part of ``model`` that has trained weights already. ``task`` makes a stage's task, of ``model`` or a
    part of it; ``apart`` names the settings that its weights do not depend on; ``take`` is given the model that the
    stage has saved, once its weights were taken. ``finish`` is called after the last with its data, and gives what the
    card says of it. ``data_of`` is what a stage is trained on; None: crops of the images. Raises OutputExists only if
    all stages were finished before.
    """
    out = Path(settings.out)
    check_out(out)
    done: dict[str, Progress] = {}
    trained = False
    for stage in settings.stages:
        data = data_of(stage) if data_of else crops_of(settings, stage.crop_px, stage.training.seed)
        own = task(stage, data)
        folder = out / STAGES / stage.name
        config = _config_of(settings, recipe, stage, start, apart(stage))
        try:
            done[stage.name] = train(
                own, data.trained_on, data.held_back, folder, config=config, card=_card_of(own.model, data, command),
                bar=progress, stage=stage.name,
            )  # fmt: skip
            trained = True
        except BeingTrained:
            raise
        except OutputExists:
            newest = checkpoint.latest_readable(folder / CHECKPOINTS)
            if newest is None or not stage.training.resume:
                raise
            done[stage.name] = newest[1]
        start = own.model
        saved: Any = type(own.model).from_pretrained(folder)
        own.model.load_state_dict(saved.state_dict())  # the averaged weights
        take(saved)
    if int(os.environ.get("RANK", "0")) == 0 and (trained or not (out / CONFIG).exists()):
        # one of the processes that `accelerate launch` started
        said = finish(data)
        model.save_pretrained(out, card=_with_stages(_card_of(model, data, command), done) + said)
        write_settings(plain_settings(settings, recipe), out)
    if not trained:
        raise OutputExists(f"{out}: is trained already; raise max_steps or max_minutes of a stage to go on")
    return out


def _config_of(
    settings: ImageSettings, recipe: str, stage: AnyStage, start: FolderModel | None, apart: set[str]
) -> dict[str, Any]:
    """What a checkpoint of the stage must have been made with; the weights that it starts from among it."""
    values = plain_settings(settings, recipe)
    own = next(entry for entry in values["stages"] if entry["name"] == stage.name)
    weights = {} if start is None else {k: v.cpu().numpy() for k, v in start.state_dict().items()}
    shared = {key: value for key, value in values.items() if key not in apart | {"stages"}}
    own = {key: value for key, value in own.items() if key not in ("name", "kind")}
    return {**shared, "stage": stage.name, **own, "start": fingerprint("", weights).hex()[:16] if start else ""}


def _card_of(model: FolderModel, data: Data, command: str) -> Callable[[Progress], str]:
    return card_of(model, data.sources, len(data.trained_on), len(data.held_back or ()), command)


def _with_stages(card: Callable[[Progress], str], done: dict[str, Progress]) -> str:
    *_, last = done.values()
    rows = "\n".join(f"| {name} | {p.step} | {p.seconds / 60:.0f} |" for name, p in done.items())
    return f"{card(last)}\n| stage | steps | minutes |\n|---|--:|--:|\n{rows}\n"
