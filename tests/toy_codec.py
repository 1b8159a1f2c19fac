"""A whole codec in one file: means of 8x8 blocks through a finite scalar quantizer, coded with the context model."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from difflate import registry
from difflate.codecs.indices import IndexCodec
from difflate.entropy import ContextModel
from difflate.nn.colour import rgb_to_ycrcb, signed_to_uint8, ycrcb_to_signed_rgb
from difflate.nn.padding import pad_to_multiple
from difflate.options import IndexDecoding, IndexEncoding
from difflate.quantize.scalar import FiniteScalarQuantizer
from difflate.store.fingerprint import fingerprint

BITS = (5, 3, 3)


class BlockMeans(nn.Module):
    """The `LatentSpace`: Y, Cr and Cb of each block, 32, 8 and 8 values."""

    def __init__(self, name: str, context: ContextModel):
        super().__init__()
        self.name, self.stride_px, self.scalars = name, 8, FiniteScalarQuantizer([2**bits for bits in BITS])
        self.sizes, self.fingerprint = self.scalars.sizes, fingerprint("toy", context.tensors)

    device = property(lambda self: self.scalars.shift.device)
    codebooks = property(lambda self: self.scalars.codebooks)

    def to_latent(self, images: Tensor) -> Tensor:
        ycrcb = rgb_to_ycrcb(pad_to_multiple(images.to(self.device), 8))
        return self.scalars.encode(F.avg_pool2d(ycrcb, 8) / 127.5 - 1)

    def from_latent(self, latent: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        words = self.scalars.decode(latent.to(self.device)).split(1, dim=1)
        return signed_to_uint8(self.from_codewords(list(words)))[:, :, :height, :width]

    def from_codewords(self, codewords: list[Tensor]) -> Tensor:
        return ycrcb_to_signed_rgb(F.interpolate(127.5 * (torch.cat(codewords, dim=1) + 1), scale_factor=8))


class ToyCodec(IndexCodec):
    @classmethod
    def load(cls, folder: Path) -> "ToyCodec":
        context = ContextModel(BITS, load_file(folder / "model.safetensors"))
        return cls(folder.name, registry.KINDS["toy"], BlockMeans(folder.name, context), context, neutral={1: 4, 2: 4})


def save(context: ContextModel, folder: Path) -> None:
    save_file(context.tensors, folder / "model.safetensors")
    own = fingerprint("toy", context.tensors).hex()
    (folder / "config.json").write_text(f'{{"kind": "toy", "fingerprint": "{own}"}}')


ROW = dict(
    name="toy", role="codec", target="toy_codec:ToyCodec", number=14, encoding=IndexEncoding, decoding=IndexDecoding
)
