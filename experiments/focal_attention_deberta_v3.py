"""The focal_attention experiment with DeBERTa-v3-base (184 M parameters) in bfloat16, for a GPU.

    python -m jaxclf.train --exp focal_attention_deberta_v3

No score is stated: it was not run on a GPU yet. The encoder comes from the Hugging Face hub, or
from a folder: encoder.name=FOLDER.
"""

from dataclasses import replace

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Encoder

focal_attention = catalog.load("focal_attention")

experiment = replace(
    focal_attention,
    encoder=Encoder(name="microsoft/deberta-v3-base", dtype="bfloat16"),
    optim=replace(focal_attention.optim, lr=3e-5),
)
