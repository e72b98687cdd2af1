"""GoEmotions with all 27 emotions and neutral: the ekman experiment on the finer labels.

    python data/get_goemotions.py
    python -m jaxclf.train --exp goemotions_original

About 22 minutes on two idle CPU cores. No score is stated: it was not run to the end yet.
"""

from dataclasses import replace

from jaxclf import catalogue

ekman = catalogue.load("goemotions_ekman")


def finer(path: str) -> str:
    return path.replace("ekman", "original")


experiment = replace(
    ekman,
    data=replace(
        ekman.data,
        train=finer(ekman.data.train),
        val=finer(ekman.data.val),
        test=finer(ekman.data.test),
        meanings={},
    ),
)

space = catalogue.load_space("goemotions_ekman")
