"""The values that flow through the package: NamedTuples with their shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # slow to import and not needed at run time
    from jaxtyping import Float32, Int32, UInt32


class Bound(NamedTuple):
    """The range of an option's values: [low, high), or (low, high) if `open`."""

    low: float
    high: float
    open: bool = False

    def contains(self, value: float | int) -> bool:
        return (self.low < value if self.open else self.low <= value) and value < self.high

    def __str__(self) -> str:
        end = "1]" if self.high == FRACTION.high else f"{self.high})"
        return f"{'(' if self.open else '['}{self.low}, {end}"


FRACTION = Bound(0, math.nextafter(1, 2))  # 1 included
POSITIVE_FRACTION = Bound(0, math.nextafter(1, 2), open=True)
NON_NEGATIVE = Bound(0, math.inf)
POSITIVE = Bound(0, math.inf, open=True)


class Examples(NamedTuple):
    """Rows of one data file, as columns. `labels` is 0 wherever `label_mask` is 0."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    labels: Float32[Any, "examples classes"]
    label_mask: Float32[Any, "examples classes"]
    names: tuple[str, ...]
    source: str  # the file with its format and number of rows, for the log
    groups: tuple[str, ...] = ()  # "" for a row without one; empty if no row has one
    splits: tuple[str, ...] = ()  # train, val or test, as the file says; empty if it does not
    lines: tuple[int, ...] = ()  # of the file
    file: str = ""
    # Krippendorff's alpha of each label, NaN if undefined; empty if no text has several annotators
    agreement: tuple[float, ...] = ()


class Windows(NamedTuple):
    """How a long text is cut into windows of tokens."""

    max_length: int  # most tokens in a window, special ones included
    max_windows: int  # text beyond the last window is not read
    overlap: int  # tokens that neighboring windows share


class Tokens(NamedTuple):
    """Ragged token ids: window w holds `ids[starts[w]:starts[w + 1]]` and belongs to example
    `example_index[w]`.

    The indices ascend, and every example owns at least one window.
    """

    ids: Int32[Any, " tokens"]
    starts: Int32[Any, " windows+1"]
    example_index: Int32[Any, " windows"]


class Shape(NamedTuple):
    """The one static shape of a batch: R rows of T tokens, N slots for examples."""

    rows: int
    length: int
    slots: int


class Batch(NamedTuple):
    """Rows of several texts.

    Tokens attend to tokens of the same segment; segment 0 is padding. `examples` is the slot that
    a token is pooled into, `positions` start at 0 in each segment, `weight` is 0 in empty slots.
    """

    ids: Int32[Any, "rows length"]
    positions: Int32[Any, "rows length"]
    segments: Int32[Any, "rows length"]
    examples: Int32[Any, "rows length"]
    labels: Float32[Any, "slots classes"]
    label_mask: Float32[Any, "slots classes"]
    weight: Float32[Any, " slots"]


class Mix(NamedTuple):
    """Mixup: each example keeps the fraction `lam` of itself and takes the rest from the example
    in slot `index`."""

    index: Int32[Any, " slots"]
    lam: Float32[Any, "slots 1"]


class LabelStats(NamedTuple):
    """Per label, the number of positives and of known labels in the training set."""

    positives: Float32[Any, " classes"]
    known: Float32[Any, " classes"]


class State(NamedTuple):
    """The state that training carries from step to step; a checkpoint holds exactly this."""

    step: Int32[Any, ""]
    params: dict[str, Any]
    opt_state: Any
    key: UInt32[Any, " words"]  # raw dropout key; the step's key is fold_in(key, step)
    ema: Any = ()  # moving average of the parameters, if ema_decay > 0


class Predictions(NamedTuple):
    """Probabilities in input order; `labels` is NaN where a label is unknown."""

    ids: Any  # str [N]
    probs: Float32[Any, "examples classes"]
    labels: Float32[Any, "examples classes"]
    split: str
