"""YAML that ends: no deep nesting, no few lines that stand for millions of values, no key that stands twice."""

from __future__ import annotations

from typing import Any

import yaml

from recbole_rlmrec.reading.tree import check_tree

#: Bytes of the largest file of settings or of a search space, and values in it, each counted where it is repeated.
LARGEST_TEXT = 2**18
_MOST_VALUES, _DEEPEST = 10_000, 50
#: Digits of 64-bit whole numbers, and a sign.
_MOST_DIGITS = 20
_TYPES = ("null", "bool", "int", "float", "str", "seq", "map")


class BoundedLoader(yaml.SafeLoader):
    """YAML's safe loader for text that anybody may have written; it makes texts, numbers, lists and mappings only.

    ``*name`` may repeat what ``&name`` marks, unless that becomes too much or contains itself.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._level = 0
        self._n_values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Read a value, unless it is nested too deep or one too many."""
        self._level += 1
        self._n_values += 1
        if self._level > _DEEPEST:
            raise self._error(f"it is nested more than {_DEEPEST} levels deep", self.peek_event().start_mark)
        if self._n_values > _MOST_VALUES:
            raise self._error(f"it has more than {_MOST_VALUES:,} values", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """Read the document and check what its aliases make of it."""
        node = super().get_single_node()
        if node is not None:
            try:
                check_tree(node, self._parts, most=_MOST_VALUES, deepest=_DEEPEST)
            except ValueError as error:
                raise self._error(str(error), node.start_mark) from None
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        """Make the values; a tag that does not suit its value lets PyYAML stumble."""
        try:
            return super().construct_document(node)
        except (KeyError, IndexError) as error:
            raise self._error(f"a value is not what its tag says ({error})", node.start_mark) from error

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Make a number of at most 64 bits."""
        if len(node.value) > _MOST_DIGITS:
            raise self._error(f"a number has {len(node.value):,} digits", node.start_mark)
        return super().construct_yaml_int(node)

    def _parts(self, node: yaml.Node) -> list[yaml.Node]:
        """Return what a value consists of, after a look at its keys."""
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        if not isinstance(node, yaml.MappingNode):
            return []
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if (key.tag, key.value) in seen:
                raise self._error(f"the key '{key.value[:80]}' stands twice", key.start_mark)
            seen.add((key.tag, key.value))
        return [part for pair in node.value for part in pair]

    @staticmethod
    def _error(problem: str, mark: yaml.Mark | None) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


_CONSTRUCTORS: dict[Any, Any] = {
    f"tag:yaml.org,2002:{kind}": getattr(BoundedLoader, f"construct_yaml_{kind}") for kind in _TYPES
}
BoundedLoader.yaml_constructors = {**_CONSTRUCTORS, None: BoundedLoader.construct_undefined}
