"""What a text tells a diffusion: the pooled embedding of a CLIP text model (Radford et al. 2021), which stays as it is.

The folder is one of transformers, of CLIP as a whole or of its text model alone: config.json, model.safetensors and the
tokenizer's files. The network and the tokenizer are those of transformers; weights are read as tensors only.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from difflate.errors import ModelError
from difflate.extras import require
from difflate.models.stored_network import StoredNetwork, digest_of
from difflate.store.config import read_config
from difflate.store.hub import MODEL_FILES, model_folder
from difflate.store.unfilled import Unfilled
from difflate.store.weights import count_numbers, weight_files

_KINDS = ("clip", "clip_text_model")
_SETTINGS = {
    "vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id",
}  # fmt: skip
"""What is taken of config.json."""
_WHOLE_TOKENIZER, _PARTS_OF_TOKENIZER = "tokenizer.json", ("vocab.json", "merges.txt")
_FILES = [*MODEL_FILES, _WHOLE_TOKENIZER, *_PARTS_OF_TOKENIZER, "tokenizer_config.json", "special_tokens_map.json"]
_PREFIX = "text_model."
_LEGACY_END = 2
"""What the first CLIP models call the end of a text in config.json; it is the largest token there."""
_MOST_CHANNELS, _MOST_TOKENS = 1 << 14, 1 << 12
_SPARE_NUMBERS = 1 << 20


class TextEncoder(StoredNetwork):
    """Texts to vectors of `channels` numbers."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        """``config``: that of the text model. Raises ModelError."""
        super().__init__(folder)
        self._config = {key: value for key, value in config.items() if key in _SETTINGS}
        self.channels = self._number("hidden_size", 512, _MOST_CHANNELS)
        self.tokens = self._number("max_position_embeddings", 77, _MOST_TOKENS)
        """Of a text those that count, with one at its start and one at its end."""

    def _number(self, key: str, default: int, most: int) -> int:
        value = self._config.get(key, default)
        if not isinstance(value, int) or not 2 <= value <= most:
            raise ModelError(
                f"text model {self.folder}: {key} (={value}) must be from 2 to {most}; name another folder"
            )
        return value

    @functools.cached_property
    def digest(self) -> str:  # type: ignore[override]
        """Of weights and tokenizer. Raises ModelError if a file is missing."""
        return digest_of([*self._weights(), *self._tokenizer_files()])

    def check_same(self, digest: str, folder: Path) -> None:
        """Raises ModelError if this is another model than that which the one in ``folder`` was trained with."""
        if self.digest != digest:
            raise ModelError(
                f"{folder}: was trained with another text model than the one in {self.folder}; get that one"
            )

    def _weights(self) -> list[Path]:
        paths = weight_files(self.folder)
        if not paths:
            raise ModelError(f"text model {self.folder}: model.safetensors is missing; get the folder again")
        return paths

    def _tokenizer_files(self) -> list[Path]:
        whole = self.folder / _WHOLE_TOKENIZER
        paths = [whole] if whole.is_file() else [self.folder / name for name in _PARTS_OF_TOKENIZER]
        for path in paths:
            if not path.is_file():
                raise ModelError(f"text model {self.folder}: {path.name} is missing; get the folder again")
        return paths

    def load(self) -> nn.Module:
        """See `StoredNetwork.load`. Raises ConfigError without transformers."""
        transformers = require("transformers", "text")
        self._weights()
        self._tokenizer_files()
        try:
            config = transformers.CLIPTextConfig(**self._config)
            with Unfilled(_SPARE_NUMBERS + count_numbers(self.folder)), torch.random.fork_rng(devices=[]):
                network = transformers.CLIPTextModel(config)
            self._fill(network)
            tokenizer = transformers.CLIPTokenizerFast.from_pretrained(str(self.folder), local_files_only=True)
        except ModelError:
            raise
        except Exception as error:  # tokenizers raises no class of its own
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"text model {self.folder}: cannot be loaded ({reason}); get the folder again") from error
        # an end that is never found would make all texts the same
        known = config.eos_token_id in (_LEGACY_END, tokenizer.eos_token_id)
        if not known or max(tokenizer.get_vocab().values()) >= config.vocab_size:
            raise ModelError(
                f"text model {self.folder}: the tokenizer is not that of its weights; get the folder again"
            )
        self._tokenizer = tokenizer
        return network

    def _fill(self, network: nn.Module) -> None:
        """Reads the weights, under either of the names that versions of transformers give them."""
        wanted = {name.removeprefix(_PREFIX): name for name in network.state_dict()}
        shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        found: dict[str, Tensor] = {}
        for path in self._weights():
            with safe_open(str(path), "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    own = wanted.get(name.removeprefix(_PREFIX))
                    if own is not None and tuple(file.get_slice(name).get_shape()) == shapes[own]:
                        found[own] = file.get_tensor(name).float()
        missing = sorted(shapes.keys() - found.keys())
        if missing:
            raise ModelError(
                f"text model {self.folder}: the weights do not fit config.json ({missing[0]}); get the folder again"
            )
        network.load_state_dict(found)

    @torch.no_grad()
    def embed(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """(B, `channels`) float32 on ``device``: the last layer at the end of each text, of which the first `tokens`
        count. Raises ModelError, ConfigError without transformers."""
        network = self.network(device)
        # all of one length, so that none depends on the others
        found = self._tokenizer(list(texts), padding="max_length", truncation=True, max_length=self.tokens)
        tokens = torch.tensor(found["input_ids"], device=device)
        with torch.autocast(device.type, enabled=False):  # training sees what a codec sees
            return network(input_ids=tokens).pooler_output


def text_encoder(name: str, *, allow_download: bool = False) -> TextEncoder:
    """The text model in a folder, or of a Hugging Face repository that is in the cache, fetched if ``allow_download``.

    Its weights are read when it is first used. Raises ModelError if there is none.
    """
    folder = model_folder(name, allow_download=allow_download, files=_FILES)
    if folder is None:
        raise ModelError(
            f"text model {name!r} is not here; put its folder there, or name another with decoder.text=FOLDER"
        )
    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in _KINDS:
        raise ModelError(f"text model {folder}: is a model of the kind {kind}; name one of transformers' CLIP")
    own = config.get("text_config") if kind == "clip" else config
    return TextEncoder(folder, own if isinstance(own, dict) else {})
