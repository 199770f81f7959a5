"""What a stored graph may hold: its own data and operators of a plain list.

    bytes ── onnx's parser ── fields and operators on the list ── serialised anew ── onnx's checker
                                                                        └── what an engine runs

A model file may come from anywhere. Parsers may read one file differently, an engine opens files
that a graph names, and a loop in a graph may never end. So the bytes of the file reach no engine:
onnx reads them, what it found is looked at field by field, and the engine gets what onnx writes of
that. What is on no list here is refused, known to this version or not.

Reference: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto for the names of the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconpatch.errors import ModelFileError

MOST_NODES = 20_000
"""Of a graph; the largest backbones have 3,000."""

FIELDS = {
    "ModelProto": "ir_version producer_name producer_version domain model_version doc_string "
    "opset_import metadata_props graph",
    "OperatorSetIdProto": "domain version",
    "StringStringEntryProto": "key value",
    "GraphProto": "name doc_string node initializer input output value_info metadata_props "
    "quantization_annotation",
    "NodeProto": "name doc_string input output op_type domain attribute metadata_props",
    "AttributeProto": "name doc_string type f i s t floats ints strings",
    "TensorProto": "name doc_string dims data_type raw_data float_data int32_data int64_data "
    "double_data uint64_data metadata_props",
    "TensorAnnotation": "tensor_name quant_parameter_tensor_names",
    "ValueInfoProto": "name doc_string type metadata_props",
    "TypeProto": "tensor_type denotation",
    "Tensor": "elem_type shape",
    "TensorShapeProto": "dim",
    "Dimension": "dim_value dim_param denotation",
}
"""Fields that a message of each kind may have."""

_OPERATORS = """
Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant
ConstantOfShape Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Dropout Einsum
Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish
Identity InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual
Log LogSoftmax LpNormalization MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow
QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round ScatterElements
ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth Split
Sqrt Squeeze Sub Sum Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
OPERATORS = frozenset(_OPERATORS.split())
"""Operators of ONNX's own domain that a node may be: those of backbones and of this package's
steps. None holds a graph of its own, and none opens a file."""

_ALLOWED = {kind: frozenset(names.split()) for kind, names in FIELDS.items()}
# What a field that is not allowed would be, where there is a plain word for it.
_SAID = {
    "functions": "functions",
    "training_info": "training steps",
    "g": "control flow",
    "graphs": "control flow",
    "sparse_initializer": "sparse tensors",
    "sparse_tensor": "sparse tensors",
    "sparse_tensors": "sparse tensors",
    "data_location": "data in another file",
    "external_data": "data in another file",
}


def checked_graph(graph: bytes) -> bytes:
    """A stored graph as an engine may have it: looked through, and serialised anew.

    Raises:
        ModelFileError: see `parsed_graph`.
    """
    import onnx

    content = bytes(parsed_graph(graph).SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(content)
    except Exception as error:  # the checker's errors have no base of their own
        raise _unreadable() from error
    return content


def parsed_graph(graph: bytes) -> Any:
    """A stored graph as an `onnx.ModelProto` that holds nothing but what is on the lists here.

    Raises:
        ModelFileError: it is no ONNX graph, or holds what it must not: control flow, functions,
            data in other files, operators of other domains or that are not on the list.
    """
    import onnx

    try:
        model = onnx.ModelProto.FromString(graph)
    except Exception as error:  # of protobuf, which is not imported here
        raise _unreadable() from error
    model.DiscardUnknownFields()  # an engine might know them
    found = first_refused(model)
    if found is not None:
        raise ModelFileError(
            f"The network in the model file holds {found}, which no network of this package does: "
            "do not use a file that you cannot trust; fit the model again."
        )
    return model


def first_refused(model: Any) -> str | None:
    """The first thing that an `onnx.ModelProto` holds and no model file may, in words; or None."""
    return next(_refused(model), None)


def _unreadable() -> ModelFileError:
    return ModelFileError(
        "The network in the model file cannot be read: the file is damaged; take a fresh copy or "
        "fit it again."
    )


def _refused(message: Any) -> Iterator[str]:
    """What a message and those inside it hold that is refused."""
    kind = type(message).__name__
    for field, value in message.ListFields():
        if field.name == "data_location" and value == 0:  # in the tensor itself
            continue
        if field.name not in _ALLOWED.get(kind, ()):
            yield _SAID.get(field.name, f"{kind}.{field.name}")
        elif field.message_type is not None:
            for inner in value if hasattr(value, "append") else (value,):
                yield from _refused(inner)
    if kind == "NodeProto":
        if message.domain not in ("", "ai.onnx"):
            yield f"an operator of the domain {message.domain!r}"
        elif message.op_type not in OPERATORS:
            yield f"the operator {message.op_type!r}"
    elif kind == "GraphProto" and len(message.node) > MOST_NODES:
        yield f"{len(message.node):,} operators"
