"""An experiment as a value: frozen dataclasses of everything a run depends on.

A field's annotation holds its type, its Bound where numbers are limited, and its description, from
which `jaxclf train --help` and `--print-config` are written.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from jaxclf.types import NON_NEGATIVE, POSITIVE, POSITIVE_FRACTION, Bound, Windows

COUNT = Bound(1, 2**20)
INDEX = Bound(0, 2**10)


@dataclass(frozen=True, init=False)
class Spec:
    """A name in a registry and the options of that function: `Spec("focal", gamma=2.0)`."""

    name: str
    options: dict[str, Any]

    def __init__(self, name: str, /, **options: Any):
        object.__setattr__(self, "name", name)
        # A list from JSON and a tuple from Python are the same value.
        plain = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        object.__setattr__(self, "options", plain)


@dataclass(frozen=True)
class Data:
    """The data files, and how their texts are cut into windows of tokens."""

    train: Annotated[str, "training file; a `split` column may name train, val and test rows"]
    val: Annotated[str, 'validation file; "": rows of the training file']
    test: Annotated[str, 'test file; "": rows of the training file']
    val_share: Annotated[
        float, Bound(0, 1, open=True), "share of the training file for val, where it has no file"
    ] = 0.15
    test_share: Annotated[
        float, Bound(0, 1, open=True), "share of the training file for test, where it has no file"
    ] = 0.15
    split_seed: Annotated[int, Bound(0, 2**31), "of that division; `seed` does not change it"] = 0
    split: Annotated[str, 'split.json of a run, whose division to take; "": by chance'] = ""
    labels: Annotated[
        tuple[str, ...], "the labels in order; other columns are left out; empty: all"
    ] = ()
    text_column: Annotated[str, 'column of the texts; "": `text`'] = ""
    label_column: Annotated[str, 'column that lists labels; "": `labels`'] = ""
    ignore_columns: Annotated[tuple[str, ...], "columns that are left out"] = ()
    max_length: Annotated[
        int, Bound(0, 2**20), "tokens in a window and in a packed row; 0: chosen from the texts"
    ] = 128
    max_windows: Annotated[int, COUNT, "windows that are read of a long text"] = 4
    window_overlap: Annotated[int, Bound(0, 2**20), "tokens that neighboring windows share"] = 16
    max_train_examples: Annotated[
        int, Bound(0, 2**31), "training examples to use, the same for every seed; 0: all"
    ] = 0
    train_share: Annotated[
        float,
        POSITIVE_FRACTION,
        "share of these to use, stratified; smaller ones lie in larger ones",
    ] = 1.0
    folds: Annotated[int, INDEX, "folds of the training file, one held out; 0: none"] = 0
    fold: Annotated[int, Bound(0, 2**10 - 1), "fold to hold out and score as `held_out`"] = 0
    soft_labels: Annotated[
        str, 'file of probabilities (npz) to train on; "": the labels of the training file'
    ] = ""
    soft_label_weight: Annotated[
        float, POSITIVE_FRACTION, "weight of the soft labels; the labels have the rest"
    ] = 1.0
    label_descriptions: Annotated[dict[str, str], "meaning of each label, for the model card"] = (
        field(default_factory=dict)
    )

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that `read` is told of."""
        return {
            "text_column": self.text_column,
            "ignore_columns": self.ignore_columns,
            "label_column": self.label_column,
        }

    @property
    def windows(self) -> Windows:
        return Windows(self.max_length, self.max_windows, self.window_overlap)


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder."""

    name: Annotated[str, "built-in alias, folder, or id on the Hugging Face hub"] = "minilm"
    revision: Annotated[str, "commit of a hub id; filled in when the run starts"] = ""
    dtype: Annotated[
        Literal["float32", "bfloat16"], "of the computation; parameters are float32"
    ] = "float32"
    dropout: Annotated[float, Bound(0, 1), "of hidden states"] = 0.1
    attention_dropout: Annotated[float, Bound(0, 1), "of attention probabilities"] = 0.1


@dataclass(frozen=True)
class Optim:
    """AdamW and its schedule; a step is one optimizer update."""

    lr: Annotated[float, Bound(0, 1, open=True), "highest learning rate"] = 2e-4
    weight_decay: Annotated[float, NON_NEGATIVE, "decoupled weight decay of kernels"] = 0.01
    schedule: Annotated[Spec, "learning-rate schedule"] = Spec("cosine")
    warmup_ratio: Annotated[float, Bound(0, 1), "fraction of all steps in the warm-up"] = 0.1
    max_grad_norm: Annotated[float, POSITIVE, "global norm that gradients are clipped to"] = 1.0
    gradient_accumulation_steps: Annotated[int, COUNT, "micro-batches per step"] = 1
    freeze: Annotated[
        tuple[str, ...], "frozen parameters: encoder/embeddings, encoder/layer_[0-3]"
    ] = ()
    layerwise_lr_decay: Annotated[
        float, Bound(0, 2, open=True), "learning rate of an encoder layer / that of the next one"
    ] = 1.0
    head_lr_multiplier: Annotated[
        float, Bound(0, 2**10, open=True), "learning rate of pool and head / the last layer's"
    ] = 1.0
    reinit_layers: Annotated[int, INDEX, "last encoder layers to initialize at random"] = 0
    init_bias_from_prior: Annotated[
        bool, "initialize the last bias at the labels' log odds instead of 0"
    ] = False
    init_head_from_regression: Annotated[
        bool, "start a linear head at a logistic regression on the pretrained vectors"
    ] = False


@dataclass(frozen=True)
class Regularization:
    """Regularization besides dropout and weight decay."""

    rdrop: Annotated[float, NON_NEGATIVE, "weight of R-Drop's consistency loss; 0: off"] = 0.0
    mixup: Annotated[
        float, NON_NEGATIVE, "mix pairs of pooled texts by Beta(mixup, mixup); 0: off"
    ] = 0.0
    adversarial: Annotated[Spec, "adversarial perturbation of the parameters"] = Spec("none")
    ema_decay: Annotated[
        float, Bound(0, 1), "decay per step of a moving average of the weights; 0: off"
    ] = 0.0
    weight_averaging: Annotated[Spec, "final weights from those of the epochs"] = Spec("best")


@dataclass(frozen=True)
class Train:
    """The training loop."""

    epochs: Annotated[
        int, Bound(0, 2**20), "passes over the training set; 0: chosen from its size"
    ] = 3
    batch_size: Annotated[
        int,
        Bound(0, 2**20),
        "average number of examples in a packed batch; 0: chosen from the size",
    ] = 32
    metric: Annotated[
        str,
        "validation metric, with thresholds fitted there, that selects the epoch: the best; of a "
        "loss the last epoch within 2 % of the lowest",
    ] = "calibrated_log_loss"
    patience: Annotated[
        int, Bound(0, 2**20), "epochs without a better score before stopping; 0: never stop"
    ] = 0
    checkpoint_every: Annotated[
        int, Bound(1, 2**31), "steps between checkpoints, besides one per epoch"
    ] = 500
    track: Annotated[
        Literal["none", "wandb", "mlflow"], "tracker that gets the figures of TensorBoard too"
    ] = "none"
    init_from: Annotated[
        str,
        "run or model to start from: its encoder, and with the same labels, pool and head these "
        'too; "": the pretrained encoder',
    ] = ""


@dataclass(frozen=True)
class Experiment:
    """Everything a run depends on. The run folder stores it, resolved, as config.json."""

    data: Data
    encoder: Encoder = Encoder()
    pool: Annotated[Spec, "hidden states to one vector per text"] = Spec("cls")
    head: Annotated[Spec, "vector to logits"] = Spec("native")
    loss: Annotated[Spec, "training loss"] = Spec("bce")
    sampler: Annotated[Spec, "examples of an epoch"] = Spec("shuffle")
    augment: Annotated[Spec, "variation of training texts"] = Spec("none")
    optim: Optim = Optim()
    regularization: Regularization = Regularization()
    train: Train = Train()
    calibration: Annotated[Spec, "calibration of probabilities, fitted on validation"] = Spec(
        "platt"
    )
    threshold: Annotated[Spec, "thresholds of the labels, fitted on validation"] = Spec("auto")
    seed: Annotated[int, Bound(0, 2**31), "of initialization, order, dropout, augmentation"] = 0
