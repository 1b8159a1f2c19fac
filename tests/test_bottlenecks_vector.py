"""The bottleneck of one learned codebook."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from difflate.errors import ConfigError
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.bottlenecks.vector import VectorQuantizer
from training_helpers import forked


def features(seed: int = 0, count: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, 5, 4, generator=torch.Generator().manual_seed(seed))


def quantizer(size: int = 16, channels: int = 3, commitment: float = 0.25) -> VectorQuantizer:
    torch.manual_seed(1)
    return VectorQuantizer(size, channels, commitment)


def test_each_site_is_its_nearest_codeword() -> None:
    vq, x = quantizer().eval(), features()
    codes = vq.coded(x)
    assert (codes.shape, codes.dtype) == ((2, 1, 5, 4), torch.int64)
    distances = (x[:, None] - vq.codebook[None, :, :, None, None]).square().sum(2)
    assert torch.equal(codes[:, 0], distances.argmin(1))
    z = vq.latent(codes)
    torch.testing.assert_close(z.movedim(1, -1), vq.codebook[codes[:, 0]])
    torch.testing.assert_close(vq(x).z, z)
    torch.testing.assert_close(vq.join([vq.codebooks[0][codes[:, 0]].movedim(-1, 1)]), z)


def test_its_loss_and_gradients_in_closed_form() -> None:
    """Van den Oord et al. 2017, Eq. 3: codewords move to features, features β times as much to codewords."""
    vq, x = quantizer(commitment=0.3).eval(), features().requires_grad_()
    passed = vq(x)
    chosen = vq.latent(vq.coded(x)).detach()
    errors = (chosen - x.detach()).square().flatten(1).mean(1)
    torch.testing.assert_close(passed.loss, 1.3 * errors)
    (passed.loss.sum() + (2 * passed.z).sum()).backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 + 0.3 * 2 * (x.detach() - chosen) / x[0].numel())
    assert vq.codebook.grad is not None
    codes = vq.coded(x).flatten()
    moved = torch.zeros_like(vq.codebook)
    moved.index_add_(0, codes, (2 * (chosen - x.detach()) / x[0].numel()).movedim(1, -1).reshape(-1, 3))
    torch.testing.assert_close(vq.codebook.grad, moved)


def test_codewords_that_are_not_used_are_put_where_features_are() -> None:
    vq = quantizer(size=8)
    vq(features(0) + 50)  # before the first step none is used
    sites = (features(0) + 50).movedim(1, -1).reshape(-1, 3)
    assert (vq.codebook[:, None] == sites).all(2).any(1).all()
    with torch.no_grad():
        vq.codebook[3] = 1e4  # far from all that comes
    for step in range(400):
        passed = vq(features(step) + 50)
    assert vq.codebook[3].abs().max() < 100
    assert passed.scalars["used_codes"] > 0.9
    before = vq.codebook.clone()
    vq.eval()(features() - 50)
    assert torch.equal(vq.codebook, before)  # only training moves them


def test_which_features_are_taken_follows_from_the_generators() -> None:
    made = []
    for other in (0, 5):
        torch.manual_seed(other)
        vq = VectorQuantizer(8, 3, 0.25)
        vq(features(), [torch.Generator().manual_seed(seed) for seed in (7, 8)])
        made.append(vq.codebook.detach())
    assert torch.equal(*made)


def test_the_order_puts_similar_codewords_side_by_side() -> None:
    vq = quantizer(size=64, channels=2).eval()
    with torch.no_grad():
        vq.codebook.copy_(torch.outer(torch.linspace(-3, 3, 64)[torch.randperm(64)], torch.tensor([1.0, 2.0])))
        vq.use.copy_(vq.codebook[:, 0])
    x = features(channels=2)
    before = vq(x).z
    vq.put_in_order()
    assert (vq.codebook[:, 0].diff() < 0).all()
    assert torch.equal(vq.use, vq.codebook[:, 0])
    torch.testing.assert_close(vq(x).z, before)


def test_settings_of_other_kinds_are_told() -> None:
    with pytest.raises(ConfigError, match=r"`levels` \(=\[3\]\) has no meaning for the bottleneck vq; leave it out"):
        BottleneckConfig("vq", levels=[3])
    with pytest.raises(ConfigError, match=r"`codebook_size` \(=8\) has no meaning for the bottleneck fsq"):
        BottleneckConfig("fsq", codebook_size=8)
    with pytest.raises(ConfigError, match=r"`codebook_size` \(=1\) must be from 2 to 65536"):
        BottleneckConfig("vq", codebook_size=1)
    with pytest.raises(ConfigError, match=r"`kind` \(='pq'\) must be one of fsq, vq"):
        BottleneckConfig("pq")  # type: ignore[arg-type]
    assert BottleneckConfig("vq", levels=[8] * 5) == BottleneckConfig("vq", levels=[8] * 5)  # as config.json has it


def learn_in_a_process(rank: int, folder: Path) -> None:
    """Three looks at features that the other process does not have."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    vq = quantizer(size=8)
    for step in range(3):
        vq(features(10 * rank + step))
    torch.save({"codebook": vq.codebook.detach(), "use": vq.use}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_processes_have_one_codebook(tmp_path: Path) -> None:
    processes = [forked(learn_in_a_process, rank, tmp_path) for rank in (0, 1)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert torch.equal(found[0]["codebook"], found[1]["codebook"])
    assert torch.equal(found[0]["use"], found[1]["use"])
    assert found[0]["use"].std() > 0
