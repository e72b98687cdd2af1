"""Strict flags for all tests, set before jax is imported: shapes checked, ranks never promoted,
two CPU devices."""

import atexit
import os
import resource
import shutil
import signal
import tempfile

# A shell that starts the tests in the background lets them, and what they start, ignore SIGINT;
# nohup does so with SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
# Many tests train the same tiny network, here or by command: what one compiled serves the others.
# A folder that the caller names is used, and kept.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    CACHE = tempfile.mkdtemp(prefix="jaxclf-tests-")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("jaxclf", "beartype.beartype")

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_default_matmul_precision", "highest")

import json  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import safetensors.numpy  # noqa: E402
import tiny_models  # noqa: E402
import tokenizers  # noqa: E402

import jaxclf  # noqa: E402
from jaxclf.decisions.calibration import Calibration  # noqa: E402
from jaxclf.experiment import catalog  # noqa: E402
from jaxclf.experiment.config import Data, Encoder, Experiment, Spec  # noqa: E402
from jaxclf.experiment.overrides import override  # noqa: E402
from jaxclf.model.encoders import bert  # noqa: E402
from jaxclf.model.encoders.common import Settings  # noqa: E402
from jaxclf.model.storage.weights import to_tensors  # noqa: E402
from jaxclf.training.run import train  # noqa: E402

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def tiny_config():
    """The config.json of a BERT of two small layers."""
    return {
        "model_type": "bert",
        "vocab_size": 400,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }


@pytest.fixture(scope="session")
def tiny_experiment():
    return Experiment(
        Data("", "", "", max_length=16, max_windows=2, window_overlap=2),
        encoder=Encoder(name="tiny"),
        pool=Spec("attention", hidden_dim=8),
        head=Spec("linear"),
    )


@pytest.fixture(scope="session")
def demo_rows():
    """Rows of the demonstration set, by split."""
    return {
        split: json.loads((ROOT / "data" / f"{split}_data.json").read_text(encoding="utf-8"))
        for split in ("train", "val", "test")
    }


@pytest.fixture(scope="session")
def tiny_encoder(tiny_config, demo_rows, tmp_path_factory):
    """A folder with a random encoder and a WordPiece tokenizer of 400 pieces learned from the
    demonstration set."""
    folder = tmp_path_factory.mktemp("tiny_encoder")
    tokenizer = tokenizers.BertWordPieceTokenizer()
    tokenizer.train_from_iterator(
        [row["text"] for row in demo_rows["train"]], vocab_size=400, show_progress=False
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(tiny_config))
    module = bert.Bert(Settings(bert.from_hf(tiny_config), jax.numpy.dtype("float32"), 0.1, 0.1))
    ids = jax.numpy.zeros((1, 8), np.int32)
    params = module.init(jax.random.key(0), ids, ids, ids, True)["params"]
    tensors = to_tensors({"encoder": params}, bert.NAMES)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def run_folder(tiny_encoder, tmp_path_factory):
    """A random model as the folder of a run. Its thresholds lie in the middle of its probabilities,
    so that each label is predicted for some texts."""
    folder = tmp_path_factory.mktemp("random") / "run"
    calibration = Calibration("temperature", ({"temperature": 0.5},) * 3)
    thresholds = tiny_models.fixed_thresholds(0.135, 0.345, 0.674)
    tiny_models.make_model(
        folder / "model", tiny_encoder, calibration=calibration, thresholds=thresholds
    )
    return folder


@pytest.fixture(scope="session")
def classifier(run_folder):
    """The random model of `run_folder`."""
    return jaxclf.load(run_folder)


@pytest.fixture(scope="session")
def tiny_data(demo_rows, tmp_path_factory):
    """A small part of the demonstration set as files: {split: path}."""
    folder = tmp_path_factory.mktemp("tiny_data")
    paths = {}
    for split, rows in demo_rows.items():
        paths[split] = folder / f"{split}.json"
        rows = rows[: 96 if split == "train" else 48]
        paths[split].write_text(json.dumps(rows), encoding="utf-8")
    return paths


@pytest.fixture(scope="session")
def tiny_overrides(tiny_encoder, tiny_data):
    """Changes to an experiment of the catalog that train it on tiny data with the tiny encoder."""
    return {
        "encoder.name": str(tiny_encoder),
        **{f"data.{split}": str(path) for split, path in tiny_data.items()},
        "data.max_length": 32,
        "train.epochs": 2,
        "train.checkpoint_every": 3,
        "optim.lr": 3e-3,
    }


@pytest.fixture
def limit_file_size():
    """limit_file_size(bytes): from now on this process fails to write beyond that size, as on a
    full disk; without an argument there is no limit again."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int = soft) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    yield limit
    limit()
    signal.signal(signal.SIGXFSZ, handler)


class FinishedRun(NamedTuple):
    folder: Path
    experiment: Experiment
    report: dict[str, Any]


@pytest.fixture(scope="session")
def finished_run(tiny_overrides, tmp_path_factory):
    """A finished run of focal_attention, shared by all tests: copy its folder before changing it.

    Calibration and thresholds are the defaults, and its texts are augmented.
    """
    folder = tmp_path_factory.mktemp("finished_run") / "tiny"
    experiment = override(catalog.load("focal_attention"), {**tiny_overrides, "augment": "eda"})
    return FinishedRun(folder, experiment, train(experiment, folder))
