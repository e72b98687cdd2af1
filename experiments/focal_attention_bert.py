"""The focal_attention experiment with bert-base-uncased (110 M parameters) in bfloat16, for a GPU.

    python -m jaxclf.train --exp focal_attention_bert

No score is stated: it was not run on a GPU yet. The encoder comes from the Hugging Face hub, or
from a folder: encoder.name=FOLDER.
"""

from dataclasses import replace

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Encoder

focal_attention = catalog.load("focal_attention")

experiment = replace(
    focal_attention,
    encoder=Encoder(name="bert-base-uncased", dtype="bfloat16"),
    # The smaller rate that encoders of this size are fine-tuned with (arXiv 1810.04805, appendix
    # A.3).
    optim=replace(focal_attention.optim, lr=5e-5),
)
