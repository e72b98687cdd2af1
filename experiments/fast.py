"""A quick answer: the pretrained encoder stays as it is, and a linear head is fitted to it.

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
    optim=Optim(lr=1e-5, freeze=("encoder",), init_head_from_regression=True),
    train=Train(epochs=1, batch_size=0),
)
