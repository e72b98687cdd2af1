"""The experiment for new data: it chooses row length, batch size and number of epochs.

    jaxclf train --exp recommended

README.md says what its values were chosen on, and what it reaches.

    jaxclf tune --exp recommended --data mine.csv

searches `space` on validation.
"""

from dataclasses import replace

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Optim, Spec, Train
from jaxclf.experiment.search_space import Choice, Float

baseline = catalog.load("baseline")

experiment = replace(
    baseline,
    # The descriptions are of the demonstration's labels.
    data=replace(baseline.data, max_length=0, max_windows=8, label_descriptions={}),
    pool=Spec("attention"),
    head=Spec("linear"),
    # Pool and head start at random: they take a higher learning rate, from the labels' frequencies.
    optim=Optim(
        lr=2e-4, layerwise_lr_decay=0.9, head_lr_multiplier=10.0, init_bias_from_prior=True
    ),
    train=Train(epochs=0, batch_size=0),
)

space = {
    "optim.lr": Float(5e-5, 5e-4, log=True),
    "optim.layerwise_lr_decay": Float(0.7, 1.0),
    "encoder.dropout": Float(0.05, 0.3),
    "pool": Choice("cls", "mean", "attention"),
    "loss": Choice("bce", Spec("focal", gamma=Float(0.5, 4.0))),
    "regularization.rdrop": Choice(0.0, 1.0),
}
