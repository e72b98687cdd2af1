"""Export a trained model to StableHLO: a program for any jax, and its parameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import safetensors.numpy
from flax.traverse_util import unflatten_dict

from jaxclf.errors import ConfigError, import_extra
from jaxclf.exporters.program import InferenceProgram, Packed, load_program, named_params
from jaxclf.exporters.verify import check_tolerance, compare, new_folder, probe_texts, write_record
from jaxclf.inference.load import load
from jaxclf.model.inference import gather, prediction_shape, score
from jaxclf.text.tokenizer.tokenize import tokenize
from jaxclf.types import Batch, Shape

PROGRAM, PARAMS = "program.stablehlo", "params.safetensors"
PLATFORMS = ("cpu", "cuda")


def to_stablehlo(run: Path, out: Path, platforms: Sequence[str] = ()) -> str:
    """Write a folder with a StableHLO program of a finished run or an ensemble, and its parameters;
    returns a summary.

    platforms: targets of the program; empty: this machine's. This machine's platform must be one of
        them, because the program is read back and checked against the run.
    Raises ConfigError if `out` exists and is not empty, or if flatbuffers is missing; DataError if
    the export's answers differ.
    """
    import_extra("flatbuffers", "stablehlo")
    local = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    platforms = tuple(platforms) or (local,)
    if local not in platforms:
        raise ConfigError(f"--platforms must include {local}, where the program is checked")
    program = load_program(run)
    shape = prediction_shape(program.data.windows)
    params = {name: np.asarray(leaf) for name, leaf in named_params(program.params).items()}
    exported = _export(program, params, shape, platforms)
    values = {
        "program": PROGRAM,
        "params": PARAMS,
        "platforms": " and ".join(platforms),
        "version": jax.__version__,
        **shape._asdict(),
    }
    with new_folder(run, out, program.tokenizer, "stablehlo.md", values) as part:
        (part / PROGRAM).write_bytes(exported.serialize())
        safetensors.numpy.save_file(params, part / PARAMS)
        (part / PARAMS).chmod((part / PROGRAM).stat().st_mode)  # safetensors writes for the owner
        texts, classifier = probe_texts(program.data.windows), load(run)
        probs = _score(part, program, shape, texts)
        record = compare(classifier.predict_proba(texts), probs, classifier.thresholds)
        record |= {"tolerance": check_tolerance(record, program.dtypes), "source": "sentences"}
        write_record(part, record | {"jax": jax.__version__, "platforms": list(platforms)})
    return (
        f"{out}: {record['texts']:,} texts, probabilities within "
        f"{record['largest_difference']:.2g} of the run's\n"
        f"jax reads the program for about six months from {jax.__version__} on; keep the run"
    )


def _export(
    program: InferenceProgram,
    params: Mapping[str, np.ndarray],
    shape: Shape,
    platforms: tuple[str, ...],
) -> jax.export.Exported:
    def answer(params: Mapping[str, Any], *packed: Any) -> dict[str, Any]:
        members = unflatten_dict(dict(params), sep="/")
        trees = tuple(members[str(index)] for index in range(len(members)))
        return program.answer(trees, Packed(*packed), shape.slots)._asdict()

    tokens = jax.ShapeDtypeStruct((shape.rows, shape.length), np.int32)
    return jax.export.export(jax.jit(answer), platforms=platforms)(params, *[tokens] * 4)


def _score(folder: Path, program: InferenceProgram, shape: Shape, texts: list[str]) -> np.ndarray:
    """Probabilities of the program as it is read back from its folder."""
    exported = jax.export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
    params = safetensors.numpy.load_file(folder / PARAMS)

    def step(params: dict[str, Any], batch: Batch) -> Any:
        return exported.call(params, *batch[: len(Packed._fields)])["probabilities"]

    tokens = tokenize(program.tokenizer, texts, program.data.windows)
    scored = score(step, params, tokens, shape, len(program.labels))
    return gather(scored, len(texts), len(program.labels))
