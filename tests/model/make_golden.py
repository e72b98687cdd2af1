"""Write `golden/`: tiny random encoders as transformers saves them, and the outputs of its torch
models. Needs the extra [parity]; run as `python -m tests.model.make_golden`.

golden/versions.json                  what wrote the folders
golden/minilm.npz                     last hidden states of the built-in encoder
golden/<variant>/config.json
golden/<variant>/model.safetensors    a classifier of three labels, float16
golden/<variant>/expected.npz         ids, mask, hidden states (0 at padding), logits
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent.parent))

from tiny_encoders import (
    GOLDEN,
    MINILM_TEXTS,
    padded,
    random_torch_model,
    torch_states,
)

from jaxclf.model import pretrained
from jaxclf.text.tokenizer.tokenize import load_tokenizer, tokenize
from jaxclf.types import Windows

SEED, LENGTHS, LENGTH = 1, (24, 1, 7, 13), 24
KEPT_TOKENS = 8  # of each text of the built-in encoder

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
DISTILLED = {
    "vocab_size": 60,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 24,
}
RELATIVE = {"relative_attention": True, "type_vocab_size": 0, "position_biased_input": False}
V3 = {
    **RELATIVE,
    "pos_att_type": "p2c|c2p",
    "position_buckets": 8,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
}
# ModernBERT's own ids lie beyond the tiny vocabulary.
MODERN = {
    **SIZES,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "pad_token_id": 0,
}

# Name of a variant -> (model_type, values). Every variant reads 24 tokens.
VARIANTS = {
    "bert": ("bert", SIZES),
    "roberta": ("roberta", {**SIZES, "max_position_embeddings": 26}),
    "xlm-roberta": (
        "xlm-roberta",
        {**SIZES, "max_position_embeddings": 26, "type_vocab_size": 1, "hidden_act": "gelu_new"},
    ),
    "distilbert": ("distilbert", DISTILLED),
    "distilbert-relu": ("distilbert", {**DISTILLED, "activation": "relu"}),
    "electra": ("electra", {**SIZES, "embedding_size": 16}),
    "electra-unprojected": ("electra", {**SIZES, "embedding_size": 32}),
    "deberta": ("deberta", {**SIZES, **RELATIVE, "pos_att_type": "c2p|p2c"}),
    # Distances beyond 7 share a row; absolute positions and types are used.
    "deberta-short": (
        "deberta",
        {
            **SIZES,
            "relative_attention": True,
            "max_relative_positions": 7,
            "pos_att_type": ["p2c"],
            "type_vocab_size": 2,
            "pooler_hidden_act": "tanh",
        },
    ),
    "deberta-v2": ("deberta-v2", {**SIZES, **V3}),
    "deberta-v2-xlarge": (
        "deberta-v2",
        {**SIZES, **V3, "conv_kernel_size": 3, "conv_act": "gelu"},
    ),
    "deberta-v2-apart": (
        "deberta-v2",
        {
            **SIZES,
            "relative_attention": True,
            "type_vocab_size": 2,
            "pos_att_type": ["c2p", "p2c"],
            "conv_kernel_size": 5,
        },
    ),
    # A global layer, then a local one, in which a token attends to 3 on either side.
    "modernbert": ("modernbert", {**MODERN, "local_attention": 6}),
    "modernbert-bias": (
        "modernbert",
        {
            **MODERN,
            "local_attention": 18,
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "classifier_bias": True,
            "classifier_activation": "silu",
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
}


def write_variant(variant: str) -> None:
    model_type, values = VARIANTS[variant]
    config = {"model_type": model_type, **values, "num_labels": 3}
    model = random_torch_model(config, "AutoModelForSequenceClassification")
    ids, mask = padded(LENGTHS, LENGTH, SEED, model.config.pad_token_id or 0)
    # States of padding mean nothing, and zeros compress.
    states = [values * mask[..., None] for values in torch_states(model, ids, mask)]
    with torch.no_grad():
        logits = model(
            torch.tensor(ids, dtype=torch.long),
            attention_mask=torch.tensor(mask, dtype=torch.long),
        ).logits.numpy()
    named = dict(zip(("embedded", "first", "last"), states, strict=True))
    expected = {"ids": ids, "mask": mask, **named, "logits": logits}
    model.half().save_pretrained(GOLDEN / variant)
    np.savez_compressed(GOLDEN / variant / "expected.npz", **expected)


def write_minilm() -> None:
    folder = pretrained.resolve("minilm").folder
    tokens = tokenize(load_tokenizer(folder), MINILM_TEXTS, Windows(128, 1, 0))
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    states = []
    for start, end in zip(tokens.starts[:-1], tokens.starts[1:], strict=True):
        ids = tokens.ids[None, start:end]
        states.append(torch_states(model, ids, np.ones_like(ids))[2][0, :KEPT_TOKENS])
    named = {f"text_{index}": rows for index, rows in enumerate(states)}
    np.savez_compressed(GOLDEN / "minilm.npz", **named)


def main() -> None:
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for variant in VARIANTS:
        write_variant(variant)
    write_minilm()
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "weights_seed": 0,
        "ids_seed": SEED,
    }
    (GOLDEN / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
