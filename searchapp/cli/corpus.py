"""The demo's corpus: the docstrings of Python's own standard library, which every machine has."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from searchapp.ingest.documents import Document

# Test suites, tools with a window, and modules that act when imported or are jokes.
LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data", "antigravity", "this"}
# What people call the module of the operating system's own functions.
ALIASES = {"posix": "os", "nt": "os"}


def documents() -> Iterator[Document]:
    """One document a public module, class, function or method that has a docstring, in the order of the modules' names.

    The key is the qualified name (``subprocess.run``), metadata says ``module`` and ``kind``.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    seen: set[str] = set()
    for module in sorted(sys.stdlib_module_names - LEFT_OUT):
        if module.startswith("_"):
            continue
        sources = list(_sources(folder, module))
        found = _read_sources(sources) if sources else _inspect(module)
        for document in found:
            if document.key not in seen:
                seen.add(document.key)
                yield document


def _sources(folder: Path, module: str) -> Iterator[tuple[str, Path]]:
    """The source files of a module and, where it is a package, of its public submodules, each with its dotted name."""
    if (single := folder / f"{module}.py").is_file():
        yield module, single
    for path in sorted((folder / module).rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not any(part.startswith("_") or part in LEFT_OUT for part in parts):
            yield ".".join(parts), path


def _read_sources(sources: list[tuple[str, Path]]) -> Iterator[Document]:
    for module, path in sources:
        tree = ast.parse(path.read_bytes())
        yield from _document(module, ast.get_docstring(tree), module, "module")
        yield from _read_body(tree, module, module)


def _read_body(parent: ast.Module | ast.ClassDef, name: str, module: str) -> Iterator[Document]:
    for node in parent.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
            continue
        qualified = f"{name}.{node.name}"
        kind = _kind(isinstance(node, ast.ClassDef), isinstance(parent, ast.ClassDef))
        yield from _document(qualified, ast.get_docstring(node), module, kind)
        if isinstance(node, ast.ClassDef):
            yield from _read_body(node, qualified, module)


def _inspect(module: str) -> Iterator[Document]:
    """What a module written in C says of itself; those of other platforms cannot be imported here."""
    with warnings.catch_warnings(action="ignore"):  # of deprecated modules
        try:
            imported = importlib.import_module(module)
        except ImportError:
            return
    module = ALIASES.get(module, module)
    yield from _document(module, inspect.getdoc(imported), module, "module")
    yield from _inspect_members(imported, module, module)


def _inspect_members(parent: ModuleType | type[Any], name: str, module: str) -> Iterator[Document]:
    for member, value in sorted(vars(parent).items()):
        is_class = inspect.isclass(value)
        if member.startswith("_") or not (is_class or inspect.isroutine(value)):
            continue
        qualified = f"{name}.{member}"
        doc = value.__doc__ if isinstance(value.__doc__, str) else None
        yield from _document(qualified, doc and inspect.cleandoc(doc), module, _kind(is_class, inspect.isclass(parent)))
        if is_class and not issubclass(value, BaseException):
            yield from _inspect_members(value, qualified, module)


def _kind(is_class: bool, in_class: bool) -> str:
    return "class" if is_class else "method" if in_class else "function"


def _document(name: str, doc: str | None, module: str, kind: str) -> Iterator[Document]:
    if doc and not doc.isspace() and "\0" not in doc:
        yield Document(key=name, title=name, text=doc, metadata={"module": module, "kind": kind})
