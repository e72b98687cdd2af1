"""Write a traced program as an ONNX model, the protobuf that onnxruntime reads."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxclf.errors import import_extra
from jaxclf.exporters.onnx.fusions import find_fusion, producers_of
from jaxclf.exporters.onnx.graph import Graph, Value, constant, expand, node
from jaxclf.exporters.onnx.int8 import DOMAIN
from jaxclf.exporters.onnx.jaxpr import Program, unsupported
from jaxclf.exporters.onnx.ops import OPS

# The oldest with Gelu, and the file format of their time: onnxruntime reads them since 1.17.
OPSET, FILE_FORMAT = 20, 9


class Port(NamedTuple):
    """An input or output of a model, with the sizes that it is traced for."""

    name: str
    dtype: type[np.generic]
    shape: tuple[int, ...]


def write(graph: Graph, program: Program, inputs: Sequence[Value]) -> list[Value]:
    """Append the equations that a program's outputs need, and return its outputs.

    Raises ConfigError for a primitive without a translation.
    """
    producers = producers_of(program)
    needed = {atom for atom in program.outputs if isinstance(atom, int)}
    kept = []
    for equation in reversed(program.equations):
        if needed.isdisjoint(equation.outputs):
            continue
        fused = find_fusion(equation, producers)
        needed.update(atom for atom in (fused or equation).inputs if isinstance(atom, int))
        kept.append((equation, fused))
    values = dict(zip(program.inputs, inputs, strict=True))

    def read(atom: Any) -> Value:
        return values[atom] if isinstance(atom, int) else constant(graph, atom)

    for equation, fused in reversed(kept):
        arguments = [read(atom) for atom in (fused or equation).inputs]
        if fused is not None:
            x = expand(graph, arguments[0], equation.out_avals[0].shape)
            outputs = Value(node(graph, fused.op, x, *arguments[1:], **fused.attributes), x.shape)
        elif equation.primitive in OPS:
            outputs = OPS[equation.primitive](graph, equation, *arguments)
        else:
            raise unsupported(f"`{equation.primitive}`")
        outputs = [outputs] if isinstance(outputs, Value) else outputs
        values.update(zip(equation.outputs, outputs, strict=True))
    return [read(atom) for atom in program.outputs]


def to_proto(
    graph: Graph,
    inputs: Sequence[Port],
    outputs: Mapping[Port, Value],
    sizes: Mapping[int, str],
    metadata: Mapping[str, Any],
) -> Any:
    """The graph as an onnx.ModelProto; unused constants are left out.

    sizes: names of the sizes that are known only when the graph runs. metadata: JSON values.
    """
    onnx = import_extra("onnx", "onnx")
    to_onnx = onnx.helper.np_dtype_to_tensor_dtype
    nodes = []
    for op, names, output, values in graph.nodes.values():
        attributes = {
            key: to_onnx(value) if isinstance(value, np.dtype) else value
            for key, value in values.items()
        }
        nodes.append(onnx.helper.make_node(op, names, [output], **attributes))
    for port, value in outputs.items():
        nodes.append(onnx.helper.make_node("Identity", [value.name], [port.name]))
    used = {name for proto in nodes for name in proto.input}
    constants = [
        onnx.numpy_helper.from_array(array, name)
        for name, array in graph.constants.items()
        if name in used
    ]
    ports = [
        [
            onnx.helper.make_tensor_value_info(
                name, to_onnx(np.dtype(dtype)), [sizes.get(size, size) for size in shape]
            )
            for name, dtype, shape in group
        ]
        for group in (inputs, outputs)
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "jaxclf", *ports, constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(DOMAIN, 1)],
        ir_version=FILE_FORMAT,
        producer_name="jaxclf",
    )
    properties = {name: json.dumps(value, ensure_ascii=False) for name, value in metadata.items()}
    onnx.helper.set_model_props(model, properties)
    return model
