"""Trains the context model of `difflate.entropy.context`, with its integer arithmetic from the first step on."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from difflate.entropy.context import ACTIVATION_MAX, DIMS, ContextModel, exp_table, stage_bits
from difflate.entropy.interlace import KINDS, NEIGHBOURS, PAST, same_place, steps
from difflate.quantize.scalar import straight_through

log = logging.getLogger(__name__)

_UNIT = 64
"""An activation or weight of 1.0 is the integer 64: weights reach almost ±2, activations 0 to 2."""
SITES_PER_STEP = 12_000
_GOING_ON = 0.5
"""Of the learning rate, for a model that was fitted before."""
_SHARE = 0.3
"""Share of a grid's sites that a step learns from: more grids in a step say more than all sites of a few."""
_FIRST_SHARE = 1 / 16
"""Share of the grids of clips that are learned without the one before: clips have a first one, and it takes the most
bits."""


def _weight(w: Tensor) -> Tensor:
    limited = w.clamp(-ACTIVATION_MAX / _UNIT, ACTIVATION_MAX / _UNIT)
    return straight_through((limited * _UNIT).round() / _UNIT, limited)


def _bias(b: Tensor) -> Tensor:
    return straight_through((b * _UNIT**2).round() / _UNIT**2, b)


def _relu(a: Tensor) -> Tensor:
    limited = a.clamp(0, ACTIVATION_MAX / _UNIT)
    return straight_through(torch.floor(limited * _UNIT + 0.5).clamp(max=ACTIVATION_MAX) / _UNIT, limited)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float32)


class _Stage(nn.Module):
    """Predicts a few bits of one plane's index, given the trunk, the earlier planes and the bits before these."""

    def __init__(self, earlier: int, prefix_bits: int, bits: int):
        super().__init__()
        inputs = DIMS.trunk + DIMS.current * earlier
        self.hidden_w = nn.Parameter(_normal(inputs, DIMS.hidden) / math.sqrt(inputs))
        self.hidden_b = nn.Parameter(torch.zeros(DIMS.hidden, dtype=torch.float32))
        self.prefix = nn.Parameter(_normal(2**prefix_bits, DIMS.hidden) * 0.1) if prefix_bits else None
        self.out_w = nn.Parameter(_normal(DIMS.hidden, 2**bits) / math.sqrt(DIMS.hidden))
        self.out_b = nn.Parameter(torch.zeros(2**bits, dtype=torch.float32))

    def forward(self, inputs: Tensor, prefix: Tensor) -> Tensor:
        """(n, 2**bits) logits in nats of ``inputs: (n, trunk + earlier)``, ``prefix: (n,)`` int64."""
        hidden = inputs @ _weight(self.hidden_w) + _bias(self.hidden_b)
        if self.prefix is not None:
            hidden = hidden + _weight(self.prefix)[prefix]
        return _relu(hidden) @ _weight(self.out_w) + _bias(self.out_b)


