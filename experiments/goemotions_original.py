"""GoEmotions with all 27 emotions and neutral: the ekman experiment on the finer labels.

    python data/get_goemotions.py
    python -m jaxclf.train --exp goemotions_original

About 40 minutes on one CPU core. Expect a test macro F1 of 0.538: three seeds gave 0.537
(0.515 to 0.556), 0.541 and 0.537, their blend 0.546 (0.522 to 0.565), by

    python -m jaxclf.ensemble --exp goemotions_original --seeds 3 --out runs/original

With `--distill goemotions_original` one more network learns from the blend: 0.546 (0.523 to 0.567).
"""

from dataclasses import replace

from jaxclf.experiment import catalog

ekman = catalog.load("goemotions_ekman")


def finer(path: str) -> str:
    return path.replace("ekman", "original")


experiment = replace(
    ekman,
    data=replace(
        ekman.data,
        train=finer(ekman.data.train),
        val=finer(ekman.data.val),
        test=finer(ekman.data.test),
        label_descriptions={},
    ),
)

space = catalog.load_space("goemotions_ekman")
