"""Stores the weights of a trained model in another type: half of the size in 16 bits, a quarter in 8.

    python examples/convert_weights.py runs/hyperprior light/hyperprior --dtype int8
    python examples/convert_weights.py runs/cdc light/cdc --dtype int8 --refer coder=hyperprior

What files mean does not change. What it costs: `difflate eval photos/ --codecs runs/cdc:25,light/cdc:25 --out report/`.
"""

import argparse
import shutil
from pathlib import Path

from difflate import registry
from difflate.errors import DifflateError
from difflate.store.config import read_config
from difflate.store.folders import FolderModel

TRAINING = "training.yaml"


def convert(folder: Path, out: Path, dtype: str, refer: dict[str, str]) -> None:
    """Writes the model in ``folder`` to ``out``, as `FolderModel.save_pretrained` does. Raises DifflateError."""
    kind = registry.kind_of(read_config(folder))
    if kind is None:
        raise DifflateError(f"{folder}: is a model of an unknown kind; name another folder")
    loaded = kind.load_class().load(folder)
    model = getattr(loaded, "model", loaded)  # a codec has one
    if not isinstance(model, FolderModel):
        raise DifflateError(
            f"{folder}: codebooks are stored as they are, files depend on each bit; name another folder"
        )
    model.save_pretrained(out, dtype=dtype, refer=refer)
    if (folder / TRAINING).is_file() and folder.resolve() != out.resolve():
        shutil.copyfile(folder / TRAINING, out / TRAINING)


def main(words: list[str] | None = None) -> None:
    """Parses the command line, converts and says how large the folder was and is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of a model")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--dtype", default="int8", help="int8, float16, bfloat16 or float32; default int8")
    parser.add_argument(
        "--refer", action="append", default=[], metavar="PART=MODEL",
        help="name the model that a part is, bundled or in a folder beside OUT, instead of storing it again",
    )  # fmt: skip
    arguments = parser.parse_args(words)
    before = size_bytes(arguments.folder)
    refer = [word.partition("=") for word in arguments.refer]
    if not all(part and name for part, _, name in refer):
        parser.error(f"--refer (={' '.join(arguments.refer)}) must be PART=MODEL, such as coder=hyperprior-small")
    try:
        convert(arguments.folder, arguments.out, arguments.dtype, {part: name for part, _, name in refer})
    except DifflateError as error:
        raise SystemExit(f"convert_weights: {error}") from error
    after = size_bytes(arguments.out)
    print(f"{arguments.out}: {after / 2**20:.2f} MiB of weights; before: {before / 2**20:.2f} MiB")


def size_bytes(folder: Path) -> int:
    """Of the tensors in a model's folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


if __name__ == "__main__":
    main()
