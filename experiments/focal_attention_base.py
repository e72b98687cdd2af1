"""The focal_attention experiment with bert-base-uncased (110 M parameters) in bfloat16, for a GPU.

    jaxclf train --exp focal_attention_base

No score is stated. The encoder comes from the Hugging Face hub, or from a folder:
encoder.name=FOLDER. Other encoders take the same command with their hub id, such as
encoder.name=answerdotai/ModernBERT-base.
"""

from dataclasses import replace

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Encoder

focal_attention = catalog.load("focal_attention")

experiment = replace(
    focal_attention,
    encoder=Encoder(name="bert-base-uncased", dtype="bfloat16"),
    # The learning rate of encoders of this size (arXiv 1810.04805, appendix A.3).
    optim=replace(focal_attention.optim, lr=5e-5),
)
