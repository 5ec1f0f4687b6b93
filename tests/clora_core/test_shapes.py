"""Every tensor that the core takes or gives says its shape."""

import ast
from pathlib import Path

import clora_core

BARE = {"Tensor", "ndarray", "NDArray"}
SHAPED = {"Bool", "Float", "Float32", "Int", "Num", "Shaped", "UInt8"}


def name_of(node):
    """The last part of ``Tensor``, ``torch.Tensor``."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def is_bare(annotation):
    """Whether a tensor stands in ``annotation`` without a shape around it."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return is_bare(ast.parse(annotation.value, mode="eval"))
    if isinstance(annotation, ast.Subscript) and name_of(annotation.value) in SHAPED:
        return False
    inner = ast.iter_child_nodes(annotation)
    return name_of(annotation) in BARE or any(is_bare(node) for node in inner)


def annotations(tree):
    """Every annotation of a parameter, a return value or a variable, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.lineno, node.annotation
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            yield node.returns.lineno, node.returns


def without_shape(source, name):
    lines = sorted(line for line, each in annotations(ast.parse(source)) if is_bare(each))
    return [f"{name}:{line}" for line in lines]


def test_every_tensor_says_its_shape():
    root = Path(clora_core.__file__).parent
    found = [
        place
        for path in sorted(root.rglob("*.py"))
        for place in without_shape(path.read_text(), str(path.relative_to(root.parent)))
    ]
    assert found == []


def test_a_tensor_without_a_shape_is_found_wherever_it_stands():
    source = """
class Row:
    held: dict[str, Tensor] | None = None

def run(x: torch.Tensor, *rest: "Tensor", y: Float[Tensor, "row"]) -> tuple[int, np.ndarray]:
    z: Float[Tensor, "row"] = x
"""
    assert without_shape(source, "a.py") == [f"a.py:{line}" for line in (3, 5, 5, 5)]
