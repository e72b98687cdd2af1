"""GoEmotions with all 27 emotions and neutral: the ekman experiment on the finer labels.

    python data/get_goemotions.py
    jaxclf train --exp goemotions_original

About 40 minutes on one CPU core. Results are in README.md. An ensemble of three seeds:

    jaxclf ensemble --exp goemotions_original --seeds 3 --out runs/original

With `--distill goemotions_original` one more network is trained on the ensemble's probabilities.
"""

from dataclasses import replace

from jaxclf.experiment import catalog

ekman = catalog.load("goemotions_ekman")


def with_fine_labels(path: str) -> str:
    return path.replace("ekman", "original")


experiment = replace(
    ekman,
    data=replace(
        ekman.data,
        train=with_fine_labels(ekman.data.train),
        val=with_fine_labels(ekman.data.val),
        test=with_fine_labels(ekman.data.test),
        label_descriptions={},
    ),
)

space = catalog.load_space("goemotions_ekman")
