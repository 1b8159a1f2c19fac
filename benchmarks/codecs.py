"""The hyperprior codecs as whole programs: against CompressAI, where their time goes, and what exactness costs."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import difflate
from benchmarks import diffusion
from benchmarks.elsewhere import Elsewhere
from benchmarks.timing import Fact, Results, Timings, stopwatch
from difflate.codecs.hyperprior import HyperpriorCodec
from difflate.codecs.transform import quality_of
from difflate.entropy import SymbolReader, SymbolWriter
from difflate.entropy.hyperprior import HyperpriorCoder
from difflate.entropy.tables import Tables
from difflate.errors import ConfigError
from difflate.format import sections
from difflate.format.container import read_dfl
from difflate.media.picture import Picture
from difflate.models.transform_coder import TransformModel
from difflate.nn.dct import basis
from difflate.nn.entropy_network import HyperpriorConfig, HyperpriorNetwork, chessboard
from difflate.nn.transforms import GDN, TransformConfig

WIDTH, LATENT = 128, 192
"""N and M of CompressAI's `bmshj2018_hyperprior`."""
LMBDA = 0.0067
BUNDLED = "hyperprior-small"
AIM_WHOLE = 1.5
ROUNDS_SHARE = 4
"""Shares of one run are steady: one in so many of the rounds is enough for them."""


@dataclass(frozen=True)
class Subject:
    """A codec under test, with its image and a file of it."""

    name: str
    codec: HyperpriorCodec
    picture: Picture
    data: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", self.encode())

    def encode(self) -> bytes:
        return self.codec.encode(self.picture)

    def decode(self) -> Picture:
        return self.codec.decode(self.data)

    def nonzero(self) -> float:
        """The share of the file's symbols that are not 0."""
        latent = self.codec.read_latent(read_dfl(self.data))
        return (np.count_nonzero(latent.q) + np.count_nonzero(latent.z)) / (latent.q.size + latent.z.size)

    @property
    def bpp(self) -> float:
        return 8 * len(self.data) / self.picture.pixels[0].size


def run(pixels: np.ndarray, rounds: int, threads: int, compressai: str | None) -> Results:
    """Ratios and shares for ``pixels: (3, H, W)`` uint8; ``compressai``: the Python of an environment with it."""
    picture = Picture(pixels)
    subjects = [Subject("hyperprior (gdn)", gdn_codec(picture), picture), _small(picture)]
    parts = [_whole(subjects, rounds, threads, compressai)]
    parts += [_inside(subject, rounds) for subject in subjects]
    parts.append(diffusion.run(picture, rounds))
    return Results([row for part in parts for row in part.rows], [fact for part in parts for fact in part.facts])


# -- models ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def gdn_codec(picture: Picture) -> HyperpriorCodec:
    """The layout of Ballé et al. 2018 with seeded weights, scaled to statistics of a latent as training makes them.

    Each channel of y gets the standard deviation, over ``picture``, of a coefficient of the 16x16 DCT in units of the
    quantizer step, and its Gaussian the same scale.
    """
    torch.manual_seed(0)
    config = HyperpriorConfig(WIDTH, WIDTH, LATENT)
    model = TransformModel(TransformConfig("gdn", LATENT, (WIDTH,) * 3), config, LMBDA, LMBDA)
    spread = basis(LATENT)[1]
    model.entropy = HyperpriorNetwork(config, LATENT, spread=spread / 0.6)  # it starts at .6 of what it is given
    y = model.analyse(_images(picture), torch.zeros(1))
    factor = spread / y.std((0, 2, 3))
    into, out_of = model.analysis.layers[-1], model.synthesis.layers[0]
    into.bias.sub_(y.mean((0, 2, 3))).mul_(factor)
    into.weight *= factor[:, None, None, None]
    out_of.weight /= factor[:, None, None, None]
    return HyperpriorCodec("gdn", model, model.exact_coder)


