"""A traced program as an ONNX model: every step by its row of `OPS`, patterns as one node, and the
protobuf that onnxruntime reads."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxclf.errors import ConfigError
from jaxclf.exporters.onnx.fusions import find
from jaxclf.exporters.onnx.graph import Graph, Value, constant, expand, node
from jaxclf.exporters.onnx.int8 import OWN
from jaxclf.exporters.onnx.jaxpr import Program, no_writer
from jaxclf.exporters.onnx.ops import OPS

# The oldest that have Gelu, and the file format of their time: onnxruntime reads them since 1.17.
OPSET, FILE_FORMAT = 20, 9


class Port(NamedTuple):
    """An input or output of a model, with the sizes that it is traced for."""

    name: str
    dtype: type[np.generic]
    shape: tuple[int, ...]


def write(graph: Graph, program: Program, inputs: Sequence[Value]) -> list[Value]:
    """Append a program to the graph, what its outputs need of it; its outputs.

    Raises ConfigError for a primitive that has no writer.
    """
    makers = {one: step for step in program.steps for one in step.outputs}
    needed = {one for one in program.outputs if isinstance(one, int)}
    kept = []
    for step in reversed(program.steps):
        if needed.isdisjoint(step.outputs):
            continue
        found = find(step, makers)
        needed.update(i for i in (found or step).inputs if isinstance(i, int))
        kept.append((step, found))
    values = dict(zip(program.inputs, inputs, strict=True))

    def read(atom: Any) -> Value:
        return values[atom] if isinstance(atom, int) else constant(graph, atom)

    for step, found in reversed(kept):
        given = [read(atom) for atom in (found or step).inputs]
        if found is not None:
            x = expand(graph, given[0], step.made[0].shape)
            made = Value(node(graph, found.op, x, *given[1:], **found.attributes), x.shape)
        elif step.primitive in OPS:
            made = OPS[step.primitive](graph, step, *given)
        else:
            raise no_writer(f"`{step.primitive}`")
        values.update(zip(step.outputs, [made] if isinstance(made, Value) else made, strict=True))
    return [read(atom) for atom in program.outputs]


def to_proto(
    graph: Graph,
    inputs: Sequence[Port],
    outputs: Mapping[Port, Value],
    sizes: Mapping[int, str],
    metadata: Mapping[str, str],
) -> Any:
    """The graph as an onnx.ModelProto; constants that nothing takes are left out.

    sizes: names of those that only the run knows.
    """
    onnx = import_onnx()
    to_onnx = onnx.helper.np_dtype_to_tensor_dtype
    nodes = []
    for one in graph.nodes.values():
        plain = {
            key: to_onnx(value) if isinstance(value, np.dtype) else value
            for key, value in one.attributes.items()
        }
        nodes.append(onnx.helper.make_node(one.op, one.inputs, [one.output], **plain))
    for port, value in outputs.items():
        nodes.append(onnx.helper.make_node("Identity", [value.name], [port.name]))
    taken = {name for one in nodes for name in one.input}
    constants = [
        onnx.numpy_helper.from_array(array, name)
        for name, array in graph.constants.items()
        if name in taken
    ]
    ports = [
        [
            onnx.helper.make_tensor_value_info(
                one.name,
                to_onnx(np.dtype(one.dtype)),
                [sizes.get(size, size) for size in one.shape],
            )
            for one in part
        ]
        for part in (inputs, outputs)
    ]
    made = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "jaxclf", *ports, constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(OWN, 1)],
        ir_version=FILE_FORMAT,
        producer_name="jaxclf",
    )
    onnx.helper.set_model_props(made, dict(metadata))
    return made


def import_onnx() -> Any:
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ModuleNotFoundError:
        raise ConfigError("no onnx: pip install 'jaxclf[onnx]'") from None
    return onnx
