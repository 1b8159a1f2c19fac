"""Binary quantizers against what they are by definition, and how the use of codes is counted."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from difflate.errors import ConfigError
from difflate.quantize.binary import BinaryQuantizer, binary_entropy, codes_of
from difflate.quantize.usage import code_usage
from difflate.seeds import torch_generator

pytestmark = pytest.mark.usefixtures("one_thread")


def features(bits: int, batch: int = 2, side: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(batch, bits, side, side, generator=torch_generator(seed, 0), dtype=torch.float64).float()


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("bits", [1, 4, 18])
def test_a_code_is_the_nearest_of_all(bits: int, spherical: bool) -> None:
    quantizer = BinaryQuantizer(bits, spherical=spherical)
    x = features(bits)
    z = quantizer.quantize(x)
    radius = 1.0 if spherical else math.sqrt(bits)
    assert torch.allclose(z.norm(dim=1), torch.full((2, 3, 3), radius))
    if bits <= 4:
        codes = radius / math.sqrt(bits) * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=bits)))
        apart = torch.cdist(quantizer.normalised(x).movedim(1, -1).reshape(-1, bits), codes)
        assert torch.allclose(z.movedim(1, -1).reshape(-1, bits), codes[apart.argmin(1)])
    if spherical:
        assert (z - quantizer.normalised(x)).norm(dim=1).max() <= math.sqrt(2 - 2 / math.sqrt(bits)) + 1e-6


@settings(max_examples=30, deadline=None)
@given(bits=st.integers(1, 36), spherical=st.booleans(), seed=st.integers(0, 99))
def test_codes_and_values_go_back_and_forth(bits: int, spherical: bool, seed: int) -> None:
    quantizer = BinaryQuantizer(bits, spherical=spherical)
    codes = torch.randint(2, (2, bits, 1, 3), generator=torch_generator(seed, 0))
    z = quantizer.decode(codes)
    assert torch.equal(quantizer.encode(z), codes)
    assert torch.equal(quantizer.encode(quantizer.quantize(z)), codes)
    looked_up = torch.cat(
        [book[plane][..., 0][:, None] for book, plane in zip(quantizer.codebooks, codes.unbind(1), strict=True)], dim=1
    )
    assert torch.equal(looked_up, z)


def test_the_gradient_passes_straight_through() -> None:
    x = features(6).requires_grad_()
    weights = features(6, seed=1)
    (BinaryQuantizer(6, spherical=False).quantize(x) * weights).sum().backward()
    assert torch.equal(x.grad, weights)
    x.grad = None
    quantizer = BinaryQuantizer(6, spherical=True)
    (quantizer.quantize(x) * weights).sum().backward()
    through = x.detach().requires_grad_()
    (quantizer.normalised(through) * weights).sum().backward()
    assert torch.equal(x.grad, through.grad)


@pytest.mark.parametrize("spherical", [False, True])
def test_the_penalty_is_that_of_a_softmax_over_all_codes(spherical: bool) -> None:
    bits, sharpness = 5, 0.7
    quantizer = BinaryQuantizer(bits, spherical=spherical, sharpness=sharpness)
    x = features(bits)
    values = quantizer.codebooks[0][1]
    codes = values * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=bits)))
    u = quantizer.normalised(x).movedim(1, -1).reshape(2, -1, bits)
    q = (sharpness * u @ codes.T / values**2).softmax(-1)  # (2, 9, 32)
    assert torch.allclose(codes_of(quantizer.certainty(x).movedim(1, -1).reshape(-1, bits)), q.flatten(0, 1), atol=1e-6)
    each = -(q * q.log()).sum(-1).mean(1)
    together = q.mean(dim=(0, 1))
    wanted = each + (together * together.log()).sum()
    assert torch.allclose(quantizer.entropy_penalty(x), wanted, atol=1e-5)


def test_many_bits_are_taken_in_groups() -> None:
    x = features(18)
    quantizer = BinaryQuantizer(18, spherical=False)
    parts = [BinaryQuantizer(6, spherical=False).entropy_penalty(part) for part in x.split(6, dim=1)]
    assert torch.allclose(quantizer.entropy_penalty(x), sum(parts, torch.zeros(2)), atol=1e-4)


def test_bits_that_say_the_same_are_told_from_others() -> None:
    quantizer = BinaryQuantizer(4, spherical=False)
    own = 50.0 * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4))).T[None, :, :, None]
    same = own[:, :1].expand(-1, 4, -1, -1)
    assert torch.allclose(quantizer.entropy_penalty(own), torch.tensor([-4 * math.log(2)]), atol=1e-3)
    assert torch.allclose(quantizer.entropy_penalty(same), torch.tensor([-math.log(2)]), atol=1e-3)


def test_the_penalty_at_its_ends() -> None:
    quantizer = BinaryQuantizer(3, spherical=False)
    same = torch.full((1, 3, 2, 2), 50.0)  # sure of one code, which is the only one
    assert quantizer.entropy_penalty(same).abs() < 1e-4
    halves = same.clone()
    halves[..., 0] = -50.0  # sure, of one of two
    assert torch.allclose(quantizer.entropy_penalty(halves), torch.tensor([-math.log(2)]), atol=1e-4)
    unsure = torch.zeros(1, 3, 2, 2)
    assert quantizer.entropy_penalty(unsure).abs() < 1e-6
    extremes = torch.tensor([0.0, 1.0, 0.5], requires_grad=True)
    entropy = binary_entropy(extremes)
    entropy.sum().backward()
    assert torch.allclose(entropy, torch.tensor([0.0, 0.0, math.log(2)]), atol=1e-5)
    assert extremes.grad is not None
    assert extremes.grad.isfinite().all()


@pytest.mark.parametrize("spherical", [False, True])
def test_the_penalty_makes_codes_be_used(spherical: bool) -> None:
    quantizer = BinaryQuantizer(4, spherical=spherical)
    x = (features(4, 8, 4) * 0.3 + 2.0).requires_grad_()  # all are one code
    assert code_usage(quantizer.encode(x), quantizer.sizes).used == 1
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        quantizer.entropy_penalty(x).mean().backward()
        optimizer.step()
    usage = code_usage(quantizer.encode(x), quantizer.sizes)
    assert min(usage.plane_bits) > 0.95
    assert usage.used >= 12


def test_settings_that_are_none() -> None:
    with pytest.raises(ConfigError, match=r"`bits` \(=0\) must be from 1 to 256"):
        BinaryQuantizer(0, spherical=True)
    with pytest.raises(ConfigError, match=r"`sharpness` \(=0\) must be above 0"):
        BinaryQuantizer(4, spherical=True, sharpness=0)


# Use


def test_use_by_hand() -> None:
    codes = torch.tensor([[0, 2], [0, 2], [1, 2], [0, 0]])
    usage = code_usage(codes, [2, 5])
    assert (usage.sites, usage.used, usage.possible, usage.share) == (4, 3, 10, 0.75)
    assert usage.plane_shares == (1.0, 0.4)
    three_to_one = 0.75 * math.log2(4 / 3) + 0.25 * 2
    assert usage.plane_bits == pytest.approx((three_to_one, three_to_one))
    assert usage.joint_bits == pytest.approx(1.5)
    assert usage.scalars() == {"codes_used": 0.75, "plane_bits": pytest.approx(three_to_one)}


def test_use_of_a_collapse_and_of_all() -> None:
    collapsed = code_usage(torch.zeros(2, 18, 3, 3, dtype=torch.int64), [2] * 18)
    assert (collapsed.used, collapsed.possible, collapsed.joint_bits, collapsed.plane_bits) == (
        1,
        2**18,
        0.0,
        (0.0,) * 18,
    )
    every = torch.tensor(list(itertools.product(range(3), range(4)))).T.reshape(1, 2, 4, 3)
    usage = code_usage(every, [3, 4])
    assert (usage.used, usage.share, usage.plane_shares) == (12, 1.0, (1.0, 1.0))
    assert usage.plane_bits == pytest.approx((math.log2(3), 2))
    assert usage.joint_bits == pytest.approx(math.log2(12))
    assert code_usage(torch.ones(1, 60, 1, 1, dtype=torch.int64), [65536] * 60).possible == 65536**60
