"""Strategies, datasets and backbones of a user's own, from files and from installed packages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from layouts import describe, write_image
from test_runner import arguments, content

from cliqa_bench import addons, cli, registry
from cliqa_bench.errors import UserError
from cliqa_bench.reports import load
from cliqa_bench.settings import config_dict, resolve

METHOD = '''"""Mine: the head alone learns."""

from dataclasses import dataclass
from typing import ClassVar

from cliqa_bench.strategies.base import Strategy


@dataclass
class Mine(Strategy):
    """Trains heads on frozen features."""

    depends_on = "nothing"
    rows: ClassVar[dict[str, str]] = {"last": "Mine", "gate": "Mine-KG", "oracle": "Mine-O"}
    strength: float = 1.0

    def trainable(self, model, task, warmup):
        return list(model.heads[task].parameters())
'''

DATASET = '''"""A set of one's own."""

from cliqa_bench.benchmarks.base import Dataset, Entry
from cliqa_bench.benchmarks.labels import read_csv
from cliqa_bench.types import Rating


class Cats(Dataset):
    """Cats, rated."""

    name = "cats"
    title = "Cats"
    folders = ("cats",)
    label_files = ("cats.csv",)
    image_folders = ("",)
    citation = "me"
    homepage = "here"
    n_images = 30
    direction = "higher"
    rule = "as is"

    def entries(self):
        rows = read_csv(self.label_file("cats.csv"), ("file", "mos"))
        return [Entry(r.where, Rating(r.text("file"), r.number_in("mos"), 0.1, None, "cat")) for r in rows]
'''

BACKBONE = '''"""S-CNN under another name."""

from cliqa_bench.backbones.scnn import SCNN


class Net(SCNN):
    """The same network."""

    title = "My net"
