"""The walls of the house: imports go down only, network I/O lives where it may, files and functions stay small."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FILE_LINES_MOST: Final = 400
FUNCTION_LINES_MOST: Final = 70

# Floors, from the ground up. A module may import from its own floor and from those below it.
FLOORS: Final = (
    ("core.errors", "core.facts", "core.money", "core.ids", "core.clock", "core.arguments"),
    ("core.settings", "core.telemetry", "core.priority"),
    ("core.backends",),
    ("core.sale",),
    ("core.office",),
    ("core.web", "core.workers", "core.local"),
    ("core.__main__",),
    ("loadtests", "benchmarks", "profiles"),
)
NETWORK: Final = {"asyncpg", "redis", "aiohttp", "socket", "gevent", "http.client", "urllib.request", "locust"}
# Where a packet may leave the process. In the sale and office planes that is store.py and gateways/ alone.
MAY_TALK: Final = (
    "core/backends/",
    "core/web/",
    "core/workers/",
    "core/local/",
    "loadtests/",
    "benchmarks/",
    "profiles/",
)
DEFINED: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Names that say nothing about what is inside.
EMPTY_NAMES: Final = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base", "tools"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


PRODUCT: Final = sources("core", "loadtests", "benchmarks", "profiles")
EVERYTHING: Final = [*PRODUCT, *sources("tests")]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def floor(module: str) -> int | None:
    for number, rooms in enumerate(FLOORS):
        if any(module == room or module.startswith(room + ".") for room in rooms):
            return number
    return None


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_imports_go_down_only() -> None:
    """A store that imports a page, a pure rule that imports the engine: the first crack of every house that fell."""
    for path in PRODUCT:
        own = floor(module_of(path))
        if own is None:
            assert module_of(path) == "core", f"{named(path)} stands on no floor: give it one in FLOORS"
            continue
        above = {name for name in imports(path) if (of := floor(name)) is not None and of > own}
        assert not above, f"{named(path)} imports upward: {sorted(above)}"


def test_the_sale_plane_never_imports_the_office() -> None:
    """A buyer must not wait for staff's code."""
    for path in sources("core/sale"):
        assert not {name for name in imports(path) if name.startswith("core.office")}, named(path)


def test_only_stores_gateways_and_backends_touch_the_network() -> None:
    """A rule that talks to a store cannot be tested alone, nor batched by someone else."""
    for path in PRODUCT:
        if named(path).startswith(MAY_TALK) or path.name == "store.py" or "/gateways/" in named(path):
            continue
        talkers = {name for name in imports(path) if name.split(".")[0] in NETWORK or name in NETWORK}
        assert not talkers, (
            f"{named(path)} imports {sorted(talkers)}; move the talking to a store.py, gateways/ or backends/"
        )


def test_only_the_clock_asks_what_time_it_is() -> None:
    """A rule that reads the wall clock cannot be tested at midnight. Loops and measurements may read clocks."""
    for path in [p for p in PRODUCT if named(p).startswith("core/")]:
        if named(path).startswith(MAY_TALK) or path.name in ("clock.py", "telemetry.py", "store.py"):
            continue
        assert "time" not in imports(path), f"{named(path)} imports time; take a core.clock.Clock"
        assert "random" not in imports(path), f"{named(path)} imports random; take what is drawn as an argument"


def test_files_and_functions_stay_small() -> None:
    """One file ate the house in every rival we read."""
    for path in EVERYTHING:
        lines = path.read_text(encoding="utf-8").count("\n")
        assert lines <= FILE_LINES_MOST, f"{named(path)} has {lines} lines"
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                assert size <= FUNCTION_LINES_MOST, f"{named(path)}:{node.lineno} {node.name} has {size} lines"


def test_names_say_what_is_inside() -> None:
    """A room called utils is a corridor."""
    for path in PRODUCT:
        assert path.stem not in EMPTY_NAMES, named(path)


def test_public_things_have_docstrings() -> None:
    """The next owner reads the first sentence and guesses right."""
    for path in PRODUCT:
        assert path.name == "__init__.py" or ast.get_docstring(tree(path)), f"{named(path)} does not say what it is for"
        for node in tree(path).body:
            if isinstance(node, DEFINED) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{named(path)}:{node.lineno} {node.name} has no docstring"


def test_nothing_swallows_every_exception() -> None:
    """`except: pass` is how rivals lost orders without a word."""
    for path in PRODUCT:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body):
                kind = "everything" if node.type is None else getattr(node.type, "id", "")
                assert kind not in ("everything", "Exception", "BaseException"), f"{named(path)}:{node.lineno}"


def test_scripts_and_queries_open_with_what_they_take_and_give() -> None:
    """One verb a file; its head is its contract."""
    for path in sorted((ROOT / "core").rglob("*.lua")) + sorted((ROOT / "core").rglob("*.sql")):
        head = path.read_text(encoding="utf-8").splitlines()[0]
        assert head.startswith("-- ") and len(head) > 20, named(path)
