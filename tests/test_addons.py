"""Strategies, datasets and backbones of a user's own, from files and from installed packages."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from layouts import describe, write_bid, write_image
from test_imports import LATE, probe
from test_runner import arguments, content

from cliqa_bench.cli import parser
from cliqa_bench.errors import UserError
from cliqa_bench.execution.run import prepare
from cliqa_bench.extensions import registry, user_code
from cliqa_bench.extensions.user_traceback import format_error
from cliqa_bench.models.pretraining_config import DISTORTION_BN, distortion_bn_file
from cliqa_bench.reports import load
from cliqa_bench.reports.rows import group_records
from cliqa_bench.settings.resolve import config_dict, resolve

pytestmark = pytest.mark.usefixtures("undrawn")

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
from cliqa_bench.benchmarks.readers.text import read_csv
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
def nothing_included(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Forgets after each test where the files that it included lie, and what it imported from there."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    user_code.installed.cache_clear()
    yield
    user_code.installed.cache_clear()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
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


@pytest.mark.slow
def test_it_runs_keeps_the_contract_and_has_its_rows(
    method: Path, miniatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(miniatures, tmp_path / "runs")
    words[words.index("tsn")] = str(method)
    assert parser.main(words) == 0
    frame = load(tmp_path / "runs")
    assert {"Mine", "Mine-KG", "Mine-O"} <= set(frame.method)
    assert (frame[frame.metric == "mPSI"].value.notna()).all()
    text = (tmp_path / "runs/report/table_III.md").read_text()
    assert "| Mine-KG |" in text
    assert parser.main(["test", str(method), "--set", "my_method.strength=2", "--set", "tau=16"]) == 0
    assert "my_method meets the contract" in capsys.readouterr().out
    assert parser.main(["run", "--config", str(tmp_path / "runs/config.yaml")]) == 0
    assert "2 trainings, 2 already there" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_load_it_again(method: Path, miniatures: Path, tmp_path: Path) -> None:
    for n in ("1", "2"):
        words = arguments(miniatures, tmp_path / n, "--jobs", n)
        words[words.index("tsn")] = str(method)
        assert parser.main(words) == 0
    one, two = content(tmp_path / "1"), content(tmp_path / "2")
    assert one | {"config.yaml": ""} == two | {"config.yaml": ""}


def strength(cls: type) -> float:
    """Returns the default of the strategy that `METHOD` defines."""
    value: float = cls().strength
    return value


def test_a_changed_file_is_another_and_is_what_runs(method: Path) -> None:
    before = origin_of(method)
    assert origin_of(method) == before and strength(registry.load("strategies", "my_method")) == 1.0
    method.write_text(METHOD.replace("strength: float = 1.0", "strength: float = 1.5"))  # of the same length
    assert registry.origin("strategies", "my_method") == before, "what is loaded is still the old one"
    assert origin_of(method) != before
    assert strength(registry.load("strategies", "my_method")) == 1.5
    assert registry.origin("strategies", "tsn") is None, "our own are told by the schema"


def origin_of(path: Path) -> dict[str, str]:
    origin = registry.origin("strategies", registry.check("strategies", str(path)))
    assert origin is not None
    return origin


def test_every_node_that_a_file_of_ones_own_bears_on_names_its_source(method: Path, tmp_path: Path) -> None:
    def ids(words: str, kind: str) -> list[str]:
        config = resolve({"strategy": f"{method},sl", "orders": "bid", "data": str(tmp_path / "data"),
                          "weights": "random", "backbone": words, "out": str(tmp_path / "out")})  # fmt: skip
        plan = prepare(config, "")
        return [work.node.id for work in getattr(plan, kind).values()]

    write_bid(tmp_path / "data" / "BID")
    describe(tmp_path / "data" / "BID", 20, None)
    mine, sl = ids("scnn", "train")
    gates = ids("scnn", "gates")
    method.write_text(METHOD + "# changed\n")
    mine_now, sl_now = ids("scnn", "train")
    assert mine_now != mine and sl_now == sl and ids("scnn", "gates") == gates
    net = written(tmp_path / "net.py", BACKBONE)
    trained, gates = ids(str(net), "train"), ids(str(net), "gates")
    kept = distortion_bn_file("net", "random", DISTORTION_BN["quick"])
    assert distortion_bn_file("scnn", "random", DISTORTION_BN["quick"]) != kept
    net.write_text(BACKBONE + "# changed\n")
    assert not {*ids(str(net), "train"), *ids(str(net), "gates")} & {*trained, *gates}
    assert distortion_bn_file("net", "random", DISTORTION_BN["quick"]) != kept


def test_a_dataset_and_a_backbone_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data/cats"
    root.mkdir(parents=True)
    for i in range(30):
        write_image(root / f"{i:02}.png", i, (48, 40))
    rows = [f"{i:02}.png,{i / 10}" for i in range(30)]
    written(root / "cats.csv", "\n".join(["file,mos", *rows]) + "\n")
    describe(root, 30, None)
    cats, net = written(tmp_path / "cats.py", DATASET), written(tmp_path / "my_net.py", BACKBONE)
    assert parser.main([
        "run", "--strategy", "tsn", "--orders", str(cats), "--backbone", str(net), "--weights", "random",
        "--data", str(root.parent), "--out", str(tmp_path / "runs"), "--set", "training.crop=32",
        "--set", "training.epochs=1", "--set", "training.warmup_epochs=1",
    ]) == 0  # fmt: skip
    frame = load(tmp_path / "runs")
    assert set(frame.backbone) == {"My net"} and "Cats" in set(frame.test_dataset)
    capsys.readouterr()
    assert parser.main(["list", "--include", f"{cats},{net}"]) == 0
    said = capsys.readouterr().out
    assert f"({net})" in said and "  cats " in said
    assert parser.main(["plan", "--strategy", "tsn", "--orders", "cats"]) == 2, "there is no miniature of it"
    assert "no generated miniatures of cats" in capsys.readouterr().err


def test_two_versions_of_a_file_do_not_stand_in_one_table(method: Path, tmp_path: Path) -> None:
    write_bid(tmp_path / "data" / "BID")
    describe(tmp_path / "data" / "BID", 20, None)
    settings = {"orders": "bid", "data": str(tmp_path / "data"), "weights": "random",
                "out": str(tmp_path / "out")}  # fmt: skip
    (old,) = prepare(resolve({"strategy": str(method), "seeds": "7", **settings}), "").records
    method.write_text(METHOD + "# changed\n")
    new, sl = prepare(resolve({"strategy": f"{method},sl", **settings}), "").records
    for record, asked in ((old, "1"), (new, "2"), (sl, "2")):
        record.facts["asked"] = asked
    newest, older = group_records([old, new, sl])
    assert {r.strategy for r in newest.records} == {"my_method", "sl"} and older.records == [old]
    old.facts["origins"] = new.facts["origins"]
    (group,) = group_records([old, new, sl])
    assert len(group.records) == 3
    copy = written(tmp_path / "copied.py", METHOD)
    with pytest.raises(UserError, match="my_method and copied both have the row 'Mine' in the tables"):
        prepare(resolve({"strategy": f"{method},{copy}", **settings}), "")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("broken.py", "x = 1\ny = = 2\n", "broken.py line 2 cannot be imported: SyntaxError"),
        ("raising.py", "import math\n\nmath.sqrt(-1)\n", "raising.py line 3 cannot be imported: ValueError"),
        ("quits.py", "import sys\nsys.exit('no')\n", "quits.py line 2 cannot be imported: SystemExit: no"),
        ("wordy.py", "raise OSError('one\\ntwo')\n", "wordy.py line 1 cannot be imported: OSError: one two"),
        ("binary.py", "x = '\0'\n", "binary.py"),
        ("empty.py", "x = 1\n", "must define one Strategy, it defines: none"),
        (
            "double.py",
            METHOD + METHOD[METHOD.index("@dataclass") :].replace("Mine(", "Second("),
            "Mine, Second",
        ),
        ("my-method.py", METHOD, "one that Python can import, such as my_method.py"),
        ("tsn.py", METHOD, "the strategy 'tsn' is defined twice, in the built-in"),
    ],
)
def test_a_file_that_will_not_do_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, line: str
) -> None:
    path = written(tmp_path / name, text)
    assert parser.main(["plan", "--strategy", str(path)]) == 2
    said = capsys.readouterr().err.strip()
    assert line in said and "\n" not in said


def test_a_missing_file_and_two_of_one_name(method: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        registry.check("strategies", str(tmp_path / "none.py"))
    registry.check("strategies", str(method))
    other = written(tmp_path / "elsewhere/my_method.py", METHOD)
    with pytest.raises(UserError, match="have the same name"):
        registry.check("strategies", str(other))


HELPED = METHOD.replace("from dataclasses", "from helper_of_mine import ROWS\nfrom dataclasses").replace(
    '{"last": "Mine", "gate": "Mine-KG", "oracle": "Mine-O"}', "ROWS"
)


def test_what_it_imports_from_beside_it_is_part_of_it(tmp_path: Path) -> None:
    helper = written(tmp_path / "helper_of_mine.py", "from parts_of_mine import ROWS\n")
    parts = written(tmp_path / "parts_of_mine/__init__.py", "from .rows import ROWS\n").parent
    written(parts / "rows.py", "ROWS = {'last': 'Helped'}\n")
    path = written(tmp_path / "helped.py", HELPED)
    found = [origin_of(path)]
    assert registry.load("strategies", "helped").rows == {"last": "Helped"}
    for changed, text in (
        (parts / "rows.py", "ROWS = {'last': 'Helped twice'}\n"),
        (helper, "from parts_of_mine import ROWS\nN = 1\n"),
        (path, HELPED + "    def after_warmup(self, learner):\n        import late_of_mine\n"),
        (tmp_path / "late_of_mine.py", "it = 'is imported while training'\n"),
    ):
        written(changed, text)
        found.append(origin_of(path))
        assert registry.load("strategies", "helped").rows == {"last": "Helped twice"}
    assert len({origin["file"] for origin in found}) == len(found)
    written(tmp_path / "unrelated.py", "x = 1\n")
    assert origin_of(path) == found[-1]


def test_a_module_beside_it_that_another_hides_is_named(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        written(tmp_path / folder / "helper_of_mine.py", f"ROWS = {{'last': '{folder}'}}\n")
        written(tmp_path / folder / f"method_{folder}.py", HELPED)
    assert registry.load("strategies", registry.check("strategies", str(tmp_path / "one/method_one.py"))).rows
    with pytest.raises(UserError, match=r"one/helper_of_mine\.py, not .*two/helper_of_mine\.py; rename"):
        registry.check("strategies", str(tmp_path / "two/method_two.py"))
    written(tmp_path / "three/json.py", "ROWS = {}\n")
    hidden = written(tmp_path / "three/hidden.py", HELPED.replace("helper_of_mine", "json"))
    with pytest.raises(
        UserError, match=r"import json finds .*json/__init__\.py, not .*three/json\.py; rename"
    ):
        registry.check("strategies", str(hidden))


def test_a_name_may_be_another_kind_s_and_is_given_in_its_own_case(tmp_path: Path) -> None:
    bid = written(tmp_path / "bid.py", METHOD)
    mixed = written(tmp_path / "MySet.py", DATASET)
    config = resolve({"strategy": f"{bid},bid", "orders": f"{mixed},bid", "test_on": "MySet2", "data": None,
                      "include": [written(tmp_path / "MySet2.py", DATASET)]})  # fmt: skip
    assert (config.strategy, config.orders) == (["bid"], {"MySet,bid": ["MySet", "bid"]})
    assert config.test_on == ["MySet2"]
    assert registry.load("datasets", "bid").title == "BID"
    assert registry.load("datasets", "MySet").name == "MySet", "the file's, whatever the class says"
    assert registry.origin("datasets", "bid") is None
    again = resolve(config_dict(config))
    assert (again.orders, again.test_on) == (config.orders, config.test_on)


def test_planning_with_a_file_of_ones_own_needs_no_torch(method: Path, tmp_path: Path) -> None:
    write_bid(tmp_path / "data" / "BID")
    describe(tmp_path / "data" / "BID", 20, None)
    words = ["plan", "--strategy", str(method), "--orders", "bid", "--weights", "random"]
    line, _ = probe(LATE, *words, "--data", str(tmp_path / "data"), "--out", str(tmp_path))
    assert line == "code=0 loaded=[]"


# -- what they raise ----------------------------------------------------------------------------------------


def cats_of(root: Path) -> list[str]:
    """Makes the data of `DATASET`; returns flags with which a run on them takes a second."""
    (root / "cats").mkdir(parents=True)
    for i in range(30):
        write_image(root / f"cats/{i:02}.png", i, (48, 40))
    rows = [f"{i:02}.png,{i / 10}" for i in range(30)]
    written(root / "cats/cats.csv", "\n".join(["file,mos", *rows]) + "\n")
    describe(root / "cats", 30, None)
    return ["--weights", "random", "--data", str(root), "--out", str(root.parent / "runs"),
            "--set", "training.crop=32", "--set", "training.epochs=1"]  # fmt: skip


BUILDING = """
    @classmethod
    def build(cls, *given):
        return super().build(*given)
