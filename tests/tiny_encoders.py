"""Tiny encoders of every family: their configs, their folders under `tests/model/golden/`, and
random torch models of them."""

import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "model" / "golden"
VARIANTS = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))
MINILM_TEXTS = (
    "I have not slept for a week and everything is due tomorrow",
    "ok",
    "The bus was late again, so we walked; it rained, we sang, nobody minded. " * 4,
)


def hf_config(variant, **changes):
    """The config.json of a variant, with changed values."""
    return json.loads((GOLDEN / variant / "config.json").read_text()) | changes


def random_torch_model(config, task="AutoModel"):
    """A torch model of a config.json, random in every parameter.

    Biases and norms are random too: a constant tensor would hide a name mistaken for another. The
    values are exact in float16.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**config)
    model = getattr(transformers, task).from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            parameter.copy_(parameter.half())
    return model


def padded(lengths, length, seed, pad):
    """Random token ids, one text per row, and their mask: int32 [texts, length]."""
    rng = np.random.default_rng(seed)
    mask = np.arange(length)[None] < np.array(lengths)[:, None]
    ids = np.where(mask, rng.integers(5, 60, mask.shape), pad)
    return ids.astype(np.int32), mask.astype(np.int32)


def torch_states(model, ids, mask):
    """Hidden states after the embeddings, the first layer and the last, float32 arrays."""
    import torch

    with torch.no_grad():
        output = model.base_model(
            torch.tensor(ids, dtype=torch.long),
            attention_mask=torch.tensor(mask, dtype=torch.long),
            output_hidden_states=True,
        )
    first, second = output.hidden_states[:2]
    return [states.numpy() for states in (first, second, output.last_hidden_state)]
