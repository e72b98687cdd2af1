"""The plain recipe: first token, pretrained pooler as head, cross-entropy, uniform sampling.

    jaxclf train --exp baseline

Two to three minutes on two CPU cores. Results are in README.md. The report also scores a fixed
threshold of 0.5.
"""

from pathlib import Path

from jaxclf.experiment.config import Data, Experiment, Optim, Spec, Train

DATA = Path(__file__).parent.parent / "data"

experiment = Experiment(
    data=Data(
        train=str(DATA / "train_data.json"),
        val=str(DATA / "val_data.json"),
        test=str(DATA / "test_data.json"),
        label_descriptions={
            "neutral": "nothing calls for support; it excludes all other labels",
            "stress": "demands are too many; the writer still functions",
            "unsafe_environment": "the writer, or someone in their care, is at present with people "
            "or in a place that harms or threatens them",
            "emotional_distress": "suffering beyond load: grief, panic, hopelessness, numbness, "
            "shame, loneliness that hurts",
            "self_harm_low": "thoughts of not living, an urge to hurt oneself, or recent "
            "self-harm, without present intent, plan or time",
            "self_harm_high": "present intent, a plan, a time that is set, farewells, belongings "
            "given away; it excludes self_harm_low",
        },
    ),
    pool=Spec("cls"),
    head=Spec("native"),
    loss=Spec("bce"),
    optim=Optim(lr=2e-4, schedule=Spec("linear")),
    train=Train(epochs=5, batch_size=16),
)
