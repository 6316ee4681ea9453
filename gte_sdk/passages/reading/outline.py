"""The definitions of a source file, found by tree-sitter: where each begins and ends, and its name.

A grammar is C code that reads files of strangers, so it runs in the process of worker.py, within that process's time
and memory. Grammars are single packages of tree-sitter's own, because packs fetch theirs from the network at first use.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import islice
from typing import Any

from gte_sdk.passages.splitting import Definition

MAX_CODE_BYTES = 512 * 2**10
"""Of a file; longer ones are generated more often than written."""
MAX_SECONDS = 5.0
"""For one file. Errors make a parser try many ways, which takes minutes for some files of a few hundred kilobytes."""
MAX_DEFINITIONS = 20_000
"""Of a file; those after them are not used."""
_NAME_CHARACTERS = 80
_PIECE_BYTES = 1 << 16
_NODES_BETWEEN_LOOKS = 1000
# Names are at the end of declarators such as `*(*name)[3]`, which a file can nest to any depth.
_MAX_DECLARATORS = 16


_CLASSES = "class_declaration interface_declaration enum_declaration"
# The package, the function that gives the grammar, and the nodes that are definitions.
_LANGUAGES = {
    "python": ("tree_sitter_python", "language", "function_definition class_definition"),
    "javascript": ("tree_sitter_javascript", "language",
                   "function_declaration generator_function_declaration class_declaration method_definition"),
    "typescript": ("tree_sitter_typescript", "language_typescript", f"{_CLASSES} function_declaration "
                   "generator_function_declaration abstract_class_declaration method_definition type_alias_declaration "
                   "internal_module"),
    "tsx": ("tree_sitter_typescript", "language_tsx", f"{_CLASSES} function_declaration "
            "generator_function_declaration abstract_class_declaration method_definition type_alias_declaration "
            "internal_module"),
    "java": ("tree_sitter_java", "language", f"{_CLASSES} record_declaration annotation_type_declaration "
             "method_declaration constructor_declaration"),
    "go": ("tree_sitter_go", "language", "function_declaration method_declaration type_spec"),
    "rust": ("tree_sitter_rust", "language",
             "function_item struct_item enum_item union_item trait_item impl_item mod_item macro_definition"),
    "c": ("tree_sitter_c", "language", "function_definition struct_specifier enum_specifier union_specifier"),
    "cpp": ("tree_sitter_cpp", "language", "function_definition class_specifier struct_specifier enum_specifier "
            "union_specifier namespace_definition"),
    "c_sharp": ("tree_sitter_c_sharp", "language", f"{_CLASSES} struct_declaration record_declaration "
                "namespace_declaration method_declaration constructor_declaration property_declaration"),
    "ruby": ("tree_sitter_ruby", "language", "class module method singleton_method"),
    "php": ("tree_sitter_php", "language_php", f"{_CLASSES} trait_declaration function_definition method_declaration"),
}  # fmt: skip
_LANGUAGE_OF_SUFFIX = {
    suffix: language
    for language, suffixes in {
        "python": ".py .pyi", "javascript": ".js .jsx .mjs .cjs", "typescript": ".ts .mts .cts", "tsx": ".tsx",
        "java": ".java", "go": ".go", "rust": ".rs", "c": ".c .h", "cpp": ".cc .cpp .cxx .hh .hpp .hxx .cu .cuh",
        "c_sharp": ".cs", "ruby": ".rb", "php": ".php",
    }.items()
    for suffix in suffixes.split()
}  # fmt: skip
# What wraps a definition and belongs to it, and what stands in front of one.
_WRAPPERS = ("decorated_definition", "export_statement", "template_declaration", "type_declaration")
_IN_FRONT = ("comment", "line_comment", "block_comment", "attribute_item", "decorator")
# Specifiers without one are uses of a type: `struct point p;`
_NEED_A_BODY = ("struct_specifier", "enum_specifier", "union_specifier", "class_specifier")


def language_of(suffix: str) -> str | None:
    """Returns the language of a file's suffix, if there is a grammar for it on this machine."""
    language = _LANGUAGE_OF_SUFFIX.get(suffix.lower())
    return language if language in _installed() else None


@cache
def splitter_of_code() -> str:
    """Says by what source files are cut: "" by their indentation, else tree-sitter and the grammars with versions."""
    packages = sorted({_LANGUAGES[language][0] for language in _installed()})
    return ", ".join(f"{name.replace('_', '-')} {_version(name)}" for name in ["tree_sitter", *packages] if packages)


