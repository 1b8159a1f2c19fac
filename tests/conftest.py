"""What several tests share."""

import hashlib
import os

# Before anything imports torch or numpy: threads that wait in loops for each other made the tests ten times as slow
# beside other programs, and the tensors here are so small that a second thread gains nothing. Processes that tests
# start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import difflate
from cli_helpers import Run, picture
from difflate.cli.main import main

_LONG = ("test_examples.py", "test_training_processes.py", "test_bulk.py", "test_nn_dtypes.py")
"""Files of few tests that take long: begun last, the other cores would wait for them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public test images (kodak/, sipi/ …): $DIFFLATE_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("DIFFLATE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the test images: no folder {folder}; set DIFFLATE_DATA")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """The tensors are so small that several threads mostly wait for each other."""
    import torch  # here and below, so that tests which need none of it start at once

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The command line


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """``run(*words) -> (exit code, stdout, stderr)``, in this process."""

    def call(*words: str | Path) -> tuple[int, bytes, str]:
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit:
            code = exit.code
        out, err = capfdbinary.readouterr()
        assert isinstance(code, int)
        return code, out, err.decode()

    return call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``photo.png``."""
    monkeypatch.chdir(tmp_path)
    picture().save("photo.png")
    return tmp_path


@pytest.fixture(scope="session")
def dfl() -> bytes:
    """The file of ``photo.png``."""
    return difflate.encode(picture())


# Distances between sets of images


@pytest.fixture
def few_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests take a tenth of the time."""
    monkeypatch.setattr("difflate.metrics.sliced.DIRECTIONS", 40)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Path]:
    """``weights(data) -> path``: puts a file in the place of Inception's weights, under a name that has its hash."""
    import torch

    pytest.importorskip("torchmetrics")
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def put(data: bytes) -> Path:
        name = f"weights-{hashlib.sha256(data).hexdigest()[:8]}.pth"
        monkeypatch.setattr(fidelity, "URL_INCEPTION_V3", f"https://example.org/{name}")
        path = tmp_path / "hub" / "checkpoints" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return path

    return put


# The networks that metrics look through


@pytest.fixture(scope="session")
def stand_in_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the cache of torch.hub, with stand-in weights of AlexNet and VGG16."""
    import torch

    pytest.importorskip("torchvision")
    from backbone_helpers import NETS, stand_in, weights_path

    folder = tmp_path_factory.mktemp("hub")
    (folder / "checkpoints").mkdir()
    for net in NETS:
        torch.save(stand_in(net), folder / "checkpoints" / weights_path(net).name)
    return folder


@pytest.fixture
def backbones(stand_in_hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`stand_in_hub` in the place of torch.hub's cache."""
    import torch

    monkeypatch.setattr(torch.hub, "_hub_dir", str(stand_in_hub))
    return stand_in_hub


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of torch.hub without weights."""
    import torch

    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub"
