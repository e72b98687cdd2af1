"""Write tiny random encoders as transformers saves them, and the outputs of its torch models, for
every config.json in `golden/`. All read 24 tokens. In `modernbert` a global layer precedes a local
one, in which a token attends to 3 on either side. In `deberta-short` distances beyond 7 share a
row.
Needs the extra [parity]; run as `python -m tests.model.make_golden`.

golden/versions.json                  what wrote the folders
golden/minilm.npz                     last hidden states of the built-in encoder
golden/<variant>/config.json           of a variant; written again
golden/<variant>/model.safetensors    a classifier of three labels, float16
golden/<variant>/expected.npz         ids, mask, hidden states (0 at padding), logits
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent.parent))

from tiny_encoders import (
    GOLDEN,
    MINILM_TEXTS,
    VARIANTS,
    hf_config,
    padded,
    random_torch_model,
    torch_states,
)

from jaxclf.model import pretrained
from jaxclf.text.tokenizer.tokenize import load_tokenizer, tokenize
from jaxclf.types import Windows

SEED, LENGTHS, LENGTH = 1, (24, 1, 7, 13), 24
KEPT_TOKENS = 8  # of each text of the built-in encoder


def write_variant(variant: str) -> None:
    config = hf_config(variant, dtype="float32")
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