def definitions_in(content: bytes, language: str) -> list[Definition]:
    """Returns the definitions of a source file in UTF-8, outer ones before those in them, each from its first line.

    Definitions that share a line with the end of an earlier one are left out, as lines are not cut.

    Raises TimeoutError after MAX_SECONDS.
    """
    deadline = time.monotonic() + MAX_SECONDS
    is_late = lambda *_: time.monotonic() > deadline  # noqa: E731
    parse, kinds = _grammar(language)
    try:
        # In pieces: the parser does not ask whether it is late while it reads one string of bytes.
        tree = parse(lambda start, _: content[start : start + _PIECE_BYTES], progress_callback=is_late)
    except ValueError:  # "Parsing failed", which is what it says when it is stopped
        raise _too_late() from None
    found: list[Definition] = []
    source = _Source(content)
    for node in islice(_nodes_of(tree, kinds, is_late), MAX_DEFINITIONS):
        if node.type in _NEED_A_BODY and node.child_by_field_name("body") is None:
            continue
        name = source.name_of(node)
        if name:
            end = node.end_point[0] + (node.end_point[1] > 0)
            found.append(Definition(source.first_line(node), end, name))
    return list(_nested(found))


def _nested(definitions: list[Definition]) -> Iterator[Definition]:
    """Yields those that lie one in the other or one after the other, counted in whole lines."""
    open_ends: list[int] = []
    last_start = -1
    for each in definitions:
        while open_ends and open_ends[-1] <= each.start:
            open_ends.pop()
        if each.start >= last_start and (not open_ends or each.end <= open_ends[-1]) and each.start < each.end:
            if open_ends and each.start == last_start and each.end == open_ends[-1]:
                continue  # `namespace a { class B {` on one line: the outer one stands for both
            open_ends.append(each.end)
            last_start = each.start
            yield each


class _Source:
    """Reads names and places of nodes. What was parsed in pieces has no text in its nodes."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def name_of(self, node: Any) -> str:
        declarator = node.child_by_field_name("declarator")
        if declarator is not None:
            return self._text(_declared(declarator))
        named = node.child_by_field_name("name") or node.child_by_field_name("type")  # the latter: an impl of Rust
        receiver = node.child_by_field_name("receiver")  # of a method of Go
        parts = ["" if part is None else self._text(part) for part in (receiver, named)]
        # `Store` of `(s *Store[T])`
        parts[0] = "".join(parts[0].strip("()").split("[")[0].split()[-1:]).lstrip("*")
        return " > ".join(part for part in parts if part)

    def first_line(self, node: Any) -> int:
        while node.parent is not None and node.parent.type in _WRAPPERS and node.parent.named_child_count <= 8:
            node = node.parent
        line = int(node.start_point[0])
        before = node.prev_named_sibling
        while (
            before is not None and before.type in _IN_FRONT and before.end_point[0] + (before.end_point[1] > 0) == line
        ):
            if self._content[self._content.rfind(b"\n", 0, before.start_byte) + 1 : before.start_byte].strip():
                break  # it stands behind something else on its line
            line = int(before.start_point[0])
            before = before.prev_named_sibling
        return line

    def _text(self, node: Any) -> str:
        content = self._content[node.start_byte : min(node.end_byte, node.start_byte + 4 * _NAME_CHARACTERS)]
        return " ".join(content.decode("utf-8", "replace").split())[:_NAME_CHARACTERS]


def _declared(declarator: Any) -> Any:
    """Returns the name inside of a declarator of C."""
    for _ in range(_MAX_DECLARATORS):
        inner = declarator.child_by_field_name("declarator")
        if inner is None and declarator.type in ("parenthesized_declarator", "reference_declarator"):
            inner = declarator.named_children[0] if declarator.named_children else None
        if inner is None:
            break
        declarator = inner
    return declarator


def _nodes_of(tree: Any, kinds: frozenset[str], is_late: Callable[[], bool]) -> Iterator[Any]:
    """Yields the nodes of some kinds, outer ones first. A query is faster, and crashes when it is stopped."""
    cursor = tree.walk()
    count = 0
    while True:
        count += 1
        if count % _NODES_BETWEEN_LOOKS == 0 and is_late():
            raise _too_late()
        if cursor.node.type in kinds:
            yield cursor.node
        if cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return


def _too_late() -> TimeoutError:
    return TimeoutError(f"its grammar takes more than {MAX_SECONDS:.0f} s")


@cache
def _grammar(language: str) -> tuple[Callable[..., Any], frozenset[str]]:
    """Returns the function that parses, and the kinds of nodes that are definitions."""
    import tree_sitter

    package, function, kinds = _LANGUAGES[language]
    grammar = tree_sitter.Language(getattr(import_module(package), function)())
    return tree_sitter.Parser(grammar).parse, frozenset(kinds.split())


@cache
def _installed() -> frozenset[str]:
    has_worker = bool(sys.executable) and not getattr(sys, "frozen", False)
    if not has_worker or find_spec("tree_sitter") is None:
        return frozenset()
    return frozenset(language for language, (package, *_) in _LANGUAGES.items() if find_spec(package))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"
