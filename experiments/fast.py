"""A quick answer: a linear head is fitted to the vectors of the pretrained encoder, and then trains
for two epochs with its last layers.

    jaxclf train --exp fast

README.md says what it reaches.
"""

from dataclasses import replace

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Optim, Spec, Train

recommended = catalog.load("recommended")

experiment = replace(
    recommended,
    pool=Spec("mean"),
    optim=Optim(
        lr=5e-4,
        # All but the last two layers of the built-in encoder.
        freeze=("encoder/embeddings", "encoder/layer_[0-3]"),
        init_head_from_regression=True,
    ),
    train=Train(epochs=2, batch_size=0),
)