'''


@pytest.fixture(autouse=True)
def nothing_included(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgets after each test what it included."""
    monkeypatch.setattr(addons, "_files", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    addons.installed.cache_clear()
    yield
    addons.installed.cache_clear()
    for name in [n for n in sys.modules if n.startswith(f"{addons.PACKAGE}.")]:
        del sys.modules[name]


@pytest.fixture
def method(tmp_path: Path) -> Path:
    """Returns a file with a strategy."""
    return written(tmp_path / "my_method.py", METHOD)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_is_a_strategy_by_its_path(method: Path) -> None:
    config = resolve({"strategy": f"tsn,{method}", "set": ["my_method.strength=2.5"], "data": None})
    assert config.strategy == ["tsn", "my_method"]
    assert config.params == {"my_method": {"strength": 2.5}}
    assert config.include == [str(method)]
    assert "my_method" in registry.names("strategies") and "my_method" not in registry.names("datasets")
    assert registry.describe("strategies", "my_method") == f"Mine: the head alone learns. ({method})"
    again = resolve(config_dict(config))
    assert (again.strategy, again.params, again.include) == (config.strategy, config.params, config.include)


def test_it_runs_keeps_the_contract_and_has_its_rows(
    method: Path, miniatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(miniatures, tmp_path / "runs")
    words[words.index("tsn")] = str(method)
    assert cli.main(words) == 0
    frame = load(tmp_path / "runs")
    assert {"Mine", "Mine-KG", "Mine-O"} <= set(frame.method)
    assert (frame[frame.metric == "mPSI"].value.notna()).all()
    text = (tmp_path / "runs/report/table_III.md").read_text()
    assert "| Mine-KG |" in text
    assert cli.main(["test", str(method)]) == 0
    assert "my_method keeps the contract" in capsys.readouterr().out


def test_two_processes_load_it_again(method: Path, miniatures: Path, tmp_path: Path) -> None:
    for n in ("1", "2"):
        words = arguments(miniatures, tmp_path / n, "--jobs", n)
        words[words.index("tsn")] = str(method)
        assert cli.main(words) == 0
    one, two = content(tmp_path / "1"), content(tmp_path / "2")
    assert one | {"config.yaml": ""} == two | {"config.yaml": ""}


def test_a_changed_file_is_trained_anew(method: Path) -> None:
    before = registry.origin("strategies", registry.check("strategies", str(method)))
    method.write_text(METHOD.replace("strength: float = 1.0", "strength: float = 1.5"))
    assert before and registry.origin("strategies", "my_method") != before
    assert registry.origin("strategies", "tsn") is None, "our own are told by the schema"


def test_a_dataset_and_a_backbone_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data/cats"
    root.mkdir(parents=True)
    for i in range(30):
        write_image(root / f"{i:02}.png", i, (48, 40))
    rows = [f"{i:02}.png,{i / 10}" for i in range(30)]
    written(root / "cats.csv", "\n".join(["file,mos", *rows]) + "\n")
    describe(root, 30, None)
    cats, net = written(tmp_path / "cats.py", DATASET), written(tmp_path / "my_net.py", BACKBONE)
    assert cli.main([
        "run", "--strategy", "tsn", "--orders", str(cats), "--backbone", str(net), "--weights", "random",
        "--data", str(root.parent), "--out", str(tmp_path / "runs"), "--set", "training.crop=32",
        "--set", "training.epochs=1", "--set", "training.warmup_epochs=1",
    ]) == 0  # fmt: skip
    frame = load(tmp_path / "runs")
    assert set(frame.backbone) == {"My net"} and "Cats" in set(frame.test_dataset)
    capsys.readouterr()
    assert cli.main(["list", "--include", f"{cats},{net}"]) == 0
    said = capsys.readouterr().out
    assert f"({net})" in said and "  cats " in said
    assert cli.main(["plan", "--strategy", "tsn", "--orders", "cats"]) == 2, "there is no miniature of it"
    assert "no generated miniatures of cats" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("broken.py", "x = 1\ny = = 2\n", "broken.py line 2 cannot be imported: SyntaxError"),
        ("raising.py", "import math\n\nmath.sqrt(-1)\n", "raising.py line 3 cannot be imported: ValueError"),
        ("empty.py", "x = 1\n", "must define one Strategy, it defines: none"),
        (
            "double.py",
            METHOD + METHOD[METHOD.index("@dataclass") :].replace("Mine(", "Second("),
            "Mine, Second",
        ),
        ("my-method.py", METHOD, "call it like my_method.py"),
        ("tsn.py", METHOD, "two of the name 'tsn': strategy of the built-in"),
    ],
)
def test_a_file_that_will_not_do_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, line: str
) -> None:
    path = written(tmp_path / name, text)
    assert cli.main(["plan", "--strategy", str(path)]) == 2
    said = capsys.readouterr().err.strip()
    assert line in said and "\n" not in said


def test_a_missing_file_and_two_of_one_name(method: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        registry.check("strategies", str(tmp_path / "none.py"))
    registry.check("strategies", str(method))
    other = written(tmp_path / "elsewhere/my_method.py", METHOD)
    with pytest.raises(UserError, match="have one name"):
        registry.check("strategies", str(other))


def test_it_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    written(tmp_path / "helper_of_mine.py", "ROWS = {'last': 'Helped'}\n")
    text = METHOD.replace("from dataclasses", "from helper_of_mine import ROWS\nfrom dataclasses")
    path = written(
        tmp_path / "helped.py",
        text.replace('{"last": "Mine", "gate": "Mine-KG", "oracle": "Mine-O"}', "ROWS"),
    )
    assert registry.load("strategies", registry.check("strategies", str(path))).rows == {"last": "Helped"}


# -- installed packages --------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installs a package that offers a strategy, by the files that pip would leave."""
    site = tmp_path / "site"
    written(site / "their_package/method.py", METHOD)
    written(site / "their_package/__init__.py", "")
    info = site / "their_package-1.2.dist-info"
    written(info / "METADATA", "Metadata-Version: 2.1\nName: their-package\nVersion: 1.2\n")
    written(
        info / "entry_points.txt",
        "[cliqa_bench.strategies]\ntheirs = their_package.method:Mine\nwhole = their_package.method\n"
        "gone = their_package.nothing:X\ntext = their_package.method:METHOD\n",
    )
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    return site


def test_a_package_offers_a_strategy(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "theirs" in registry.names("strategies")
    assert "their_package.method" not in sys.modules, "naming it imports nothing"
    assert registry.describe("strategies", "theirs") == "of the installed package their-package 1.2"
    cls = registry.load("strategies", "theirs")
    assert cls.name == "theirs" and cls().table_rows()["last"] == "Mine"
    origin = registry.origin("strategies", "theirs")
    assert origin is not None and origin["package"] == "their-package 1.2" and len(origin["file"]) == 16
    assert cli.main(["list"]) == 0
    assert "theirs" in capsys.readouterr().out
    with pytest.raises(UserError, match="did you mean 'theirs'"):
        registry.check("strategies", "theirz")


def test_what_a_package_offers_in_vain_is_named(installed: Path) -> None:
    with pytest.raises(
        UserError, match=r"'gone' of their-package 1\.2 cannot be imported: ModuleNotFoundError"
    ):
        registry.load("strategies", "gone")
    with pytest.raises(UserError, match=r"'text' of their-package 1\.2 cannot be imported: AttributeError"):
        registry.load("strategies", "text")


def test_a_package_must_not_take_a_name_of_ours(installed: Path) -> None:
    entries = installed / "their_package-1.2.dist-info/entry_points.txt"
    entries.write_text("[cliqa_bench.strategies]\ntsn = their_package.method:Mine\n")
    with pytest.raises(UserError, match=r"built-in .* and of the package their-package"):
        registry.load("strategies", "tsn")
    assert registry.load("strategies", "sl").name == "sl"


# -- the documentation ---------------------------------------------------------------------------------------


def test_the_dataset_and_the_backbone_of_the_document_run(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[1] / "docs/adding_a_dataset.md").read_text()
    blocks = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    cats, small = written(tmp_path / "cats.py", blocks[0]), written(tmp_path / "small.py", blocks[1])
    root = tmp_path / "data/cats-v2"
    rows = ["file,mos,std,cat"]
    for i in range(30):
        write_image(root / f"images/{i:02}.png", i, (48, 40))
        rows.append(f"{i:02}.png,{1 + i / 10},0.5,cat{i // 3}")
    written(root / "cats.csv", "\n".join(rows) + "\n")
    describe(root, 30, None)
    assert (
        cli.main(["data", "check", str(tmp_path / "data"), "--include", str(cats), "--datasets", "cats"]) == 0
    )
    net = registry.load("backbones", registry.check("backbones", str(small)))
    built = net.build("random", 0)
    assert sum(p.numel() for p in built.parameters()) == net.n_parameters
    assert cli.main([
        "run", "--strategy", "tsn", "--orders", str(cats), "--backbone", str(small), "--weights", "random",
        "--data", str(tmp_path / "data"), "--out", str(tmp_path / "runs"), "--set", "training.crop=32",
        "--set", "training.epochs=1", "--set", "training.warmup_epochs=1",
    ]) == 0  # fmt: skip
    assert {"Small"} == set(load(tmp_path / "runs").backbone)
