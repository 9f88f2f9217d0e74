"""Pictures are let go of by reference count, not when the collector comes round."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_no_inner_function_calls_itself() -> None:
    """Its cell would hold it, and it its cell: with all that it has seen, pictures too, it stays until the collector
    comes. A function of the module does as well."""
    found = [
        f"{path.relative_to(ROOT)}:{inner.lineno}: {inner.name}"
        for folder in ("app", "providers")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for outer in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(outer, FUNCTIONS)
        for inner in ast.walk(outer)
        if inner is not outer and isinstance(inner, FUNCTIONS)
        if any(isinstance(name, ast.Name) and name.id == inner.name for name in ast.walk(inner))
    ]
    assert found == []
