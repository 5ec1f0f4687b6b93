"""YAML as configuration: plain values, and no key that is silently taken twice.

YAML lets a mapping name a key twice and keeps the last. In a job or a catalog that is a mistake
someone would like to hear of, so it is refused here with its line.
"""

from typing import Any

import yaml

from clora_core.recipe.errors import CloraError

MAX_NODES = 5_000_000
"""A few lines of aliases can stand for billions of values, which any message would write out."""

MAX_WRITTEN_NODES = 2_000_000
"""Each takes half a kilobyte of memory until all of them are read."""

MAX_NUMBER_CHARACTERS = 100


class YamlError(CloraError):
    """The text is not the YAML we read; ``line`` is 1-based or None."""

    def __init__(self, message: str, line: int | None) -> None:
        self.line = line
        super().__init__(message)


class _Loader(yaml.SafeLoader):
    """The safe loader, with keys that must differ and no more nodes than memory has room for."""

    num_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.num_nodes += 1
        if self.num_nodes > MAX_WRITTEN_NODES:
            raise yaml.MarkedYAMLError(
                None,
                None,
                f"holds more than {MAX_WRITTEN_NODES:,} values; use a Parquet file, or split it",
                self.get_mark(),
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value != "<<":
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key_node.value!r} is given twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """Refuse long numbers: YAML counts 1:1:1 by sixties, which takes the square of its length."""
    if len(node.value) > MAX_NUMBER_CHARACTERS:
        raise yaml.constructor.ConstructorError(
            None,
            None,
            f"a number of {len(node.value):,} characters; put quotes around a text",
            node.start_mark,
        )
    is_whole = node.tag.endswith(":int")
    return loader.construct_yaml_int(node) if is_whole else loader.construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def load_yaml(text: str) -> Any:
    """Return the value of one YAML document.

    Raises:
        YamlError: Not YAML, more than one document, or a key given twice.
    """
    return _build(text, _compose(text))


def numbered_items(text: str, field: str) -> list[int]:
    """Return the 1-based lines of the items of the list ``field`` of the top mapping."""
    root = _compose(text)
    if isinstance(root, yaml.MappingNode):
        for key, value in root.value:
            if getattr(key, "value", None) == field and isinstance(value, yaml.SequenceNode):
                return [item.start_mark.line + 1 for item in value.value]
    return []


def _compose(text: str) -> yaml.Node | None:
    try:
        root = yaml.compose(text, Loader=_Loader)
        weight = 0 if root is None else _weight(root, {})
    except (yaml.YAMLError, RecursionError) as error:
        raise _as_yaml_error(error) from error
    if weight > MAX_NODES:
        raise YamlError(f"stands for more than {MAX_NODES:,} values; write fewer aliases", None)
    return root


def _weight(node: yaml.Node, known: dict[int, float]) -> float:
    """Return how many values a node stands for with all aliases written out."""
    if id(node) not in known:
        known[id(node)] = float("inf")  # what an alias inside itself would stand for
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        else:
            parts = node.value if isinstance(node, yaml.SequenceNode) else []
        known[id(node)] = 1 + sum(_weight(part, known) for part in parts)
    return known[id(node)]


def _build(text: str, node: yaml.Node | None) -> Any:
    if node is None:
        return None
    try:
        loader = _Loader(text)
        try:
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _as_yaml_error(error) from error
    except (LookupError, AttributeError, ArithmeticError, TypeError) as error:
        # What the library says to a tag that its value does not fit, such as !!bool "x".
        raise YamlError("holds a value that does not fit its tag", None) from error


def _as_yaml_error(error: Exception) -> YamlError:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        return YamlError(error.problem or "is not YAML", mark.line + 1 if mark else None)
    if isinstance(error, RecursionError):
        return YamlError("is nested too deeply", None)
    return YamlError((str(error).splitlines() or ["is not YAML"])[0], None)