class ContextNet(nn.Module):
    """The network in floating point with rounded weights and activations: equal to its integer form to the last bit."""

    def __init__(self, plane_bits: Sequence[int], looks_back: bool = False):
        super().__init__()
        self.plane_bits = list(plane_bits)
        self.describe = nn.ParameterList([_normal(2**b, DIMS.descriptor) * 0.2 for b in plane_bits])
        self.current = nn.ParameterList([_normal(2**b, DIMS.current) * 0.5 for b in plane_bits[:-1]])
        inputs = NEIGHBOURS * (DIMS.descriptor + 1)
        self.trunk_w = nn.Parameter(_normal(KINDS - 1, inputs, DIMS.trunk) / math.sqrt(inputs))
        self.trunk_b = nn.Parameter(torch.full((KINDS, DIMS.trunk), 0.2, dtype=torch.float32))
        self.stages = nn.ModuleList()
        for plane, bits in enumerate(plane_bits):
            done = 0
            for part in stage_bits(bits):
                self.stages.append(_Stage(plane, done, part))
                done += part
        self.past_w = None
        if looks_back:
            inputs = len(PAST) * (DIMS.descriptor + 1)
            self.past_w = nn.Parameter(_normal(KINDS, inputs, DIMS.trunk) / math.sqrt(inputs))

    @torch.no_grad()
    def take(self, context: ContextModel) -> None:
        """Gives this network the weights of its integer form, of the same planes: the inverse of `export`."""

        def w(name: str, units: int = _UNIT) -> Tensor:
            return torch.from_numpy(context.tensors[name].astype(np.float32)) / units

        self.trunk_w.copy_(w("trunk.weight"))
        self.trunk_b.copy_(w("trunk.bias", _UNIT**2))
        for name, tables in (("describe", self.describe), ("current", self.current)):
            for number, table in enumerate(tables):
                table.copy_(w(f"{name}.{number}"))
        for number, stage in enumerate(self.stages):
            assert isinstance(stage, _Stage)
            name = f"stage.{number}."
            stage.hidden_w.copy_(w(name + "hidden.weight"))
            stage.hidden_b.copy_(w(name + "hidden.bias", _UNIT**2))
            stage.out_w.copy_(w(name + "out.weight"))
            stage.out_b.copy_(w(name + "out.bias", _UNIT**2))
            if stage.prefix is not None:
                stage.prefix.copy_(w(name + "prefix"))
        if self.past_w is not None and context.looks_back:
            self.past_w.copy_(w("past.weight"))

    def _features(self, planes: Tensor, near: Tensor) -> Tensor:
        """(n, k * (descriptor + 1)) of the sites ``near: (n, k)``, whether there is one included."""
        inside = (near != planes.shape[1] - 1).float()
        indices = planes[:, near.reshape(-1)]
        described = sum(_weight(table)[indices[p]] for p, table in enumerate(self.describe))
        assert isinstance(described, Tensor)
        limit = ACTIVATION_MAX / _UNIT
        described = described.clamp(-limit, limit) * inside.reshape(-1, 1)
        return torch.cat([described.reshape(len(near), -1), inside * limit], dim=1)

    def trunk(self, planes: Tensor, kind: int, neighbours: Tensor, past: Tensor | None = None) -> Tensor:
        """(n, trunk) what is known around n sites: see `bits`."""
        sums = _bias(self.trunk_b[kind]).expand(len(neighbours), -1)
        if kind > 0:
            sums = self._features(planes, neighbours) @ _weight(self.trunk_w[kind - 1]) + sums
        if self.past_w is not None and past is not None:
            sums = self._features(planes, past) @ _weight(self.past_w[kind]) + sums
        return _relu(sums)

    def bits(self, planes: Tensor, kind: int, sites: Tensor, neighbours: Tensor, past: Tensor | None = None) -> Tensor:
        """(P,) bits spent on ``sites: (n,)`` of ``planes: (P, N + 1)`` int64, whose last column stands for outside.

        ``neighbours``: (n, 12), ``past``: (n, 9), columns of ``planes``, where the grid before is behind the others.
        """
        trunk = self.trunk(planes, kind, neighbours, past)
        spent, inputs, stages = [], trunk, iter(self.stages)
        for p, bits in enumerate(self.plane_bits):
            symbols = planes[p, sites]
            left, total = bits, trunk.new_zeros(())
            for part in stage_bits(bits):
                prefix = symbols >> left
                left -= part
                logits = next(stages)(inputs, prefix)
                total = total + F.cross_entropy(logits, (symbols >> left) & (2**part - 1), reduction="sum")
            spent.append(total / math.log(2))
            if p + 1 < len(self.plane_bits):
                inputs = torch.cat([inputs, _weight(self.current[p])[symbols]], dim=1)
        return torch.stack(spent)

    def export(self) -> ContextModel:
        """The integer form that files are coded with."""

        def w(t: Tensor) -> np.ndarray:
            return (t.detach() * _UNIT).round().clamp(-ACTIVATION_MAX, ACTIVATION_MAX).to(torch.int8).cpu().numpy()

        def b(t: Tensor) -> np.ndarray:
            return (t.detach() * _UNIT**2).round().to(torch.int32).cpu().numpy()

        tensors = {"exp": exp_table(), "trunk.weight": w(self.trunk_w), "trunk.bias": b(self.trunk_b)}
        if self.past_w is not None:
            tensors["past.weight"] = w(self.past_w)
        tensors |= {f"describe.{p}": w(t) for p, t in enumerate(self.describe)}
        tensors |= {f"current.{p}": w(t) for p, t in enumerate(self.current)}
        for k, stage in enumerate(self.stages):
            assert isinstance(stage, _Stage)
            name = f"stage.{k}."
            tensors |= {name + "hidden.weight": w(stage.hidden_w), name + "hidden.bias": b(stage.hidden_b)}
            tensors |= {name + "out.weight": w(stage.out_w), name + "out.bias": b(stage.out_b)}
            if stage.prefix is not None:
                tensors[name + "prefix"] = w(stage.prefix)
        return ContextModel(self.plane_bits, tensors)


@dataclass(frozen=True)
class _Sites:
    """Sites of one kind that a step learns from."""

    planes: Tensor
    """(P, N + 1) int64 indices of the grid, then of the one before where there is one; the last column: outside."""
    where: Tensor
    """(n,) columns of the sites."""
    neighbours: Tensor
    """(n, 12) columns."""
    past: Tensor | None
    """(n, 9) columns; None: the network does not look back."""


