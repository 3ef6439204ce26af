"""Imports go strictly downwards, and what must answer at once imports neither torch nor avalanche."""

from __future__ import annotations

import ast
import functools
import graphlib
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cliqa_bench"
# from the top down; a room may import from its own floor (without circles) and from those below
FLOORS = (
    "cli",
    "bench testing",
    "execution",
    "reports settings",
    "strategies",
    "learning",
    "models",
    "benchmarks backbones",
    "results",
    "extensions",
    "system",
    "words",
)
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms.split()}
MOST_WORDS = 12
"""How many modules may lie in no room: words that every room may use, which import nothing but each other."""


@functools.cache
def modules() -> dict[str, Path]:
    """Returns every module of the package: name without `cliqa_bench.` -> file."""
    found = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in sorted(_sources(PACKAGE))}
    return {name.removesuffix(".__init__"): path for name, path in found.items() if name != "__init__"}


def _sources(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():  # rglob does not follow the rooms' symlinks
        if path.is_dir():
            yield from _sources(path)
        elif path.suffix == ".py":
            yield path


@functools.cache
def imported(path: Path) -> set[str]:
    """Returns our modules that a file imports when it runs, anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    types_only = {id(n) for node in ast.walk(tree) if _is_type_checking(node) for n in ast.walk(node)}
    known, found = modules(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in types_only:
            assert node.level == 0, f"{path}: relative import"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in (n.removeprefix("cliqa_bench.") for n in whole if n.startswith("cliqa_bench.")):
                found |= {
                    n for n in (name, name.rpartition(".")[0]) if n in known and known[n].stem != "__init__"
                }
        if isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.startswith("cliqa_bench.")], (
                f"{path}: import a.b"
            )
    return found


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def room(name: str) -> str:
    """Returns the room of a module."""
    first, _, rest = name.partition(".")
    return first if rest or first in FLOOR else "words"


def test_every_module_has_a_room_and_few_lie_in_none() -> None:
    found = {room(name) for name in modules()}
    assert found == FLOOR.keys()
    words = [name for name in modules() if room(name) == "words" and name != "__main__"]
    assert len(words) <= MOST_WORDS


@pytest.mark.parametrize("name", [name for name in modules() if name != "__main__"])
def test_imports_go_down(name: str) -> None:
    targets = {target: room(target) for target in imported(modules()[name])}
    assert [t for t, other in targets.items() if FLOOR[other] < FLOOR[room(name)]] == []
    if room(name) == "reports":
        assert set(targets.values()) <= {"reports", "results", "system", "words"}


def test_names_are_resolved_before_anything_is_executed() -> None:
    users = {room(name) for name, path in modules().items() if "extensions.registry" in imported(path)}
    assert not users & {"execution", "strategies", "learning", "results", "reports", "system"}


def test_a_file_s_name_is_unique_but_for_what_is_found_by_its_name() -> None:
    found: dict[str, list[str]] = {}
    for name, path in modules().items():
        plugins = (path.parent / "base.py").exists()  # strategies, datasets, backbones
        if path.stem != "__init__" and not plugins:
            found.setdefault(path.stem, []).append(name)
    assert [names for names in found.values() if len(names) > 1] == []


def _classes_and_aliases(path: Path) -> Iterator[str]:
    """Gives the names of classes, and of the types that a module names, as `Json = Any`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            if name.strip("_")[:1].isupper() and not name.isupper():  # capitals alone: a constant
                yield name


def test_a_class_has_a_name_of_its_own_but_for_plugins() -> None:
    found: dict[str, set[str]] = {}
    for name, path in modules().items():
        for word in _classes_and_aliases(path):
            found.setdefault(word, set()).add(name)
    doubles = {word: names for word, names in found.items() if len(names) > 1}
    assert doubles == {"Naive": {"strategies.naive", "strategies._avalanche"}}  # Avalanche's, wrapped


def test_no_circles() -> None:
    order = graphlib.TopologicalSorter({name: imported(path) for name, path in modules().items()})
    assert list(order.static_order())


def _imports_avalanche(node: ast.AST) -> bool:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return any(name.partition(".")[0] == "avalanche" for name in names)


def _guards_avalanche(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and "importing_avalanche" in ast.dump(node.items[0])


@pytest.mark.parametrize("name", modules())
def test_avalanche_is_imported_where_that_is_safe(name: str) -> None:
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if _imports_avalanche(node)]
    guards = [n for n in ast.walk(tree) if _is_type_checking(n) or _guards_avalanche(n)] if imports else []
    safe = {id(inner) for node in guards for inner in ast.walk(node)}
    assert [ast.unparse(node) for node in imports if id(node) not in safe] == []


LATE = ("torch", "torchvision", "avalanche")
HEAVY = (*LATE, "pandas", "scipy", "matplotlib", "sklearn", "PIL")
PROBE = """
import sys
from cliqa_bench.cli.parser import main
try:
    code = main(sys.argv[2:])
except SystemExit as stop:
    code = stop.code
loaded = [name for name in sys.argv[1].split(",") if name in sys.modules]
print(f"code={code} loaded={loaded}")
"""


def probe(watched: tuple[str, ...], *words: str) -> tuple[str, float]:
    """Runs a command in a fresh process; returns its last line, and its CPU time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", PROBE, ",".join(watched), *words]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1], after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["list"], 0),
        (["bench", "--help"], 0),
        (["bench", "--list"], 0),
        (["bench", "--rows", "scorning"], 2),
        (["rum"], 2),
        (["run", "--strategy", "tns"], 2),
        (["run", "--stratgy", "tsn"], 2),
        (["run", "--strategy", "tsn", "--set", "tsn.tua=1"], 2),
        (["run", "--strategy", "tsn", "--orders", "IX"], 2),
        (["data", "ratings", "lvie"], 2),
    ],
)
def test_answers_within_a_second(words: list[str], code: int) -> None:
    line, seconds = probe(HEAVY, *words)
    assert line == f"code={code} loaded=[]"
    assert seconds < 1


def test_report_needs_no_torch(tmp_path: Path) -> None:
    line, _ = probe(LATE, "report", "--out", str(tmp_path))
    assert line == "code=2 loaded=[]"  # there is nothing to report


def test_plan_needs_no_torch(tmp_path: Path, miniatures: Path) -> None:
    words = ["plan", "--strategy", "tsn", "--orders", "all", "--weights", "random"]
    line, _ = probe(LATE, *words, "--data", str(miniatures), "--out", str(tmp_path))
    assert line == "code=0 loaded=[]"
