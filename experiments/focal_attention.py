"""The baseline with attention pooling, a residual head, focal loss, a cosine schedule and rare
labels drawn more often.

    jaxclf train --exp focal_attention

Two to three minutes on two CPU cores. Results are in README.md.

    jaxclf tune --exp focal_attention --trials 30

searches `space` on validation: an hour or more on two CPU cores.
"""

from dataclasses import replace

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Spec
from jaxclf.experiment.search_space import Choice, Float, Int

baseline = catalog.load("baseline")

experiment = replace(
    baseline,
    pool=Spec("attention"),
    head=Spec("residual"),
    loss=Spec("focal", gamma=2.0),
    sampler=Spec("balanced", power=0.5),
    optim=replace(baseline.optim, schedule=Spec("cosine")),
)

space = {
    "optim.lr": Float(5e-5, 1e-3, log=True),
    "optim.layerwise_lr_decay": Float(0.7, 1.0),
    "encoder.dropout": Float(0.0, 0.3),
    "pool": Choice("cls", "mean", "mean_max", "attention"),
    "head": Choice("linear", "residual"),
    "loss": Choice("bce", Spec("focal", gamma=Float(0.5, 4.0))),
    "sampler": Choice("shuffle", Spec("balanced", power=Float(0.2, 1.0))),
    "train.epochs": Int(3, 8),
}
