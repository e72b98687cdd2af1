"""GoEmotions with six emotions and neutral: attention pooling, focal loss, a head with ten times
the learning rate of the encoder, packed rows of 64 tokens.

    python data/get_goemotions.py
    jaxclf train --exp goemotions_ekman

About 22 minutes on two idle CPU cores. Results are in README.md. An ensemble of three seeds:

    jaxclf ensemble --exp goemotions_ekman --seeds 3 --out runs/ekman

With `--distill goemotions_ekman` one more network is trained on the ensemble's probabilities.
"""

from pathlib import Path

from jaxclf.experiment.config import Data, Experiment, Optim, Spec, Train
from jaxclf.experiment.search_space import Choice, Float, Int

DATA = Path(__file__).parent.parent / "data" / "goemotions" / "ekman"

experiment = Experiment(
    data=Data(
        train=str(DATA / "train.jsonl"),
        val=str(DATA / "val.jsonl"),
        test=str(DATA / "test.jsonl"),
        max_length=64,  # 99 % of the texts have at most 38 tokens; a longer one is read in windows
        max_windows=6,
        label_descriptions={
            "anger": "anger, annoyance or disapproval",
            "disgust": "disgust",
            "fear": "fear or nervousness",
            "joy": "joy, amusement, approval, excitement, gratitude, love, optimism, relief, "
            "pride, admiration, desire or caring",
            "neutral": "none of the others, or no emotion at all",
            "sadness": "sadness, disappointment, embarrassment, grief or remorse",
            "surprise": "surprise, realization, confusion or curiosity",
        },
    ),
    pool=Spec("attention"),
    head=Spec("linear"),
    loss=Spec("focal", gamma=2.0),
    # Pool and head start at random: they take a higher learning rate, from the labels' frequencies.
    optim=Optim(
        lr=1e-4, schedule=Spec("cosine"), head_lr_multiplier=10.0, init_bias_from_prior=True
    ),
    train=Train(epochs=3, batch_size=32),
)

space = {
    "optim.lr": Float(3e-5, 5e-4, log=True),
    "optim.layerwise_lr_decay": Float(0.7, 1.0),
    "encoder.dropout": Float(0.0, 0.3),
    "pool": Choice("cls", "mean", "attention"),
    "loss": Choice(
        "bce",
        Spec("focal", gamma=Float(0.5, 4.0)),
        Spec("asymmetric", gamma_neg=Float(1.0, 6.0), clip=Float(0.0, 0.1)),
    ),
    "train.batch_size": Choice(16, 32, 64),
    "train.epochs": Int(2, 4),
}