"""
RAISING = {
    "strategy": (METHOD, "return list(", "return half(model) or list("),
    "dataset": (DATASET, "rows = read_csv(", "rows = half(1) or read_csv("),
    "backbone": (BACKBONE + BUILDING, "return super()", "return half(0) or super()"),
}


@pytest.mark.parametrize(
    ("kind", "jobs"),
    [
        ("strategy", 1),
        pytest.param("strategy", 2, marks=pytest.mark.slow),
        ("dataset", 1),
        ("backbone", 1),
    ],
)
def test_what_ones_own_code_raises_is_shown_with_its_lines(
    kind: str, jobs: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--jobs", str(jobs), *cats_of(tmp_path / "data")]
    for flag, name in (("--strategy", "strategy"), ("--orders", "dataset"), ("--backbone", "backbone")):
        text, line, raising = RAISING[name]
        assert line in text
        text = text.replace(line, raising) if name == kind else text
        half = "def half(x):\n    import fractions\n    return fractions.Fraction(x, 0)\n"
        words += [flag, str(written(tmp_path / f"my_{name}.py", f"{text}\n\n{half}"))]
    assert parser.main(words) == 1
    said = capfd.readouterr().err.splitlines()
    begin = said.index("Traceback (most recent call last; only the lines of your own code):")
    places = [line.strip() for line in said[begin:] if line.startswith("  File ")]
    lines = (tmp_path / f"my_{kind}.py").read_text().splitlines()
    at = next(n for n, line in enumerate(lines, 1) if "= half(" in line or "return half(" in line)
    named = [place.partition(", in ")[::2] for place in places]
    file = tmp_path / f"my_{kind}.py"
    assert [where for where, _ in named] == [f'File "{file}", line {n}' for n in (at, len(lines))]
    assert named[1][1] == "half"
    error = "TypeError" if kind == "strategy" else "ZeroDivisionError"
    assert [line for line in said[begin:] if line.startswith(f"{error}: ")]
    if kind == "dataset":  # it raises before there are jobs
        assert said[-1].startswith(f"cliqa-bench: error: {file} line {len(lines)}: ZeroDivisionError: ")


def test_what_we_raise_below_ones_own_code_is_shown_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = METHOD.replace("list(model.heads[task].parameters())", "model.train_only(1)")
    method, cats = written(tmp_path / "my_method.py", text), written(tmp_path / "cats.py", DATASET)
    words = ["--strategy", str(method), "--orders", str(cats), "--backbone", "scnn"]
    assert parser.main(["run", *words, *cats_of(tmp_path / "data")]) == 1
    said = capfd.readouterr().err
    assert "Traceback (most recent call last):\n" in said and "only the lines" not in said
    assert all(f", in {name}\n" in said for name in ("attempt", "trainable", "train_only"))


def test_of_what_it_raised_from_only_its_lines_are_shown(method: Path) -> None:
    reading = """