class _Grids:
    """Grids of indices with the coding steps of each size, which many of them share."""

    def __init__(self, grids: Sequence[np.ndarray], looks_back: bool = False):
        """``grids``: (P, rows, columns) or, those of a clip, (T, P, rows, columns)."""
        clips = [grid if grid.ndim == 4 else grid[None] for grid in grids]
        self.looks_back = looks_back
        self.alone = [(grid, None) for clip in clips for grid in clip]
        self.pairs = [(clip[t], clip[t - 1]) for clip in clips for t in range(1, len(clip))] if looks_back else []
        self._steps: dict[tuple[int, int], list] = {}

    def steps(self, rows: int, columns: int) -> list:
        if (rows, columns) not in self._steps:
            self._steps[rows, columns] = [
                (s.kind, torch.from_numpy(s.sites), torch.from_numpy(s.neighbours)) for s in steps(rows, columns)
            ]
        return self._steps[rows, columns]

    def batch(self, rng: np.random.Generator, count: int) -> dict[int, list[_Sites]]:
        """For each kind, a random share of the sites of a few random grids, about ``count`` sites in all."""
        chosen: dict[int, list[_Sites]] = {}
        sites = 0
        while sites < count:
            some = self.alone if not self.pairs or rng.random() < _FIRST_SHARE else self.pairs
            grid, past = some[int(rng.integers(len(some)))]
            planes, size = grid_columns(grid, past)
            for kind, where, around in self.steps(*grid.shape[1:]):
                keep = torch.from_numpy(rng.random(len(where)) < _SHARE)
                if keep.any():
                    near = around[keep]
                    # "outside" is the column behind the grid's own, but behind those of the grid before if there is one
                    near = torch.where(near == size, planes.shape[1] - 1, near)
                    before = self._past(where[keep], grid.shape[1:], past is not None)
                    chosen.setdefault(kind, []).append(_Sites(planes, where[keep], near, before))
                    sites += int(keep.sum())
        return chosen

    def _past(self, where: Tensor, sides: tuple[int, ...], is_there: bool) -> Tensor | None:
        if not self.looks_back:
            return None
        size = math.prod(sides)
        if not is_there:
            return torch.full((len(where), len(PAST)), size)
        return torch.from_numpy(same_place(where.numpy(), *sides)) + size


def grid_columns(grid: np.ndarray, past: np.ndarray | None) -> tuple[Tensor, int]:
    """(P, N + 1) int64 columns of ``grid`` and of the one before, the last one for outside; and the grid's own size."""
    known = grid if past is None else np.stack([grid, past], axis=1)
    flat = torch.from_numpy(known.reshape(len(grid), -1).astype(np.int64))
    return F.pad(flat, (0, 1)), grid[0].size


def train_context(
    grids: Sequence[np.ndarray],
    plane_bits: Sequence[int],
    *,
    step_count: int,
    seed: int,
    report: Callable[[int, float], None],
    learning_rate: float = 4e-3,
    sites_per_step: int = SITES_PER_STEP,
    max_minutes: float | None = None,
    looks_back: bool = False,
    start: ContextModel | None = None,
) -> ContextModel:
    """A context model fitted to ``grids``: arrays of indices, plane p below 2**plane_bits[p]; (P, rows, columns), or
    (T, P, rows, columns) for those of a clip. One that ``looks_back`` learns each from the one before, too.

    ``report(step, bits)`` gets the bits per site of each step. ``max_minutes`` shortens the schedule to what fits.
    ``start``: what it goes on from, of the same planes; None: from random weights.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = ContextNet(plane_bits, looks_back)
    if start is not None:
        net.take(start)
        learning_rate *= _GOING_ON
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate, betas=(0.9, 0.98))
    data = _Grids(grids, looks_back)
    begin = time.monotonic()
    for step in range(step_count):
        done = step / step_count
        if max_minutes is not None:
            done = max(done, (time.monotonic() - begin) / (60 * max_minutes))
            if done >= 1:
                log.info("stopped after %d steps: max_minutes reached", step)
                break
        rate = learning_rate * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        spent, sites = torch.zeros((), dtype=torch.float32), 0
        # sites of one kind from all grids go through the network together
        for kind, parts in data.batch(rng, sites_per_step).items():
            merged = _merge(parts)
            spent = spent + net.bits(merged.planes, kind, merged.where, merged.neighbours, merged.past).sum()
            sites += len(merged.where)
        loss = spent / sites
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        report(step + 1, loss.item())
    return net.export()


def train_context_shown(
    grids: Sequence[np.ndarray], plane_bits: Sequence[int], *, step_count: int, progress: bool, **options: Any
) -> ContextModel:
    """`train_context` with its bits per site in the log, and on a bar if ``progress``."""
    with tqdm(total=step_count, desc="context model", disable=not progress, unit="step") as bar:

        def report(step: int, bits: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix_str(f"{bits:.2f} bits/site", refresh=False)
            if step % 100 == 0:
                log.info("context model step %d: %.2f bits a site", step, bits)

        return train_context(grids, plane_bits, step_count=step_count, report=report, **options)


def _merge(parts: list[_Sites]) -> _Sites:
    """Several grids as one: their columns follow each other, one common column for outside."""
    total = sum(part.planes.shape[1] - 1 for part in parts)
    planes, sites, neighbours, past, start = [], [], [], [], 0
    for part in parts:
        size = part.planes.shape[1] - 1
        planes.append(part.planes[:, :-1])
        sites.append(part.where + start)
        neighbours.append(torch.where(part.neighbours == size, total, part.neighbours + start))
        if part.past is not None:
            past.append(torch.where(part.past == size, total, part.past + start))
        start += size
    merged = F.pad(torch.cat(planes, dim=1), (0, 1))
    return _Sites(merged, torch.cat(sites), torch.cat(neighbours), torch.cat(past) if past else None)