def _small(picture: Picture) -> Subject:
    """The bundled small model, or one as it is before training, which starts as a block DCT."""
    try:
        codec = difflate.load(BUNDLED)
    except ConfigError:  # it is not there
        torch.manual_seed(0)
        model = TransformModel(TransformConfig(), HyperpriorConfig())
        return Subject("hyperprior (dct, untrained)", HyperpriorCodec("dct", model, model.exact_coder), picture)
    if not isinstance(codec, HyperpriorCodec):
        raise SystemExit(f"model ({BUNDLED}) must be one of the hyperprior codec")
    return Subject(BUNDLED, codec, picture)


def _images(picture: Picture) -> Tensor:
    """(1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(picture.pixels)[None].float() / 127.5 - 1


def _layers(half: str, layers: torch.nn.Sequential) -> dict[str, np.ndarray]:
    """The weights of a transform by name; those of a GDN as they are used, not as they are stored."""
    found: dict[str, Tensor] = {}
    for i, layer in enumerate(layers):
        if isinstance(layer, GDN):
            found |= {f"{half}.{i}.beta": layer.beta.square(), f"{half}.{i}.gamma": layer.gamma.square()}
        else:
            found |= {f"{half}.{i}.weight": layer.weight, f"{half}.{i}.bias": layer.bias}
    return {name: value.detach().contiguous().numpy() for name, value in found.items()}


# -- whole files -----------------------------------------------------------------------------------------------------


def _whole(subjects: list[Subject], rounds: int, threads: int, compressai: str | None) -> Results:
    """Pixels to bytes to pixels."""
    gdn = subjects[0]
    facts = [fact for subject in subjects for fact in _sizes(subject.name, subject.bpp, subject.nonzero())]
    if compressai is None:
        return Results([], [*facts, Fact("files against CompressAI", "not measured: give --compressai")])
    programs = {}
    for subject in subjects:
        programs[f"{subject.name}, encode"] = stopwatch(subject.encode)
        programs[f"{subject.name}, decode"] = stopwatch(subject.decode)
    model = gdn.codec.space.model
    arrays = _layers("analysis", model.analysis.layers) | _layers("synthesis", model.synthesis.layers)
    others = dict(pixels=gdn.picture.pixels, scales=basis(LATENT)[1].numpy(), threads=threads)
    with Elsewhere(compressai, "compressai_codec.py", **arrays, **others) as other:
        bpp = 8 * other.ask("bytes") / gdn.picture.pixels[0].size
        facts += _sizes("CompressAI", bpp, other.ask("nonzero"))
        for verb in ("encode", "decode"):
            programs[f"CompressAI {verb}"] = lambda verb=verb: other.ask(verb)
        timings = Timings(programs, rounds)
    timings.total("CompressAI encode + decode", "CompressAI encode", "CompressAI decode")
    rows = []
    for subject in subjects:
        name = subject.name
        timings.total(f"{name}, encode + decode", f"{name}, encode", f"{name}, decode")
        for verb in ("encode", "decode", "encode + decode"):
            aim = AIM_WHOLE if subject is gdn and verb == "encode + decode" else None
            rows.append(timings.row(f"{name}, {verb}", f"{name}, {verb}", f"CompressAI {verb}", aim))
    return Results(rows, facts)


def _sizes(name: str, bpp: float, nonzero: float) -> list[Fact]:
    return [Fact(f"{name}, bits per pixel", bpp), Fact(f"{name}, symbols that are not 0, %", 100 * nonzero)]


# -- where the time goes ---------------------------------------------------------------------------------------------


class Clock:
    """Seconds spent in functions, while they are watched."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watched(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, whose time is counted."""

        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            found = work(*arguments, **options)
            self.seconds += time.perf_counter() - start
            return found

        return run

    @contextmanager
    def watching(self, *methods: tuple[object, str]) -> Iterator[None]:
        """Counts what runs of ``methods``, (object or class, name)."""
        with ExitStack() as stack:
            for owner, name in methods:
                stack.enter_context(patch.object(owner, name, self.watched(getattr(owner, name))))
            yield