def read(text):
    import json
    try:
        return json.loads(text)
    except ValueError as error:
        raise RuntimeError("no table") from error
"""
    written(method, METHOD + reading)
    registry.check("strategies", str(method))
    with pytest.raises(RuntimeError) as caught:
        user_code.included()["my_method"].module.read("{")
    said = format_error(caught.value)
    assert "JSONDecodeError" in said and "direct cause" in said
    assert [line.split('"')[1] for line in said.splitlines() if line.startswith("  File ")] == [
        str(method)
    ] * 2


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
        "gone = their_package.nothing:X\ntext = their_package.method:METHOD\n"
        "sl2 = cliqa_bench.strategies.sl:SL\ncall = their_package.method:dataclass\n"
        "[cliqa_bench.datasets]\nlost = their_package.nowhere\n"
        "[cliqa_bench.backbones]\nnet = their_package.nowhere\n",
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
    assert parser.main(["list"]) == 0
    assert "theirs" in capsys.readouterr().out
    with pytest.raises(UserError, match="did you mean 'theirs'"):
        registry.check("strategies", "theirz")


def test_a_list_imports_no_package(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parser.main(["list"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip()]
    said = {words[0]: words[1] for words in lines if len(words) == 2}
    assert {"theirs", "lost", "net"} <= said.keys()
    assert all("of the installed package their-package 1.2" in said[n] for n in ("theirs", "lost", "net"))
    assert "their_package" not in sys.modules


def test_one_class_may_have_several_names(installed: Path) -> None:
    classes = [registry.load("strategies", name) for name in ("theirs", "whole", "sl", "sl2")]
    assert [cls.name for cls in classes] == ["theirs", "whole", "sl", "sl2"]
    assert registry.load("strategies", "theirs") is classes[0]
    assert user_code.is_users_module("their_package.method", "elsewhere.py"), "its lines are shown"
    assert not user_code.is_users_module("cliqa_bench.strategies.sl", "sl.py")
    assert classes[3](main_rate=0.5) == classes[3](main_rate=0.5) != classes[3]()


@pytest.mark.slow
def test_a_package_s_strategy_runs_and_has_its_rows(
    installed: Path, miniatures: Path, tmp_path: Path
) -> None:
    words = arguments(miniatures, tmp_path / "runs")
    words[words.index("tsn")] = "theirs"
    assert parser.main(words) == 0
    frame = load(tmp_path / "runs")
    assert {"Mine", "Mine-KG", "Mine-O"} <= set(frame.method)
    specs = [json.loads(f.read_text()) for f in (tmp_path / "runs/train").glob("*/spec.json")]
    assert specs and all(spec["origin"]["package"] == "their-package 1.2" for spec in specs)


def test_what_a_package_offers_in_vain_is_named(installed: Path) -> None:
    with pytest.raises(
        UserError, match=r"'gone' of their-package 1\.2 cannot be imported: ModuleNotFoundError"
    ):
        registry.load("strategies", "gone")
    with pytest.raises(UserError, match=r"'text' of their-package 1\.2 cannot be imported: AttributeError"):
        registry.load("strategies", "text")
    with pytest.raises(UserError, match=r"'call' of their-package 1\.2 is not a Strategy"):
        registry.load("strategies", "call")


def test_a_package_must_not_take_a_name_of_ours(installed: Path) -> None:
    entries = installed / "their_package-1.2.dist-info/entry_points.txt"
    entries.write_text("[cliqa_bench.strategies]\ntsn = their_package.method:Mine\n")
    with pytest.raises(UserError, match=r"built-in .* and in the package their-package"):
        registry.load("strategies", "tsn")
    assert registry.load("strategies", "sl").name == "sl"


# -- the documentation ---------------------------------------------------------------------------------------


def blocks_of(document: str, language: str) -> list[str]:
    """Returns the code blocks of a document."""
    text = (Path(__file__).resolve().parents[1] / "docs" / document).read_text(encoding="utf-8")
    return [part.split("```")[0] for part in text.split(f"```{language}\n")[1:]]


@pytest.mark.slow
def test_the_strategy_of_the_document_runs_from_a_file(miniatures: Path, tmp_path: Path) -> None:
    l2sp = written(tmp_path / "l2sp.py", blocks_of("adding_a_strategy.md", "python")[0])
    words = arguments(miniatures, tmp_path / "runs", "--set", "l2sp.reg_weight=1")
    words[words.index("tsn")] = str(l2sp)
    assert parser.main(words) == 0
    assert {"L2-SP", "L2-SP-KG", "L2-SP-O"} <= set(load(tmp_path / "runs").method)
    (block,) = blocks_of("adding_a_strategy.md", "toml")
    assert tomllib.loads(block)["project"]["entry-points"] == {
        "cliqa_bench.strategies": {"l2sp": "my_package.l2sp:L2SP"}
    }


def test_the_dataset_and_the_backbone_of_the_document_run(tmp_path: Path) -> None:
    blocks = blocks_of("adding_a_dataset.md", "python")
    cats, small = written(tmp_path / "cats.py", blocks[0]), written(tmp_path / "small.py", blocks[1])
    root = tmp_path / "data/cats-v2"
    rows = ["file,mos,std,cat"]
    for i in range(30):
        write_image(root / f"images/{i:02}.png", i, (48, 40))
        rows.append(f"{i:02}.png,{1 + i / 10},0.5,cat{i // 3}")
    written(root / "cats.csv", "\n".join(rows) + "\n")
    describe(root, 30, None)
    assert (
        parser.main(["data", "check", str(tmp_path / "data"), "--include", str(cats), "--datasets", "cats"])
        == 0
    )
    net = registry.load("backbones", registry.check("backbones", str(small)))
    built = net.build("random", 0)
    assert sum(p.numel() for p in built.parameters()) == net.n_parameters
    assert parser.main([
        "run", "--strategy", "tsn", "--orders", str(cats), "--backbone", str(small), "--weights", "random",
        "--data", str(tmp_path / "data"), "--out", str(tmp_path / "runs"), "--set", "training.crop=32",
        "--set", "training.epochs=1", "--set", "training.warmup_epochs=1",
    ]) == 0  # fmt: skip
    assert {"Small"} == set(load(tmp_path / "runs").backbone)
