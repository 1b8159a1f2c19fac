"""A tiny CLIP text model with random weights, and its tokenizer, for tests."""

import json
from pathlib import Path
from typing import Any

import torch


def text_model(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """``folder``, in which transformers has saved one; its tokens are single bytes."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(seed)
    given = {
        "vocab_size": len(tokens), "hidden_size": 16, "intermediate_size": 32, "projection_dim": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16,
        "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1,
    }  # fmt: skip
    CLIPTextModel(CLIPTextConfig(**{**given, **settings})).save_pretrained(folder)
    return folder