_RANGE_CODER = ((SymbolWriter, "write"), (SymbolReader, "read"))


def _inside(subject: Subject, rounds: int) -> Results:
    """Shares of the time of encoding and decoding, and the cost of exactness."""
    facts = []
    for verb, work in {"encode": subject.encode, "decode": subject.decode}.items():
        shares = [_shares(subject, work) for _ in range(max(1, rounds // ROUNDS_SHARE))]
        coder, exact = np.median(shares, axis=0)
        facts.append(Fact(f"{subject.name}, {verb}: range coder, % of the time", 100 * coder))
        facts.append(Fact(f"{subject.name}, {verb}: integer network, % of the time", 100 * exact))
    if not isinstance(subject.codec.coder.exact, HyperpriorCoder):
        raise SystemExit(f"model ({subject.name}) must have a hyperprior")
    exactness = _exactness(subject, subject.codec.coder.exact, rounds)
    return Results(exactness.rows, facts + exactness.facts)


def _shares(subject: Subject, work: Callable[[], object]) -> tuple[float, float]:
    """Of the range coder, and of what else stands between the numbers y, z and their bits: the integer network."""
    coder, stage = Clock(), Clock()
    entropy = subject.codec.coder.exact
    with coder.watching(*_RANGE_CODER), stage.watching((entropy, "encode"), (entropy, "decode")):
        whole = stopwatch(work)()
    return coder.seconds / whole, (stage.seconds - coder.seconds) / whole


class Replay(SymbolReader):
    """Gives at once the symbols that a first reading found."""

    def __init__(self, found: list[np.ndarray]):
        self._found = iter(found)

    def read(self, count: int, tables: Tables, index: np.ndarray | None = None) -> np.ndarray:
        return next(self._found)


class Recorder(SymbolReader):
    """Keeps what it reads."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self.found: list[np.ndarray] = []

    def read(self, count: int, tables: Tables, index: np.ndarray | None = None) -> np.ndarray:
        self.found.append(super().read(count, tables, index))
        return self.found[-1]


@torch.no_grad()
def _exactness(subject: Subject, coder: HyperpriorCoder, rounds: int) -> Results:
    """The network in integers against float32, and whole files against the float network's estimate."""
    codec = subject.codec
    file = read_dfl(subject.data)
    step = quality_of(dict(file.sections))
    latent = codec.read_latent(file)
    section = file.section(sections.LATENT)
    assert section is not None
    recorder = Recorder(section[2:])
    height, width = latent.q.shape[1:]
    coder.decode(height, width, step, recorder)
    model, quality = codec.space.model, codec.space.as_network_input(step)
    network = model.entropy
    assert isinstance(network, HyperpriorNetwork)
    z, q = (torch.from_numpy(symbols)[None].float() for symbols in (latent.z, latent.q))
    programs = {
        "integers": stopwatch(lambda: coder.decode(height, width, step, Replay(recorder.found))),
        "float32": stopwatch(lambda: _float_latent(network, z, q, quality)),
    }
    row = Timings(programs, rounds).row(
        f"{subject.name}, network of the entropy model, integers", "integers", "float32"
    )
    coded = network(model.analyse(_images(subject.picture), quality), quality)
    excess = 100 * (8 * len(subject.data) / float(coded.y_bits + coded.z_bits) - 1)
    return Results([row], [Fact(f"{subject.name}, file above the float model's estimate, %", excess)])


@torch.no_grad()
def _float_latent(network: HyperpriorNetwork, z: Tensor, q: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
    """(y_hat, scales) of the symbols, each (1, M, h, w), in two passes as `HyperpriorNetwork.forward` has them."""
    features = network.hyper_synthesis(z, q.shape[2:])
    first = chessboard(q)
    mean, scale = network.parameters_of(features, quality, None)
    known = q * first
    mean_2, scale_2 = network.parameters_of(features, quality, ((q + mean) * first, known))
    return q + torch.where(first > 0, mean, mean_2), torch.where(first > 0, scale, scale_2)
