"""The registry reads names and descriptions from files, and imports only what is asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.extensions.registry import PluginKind

SIX = ["bid", "clive", "csiq", "kadid10k", "koniq10k", "live"]
EVERYTHING: list[tuple[PluginKind, str]] = [
    (kind, name) for kind in registry._ROOMS for name in registry.names(kind)
]  # fmt: skip


def test_names_of_the_paper_are_there() -> None:
    assert set(SIX) <= set(registry.names("datasets"))
    assert "tsn" in registry.names("strategies")
    assert {"resnet18", "resnet50", "scnn", "two_stream", "vgg16"} <= set(registry.names("backbones"))


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_load_gives_the_class_of_the_file(kind: PluginKind, name: str) -> None:
    room = registry._ROOMS[kind]
    cls = registry.load(kind, name)
    base = importlib.import_module(f"cliqa_bench.{room.folder}.base")
    assert cls.__module__ == f"cliqa_bench.{room.folder}.{name}"
    assert issubclass(cls, getattr(base, room.base))
    assert cls.name == name


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_description_is_the_first_line_of_the_docstring(kind: PluginKind, name: str) -> None:
    module = sys.modules[registry.load(kind, name).__module__]
    assert registry.describe(kind, name) == (module.__doc__ or "").splitlines()[0] != ""


def test_names_import_nothing() -> None:
    program = (
        "import sys; from cliqa_bench.extensions import registry\n"
        "for kind in registry._ROOMS:\n"
        "    [registry.describe(kind, name) for name in registry.names(kind)]\n"
        "print([m for m in sys.modules if m.startswith('cliqa_bench.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).resolve().parents[1])  # fmt: skip
    assert done.stdout.strip() == (
        "['cliqa_bench._version', 'cliqa_bench.extensions', 'cliqa_bench.errors', "
        "'cliqa_bench.extensions.moved', 'cliqa_bench.paths', 'cliqa_bench.extensions.user_code', "
        "'cliqa_bench.part_names', 'cliqa_bench.extensions.registry']"
    )


@pytest.mark.parametrize(
    ("kind", "name", "line"),
    [
        (
            "datasets",
            "konik10k",
            "unknown dataset 'konik10k' (did you mean 'koniq10k'?); choose from: agiqa3k, bid, biq2021, cid",
        ),
        ("datasets", "splits", "unknown dataset 'splits'"),
        ("strategies", "base", "unknown strategy 'base'"),
        ("strategies", "TSN", "unknown strategy 'TSN' (did you mean 'tsn'?); choose from: "),
        ("backbones", "resnet1", "unknown backbone 'resnet1' (did you mean 'resnet18'?); choose from: "),
        (
            "backbones",
            "torchvision:x",
            "unknown backbone 'torchvision:x'; choose from: clip_b32, lite0, resnet18, ",
        ),
        ("backbones", "_timm", "unknown backbone '_timm' (did you mean 'timm:NAME'?); choose from: "),
    ],
)
def test_unknown_names(kind: PluginKind, name: str, line: str) -> None:
    for ask in (registry.load, registry.describe, registry.check):
        with pytest.raises(UserError) as caught:
            ask(kind, name)
        assert str(caught.value).startswith(line)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns an empty room for datasets."""
    monkeypatch.setattr(registry, "_PACKAGE", tmp_path)
    monkeypatch.setattr(registry, "_files", registry._files.__wrapped__)  # not remembered: files come and go
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    return folder


def test_a_file_is_a_dataset_if_it_extends_dataset(room: Path) -> None:
    sources = {
        "plain.py": "class Plain(Dataset):\n    pass\n",
        "mixed.py": "class Mixed(Mixin, Dataset):\n    pass\n",
        "broken_line.py": "class Long(\n    Mixin,\n    Dataset,\n):\n    pass\n",
        "base.py": "class Dataset(ABC):\n    pass\n",
        "_private.py": "class Private(Dataset):\n    pass\n",
        "streams.py": "class Stream(torch.utils.data.Dataset):\n    pass\n",
        "generic.py": "class Stream(data.Dataset[int]):\n    pass\n",
        "other.py": "class Other(QualityDataset):\n    pass\n",
        "helper.py": "def read(dataset: Dataset) -> None:\n    class Inner:\n        pass\n",
        "notes.txt": "class Notes(Dataset):\n",
    }
    for name, text in sources.items():
        (room / name).write_text(text, encoding="utf-8")
    assert registry.names("datasets") == ["broken_line", "mixed", "plain"]


def test_description_of_a_file_without_docstring_is_empty(room: Path) -> None:
    (room / "plain.py").write_text("class Plain(Dataset):\n    pass\n", encoding="utf-8")
    assert registry.describe("datasets", "plain") == ""


def test_load_wants_one_class_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[registry.load("datasets", "live").__module__]
    second = type("Second", (Dataset,), {"__module__": module.__name__, "name": "second"})
    monkeypatch.setattr(module, "Second", second, raising=False)
    with pytest.raises(UserError, match=r"live\.py must define one Dataset, it defines: Live, Second"):
        registry.load("datasets", "live")


def test_the_digest_of_our_code_looks_into_sub_folders_but_not_at_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_PACKAGE", tmp_path / "package")
    (tmp_path / "real").mkdir()
    for folder in ("package/backbones", "real/generated", "package/reports"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "package" / "benchmarks").symlink_to(tmp_path / "real")  # as in a checkout
    (tmp_path / "package" / "strategies").mkdir()

    def look() -> str:
        return registry.code_digest.__wrapped__()

    seen = [look()]
    for name in ("a.py", "backbones/b.py", "benchmarks/c.py", "benchmarks/generated/d.py", "strategies/e.py"):
        (tmp_path / "package" / name).write_text(name)
        seen.append(look())
    assert len(set(seen)) == 6
    (tmp_path / "package" / "reports" / "f.py").write_text("f")
    assert look() == seen[-1]
