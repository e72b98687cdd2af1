"""The focal_attention experiment with XLM-R base (278 M parameters, a hundred languages) in
bfloat16, for a GPU.

    python -m jaxclf.train --exp focal_attention_xlm_roberta

No score is stated: it was not run on a GPU yet. The encoder comes from the Hugging Face hub, or
from a folder: encoder.name=FOLDER.
"""

from dataclasses import replace

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Encoder

focal_attention = catalog.load("focal_attention")

experiment = replace(
    focal_attention,
    encoder=Encoder(name="FacebookAI/xlm-roberta-base", dtype="bfloat16"),
    optim=replace(focal_attention.optim, lr=5e-5),
)
