"""Give a trained model to any jax: the whole answer as a StableHLO program, its parameters beside
it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import safetensors.numpy
from flax.traverse_util import unflatten_dict

from jaxclf.errors import ConfigError
from jaxclf.exporters.program import Packed, load_program
from jaxclf.exporters.verify import check_tolerance, compare, new_folder, probe_texts, write_record
from jaxclf.inference.load import load
from jaxclf.model.inference import gather, prediction_shape, score
from jaxclf.text.tokenizer.tokenize import tokenize
from jaxclf.types import Batch

PROGRAM, PARAMS = "program.stablehlo", "params.safetensors"
PLATFORMS = ("cpu", "cuda")

CARD = """## As a StableHLO program

`{program}` is what `jax.export` makes of it, for {platforms}; `{params}` has its parameters, by
path. Neither jaxclf nor flax is needed:

    import jax.export, safetensors.numpy
    params = safetensors.numpy.load_file("{params}")
    program = jax.export.deserialize(open("{program}", "rb").read())
    answer = program.call(params, ids, positions, segments, examples)

The inputs are int32 `[{rows}, {length}]`. Several texts share a row: `segments` tells them apart (0
is padding), `positions` start at 0 in each, `examples` is the row of the answer that a token
belongs to ({slots} for padding). `answer` has `probabilities` and `decisions`, [{slots}, classes],
and `thresholds`.

The program was made by jax {version}. jax reads what it exported for six months or more, not for
ever: keep the run, and export it anew. The parameters do not age.
"""


def to_stablehlo(run: Path, out: Path, platforms: Sequence[str] = ()) -> str:
    """Write a folder with a StableHLO program of a finished run or an ensemble, and its parameters;
    what was found, in words.

    platforms: what the program is lowered for; empty: this machine's. That must be one of them, as
        the program is read back here and its answers are held to the run's own.
    Raises ConfigError where `out` exists and is not empty, and without flatbuffers; DataError where
    the answers are not the run's.
    """
    import_flatbuffers()
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    platforms = tuple(platforms) or (here,)
    if here not in platforms:
        raise ConfigError(f"--platforms must name {here} too: the program is tried here")
    whole = load_program(run)
    windows = whole.data.windows
    shape = prediction_shape(windows)
    flat = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(whole.params)
    }

    def answer(params: Mapping[str, Any], *packed: Any) -> dict[str, Any]:
        members = unflatten_dict(dict(params), sep="/")
        trees = tuple(members[str(index)] for index in range(len(members)))
        return whole.answer(trees, Packed(*packed), shape.slots)._asdict()

    tokens = jax.ShapeDtypeStruct((shape.rows, shape.length), np.int32)
    types = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat.items()}
    exported = jax.export.export(jax.jit(answer), platforms=platforms)(types, *[tokens] * 4)
    told = CARD.format(
        program=PROGRAM,
        params=PARAMS,
        platforms=" and ".join(platforms),
        **shape._asdict(),
        version=jax.__version__,
    )
    with new_folder(run, out, whole.tokenizer, told) as part:
        (part / PROGRAM).write_bytes(exported.serialize())
        safetensors.numpy.save_file(flat, part / PARAMS)
        (part / PARAMS).chmod((part / PROGRAM).stat().st_mode)  # the library writes for the owner
        program = jax.export.deserialize(bytearray((part / PROGRAM).read_bytes()))
        params = safetensors.numpy.load_file(part / PARAMS)

        def step(params: dict[str, Any], batch: Batch) -> Any:
            return program.call(params, *batch[: len(Packed._fields)])["probabilities"]

        texts, classes = probe_texts(windows), len(whole.labels)
        tokenized = tokenize(whole.tokenizer, texts, windows)
        scored = score(step, params, tokenized, shape, classes)
        theirs = gather(scored, len(texts), classes)
        classifier = load(run)
        record = compare(classifier.predict_proba(texts), theirs, classifier.thresholds)
        record |= {"tolerance": check_tolerance(record, whole.dtypes), "source": "sentences"}
        write_record(part, record | {"jax": jax.__version__, "platforms": list(platforms)})
    return (
        f"{out}: {record['texts']:,} texts, probabilities within "
        f"{record['largest_difference']:.2g} of the run's\n"
        f"jax reads the program for about six months from {jax.__version__} on; keep the run"
    )


def import_flatbuffers() -> Any:
    try:
        import flatbuffers
    except ModuleNotFoundError:
        raise ConfigError("no flatbuffers: pip install 'jaxclf[stablehlo]'") from None
    return flatbuffers
