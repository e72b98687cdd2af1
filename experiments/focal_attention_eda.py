"""The focal_attention experiment on varied texts: dropped, swapped, misspelled and exchanged words.

    jaxclf train --exp focal_attention_eda

No score is stated. Words that tell one label of the demonstration set from another are not varied:
persons, harm, help and time.
"""

from dataclasses import replace

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Spec

PROTECTED_WORDS = tuple(
    """
    i me my myself mine you your he him his she her they them their we us our abuse abused abuses
    abusing afraid alive alone angry anger attack attacked beat beaten beating better bleed
    bleeding blood burn burned burning bye cut cuts cutting danger dangerous dead death die died
    dies dying disappear drown end ended ending enough ever everyone fear fine goodbye gun gone
    hang hanging hate hated hates help helped helps hide hiding hit hits hitting hope hopeless
    hurt hurting hurts jump jumping kill killed killing kills knife last leave leaving letter live
    living lock locked lose losing lost miss nobody note numb ok okay overdose pain panic pills
    plan planned plans police punch punched push pushed rope run safe scared scream screaming
    self-harm shelter shoot sleep soon suicidal suicide survive survived threat threaten
    threatened threatening threatens threats tired today tonight tomorrow unsafe violence violent
    want wanted wants weapon wish wished worthless yesterday
    """.split()
)

experiment = replace(
    catalog.load("focal_attention"), augment=Spec("eda", protected_words=PROTECTED_WORDS)
)
