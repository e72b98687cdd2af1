"""The focal_attention experiment with ModernBERT-base (149 M parameters) in bfloat16, for a GPU.

    python -m jaxclf.train --exp focal_attention_modernbert

No score is stated: it was not run on a GPU yet. The encoder comes from the Hugging Face hub, or
from a folder: encoder.name=FOLDER. It was pretrained without dropout in its layers and is tuned so;
data.max_length may be up to 8192.
"""

from dataclasses import replace

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Encoder

focal_attention = catalog.load("focal_attention")

experiment = replace(
    focal_attention,
    encoder=Encoder(
        name="answerdotai/ModernBERT-base", dtype="bfloat16", dropout=0.0, attention_dropout=0.0
    ),
    optim=replace(focal_attention.optim, lr=8e-5),
)
