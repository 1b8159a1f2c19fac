"""Stores the weights of a trained model in another type: half of the size in 16 bits, less than a quarter in 8.

    python examples/convert_weights.py runs/hyperprior light/hyperprior --dtype int8
    python examples/convert_weights.py runs/cdc light/cdc --dtype int8 --refer coder=hyperprior
    python examples/convert_weights.py src/difflate/weights light --dtype stored

The last one packs the files of each model of a folder of models, codebooks too, and changes no number of theirs.
What files mean does not change. What it costs: `difflate eval photos/ --codecs runs/cdc:25,light/cdc:25 --out report/`.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch

from difflate import registry
from difflate.errors import DifflateError
from difflate.files import atomic_write
from difflate.store.config import CONFIG, read_config
from difflate.store.deflated import deflate_file, load_tensors
from difflate.store.folders import DIGESTS, FolderModel, digest_of
from difflate.store.references import FROM, references, resolve

STORED, TRAINING = "stored", "training.yaml"


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


def pack_all(folder: Path, out: Path) -> None:
    """Writes the models in ``folder`` to ``out`` with packed files; what they say of each other's files is kept true.

    Raises DifflateError.
    """
    configs = {path.parent.name: read_config(path.parent) for path in sorted(folder.glob(f"*/{CONFIG}"))}
    if not configs:
        raise DifflateError(f"{folder}: holds no folders of models; name one that does")
    for name, config in configs.items():
        for part, entry in references(config).items():
            resolve(part, entry, folder / name)
        shutil.copytree(folder / name, out / name, dirs_exist_ok=True)
        for path in sorted((out / name).glob("*.safetensors")):
            deflate_file(path)
            before, after = load_tensors(folder / name / path.name), load_tensors(path)
            assert before.keys() == after.keys()
            assert all(torch.equal(value, after[key]) for key, value in before.items())
        if DIGESTS in config:
            config[DIGESTS] = {file: digest_of(out / name / file) for file in config[DIGESTS]}
    for name, config in configs.items():
        for entry in references(config).values():
            if entry[FROM] in configs:
                entry[DIGESTS] = configs[entry[FROM]][DIGESTS]
        atomic_write(out / name / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def main(words: list[str] | None = None) -> None:
    """Parses the command line, converts and says how large the folder was and is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of a model; of several with --dtype stored")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--dtype", default="int8", help="int8 (default), float16, bfloat16, float32 or stored")
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
        if arguments.dtype == STORED:
            pack_all(arguments.folder, arguments.out)
        else:
            convert(arguments.folder, arguments.out, arguments.dtype, {part: name for part, _, name in refer})
    except DifflateError as error:
        raise SystemExit(f"convert_weights: {error}") from error
    after = size_bytes(arguments.out)
    print(f"{arguments.out}: {after / 2**20:.2f} MiB of weights; before: {before / 2**20:.2f} MiB")


def size_bytes(folder: Path) -> int:
    """Of the tensors in a model's folder, or in those of several."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


if __name__ == "__main__":
    main()
