"""The command line: what a command hands on, what misuse gets to hear, and how a run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import types
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from cliqa_bench._version import __version__
from cliqa_bench.benchmarks.part_orders import PART_WORDS
from cliqa_bench.benchmarks.suites import ORDERS
from cliqa_bench.cli.listing import PART_TEXTS, READOUT_TEXTS
from cliqa_bench.cli.parser import COMMANDS, build_parser, main
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.models.pretraining_config import SCNN, SHIPPED_PRETRAINING
from cliqa_bench.order_designs import WORDS
from cliqa_bench.reports import report
from cliqa_bench.reports.formats import FORMATS
from cliqa_bench.results.readouts import READOUTS

ROOT = Path(__file__).resolve().parents[1]
TOP = list(dict.fromkeys(name.partition(" ")[0] for name in COMMANDS))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that puts a recording stand-in where a command's module would be."""

    def put(module: str, **functions: Any) -> dict[str, Mock]:
        stand_in: Any = types.ModuleType(module)
        mocks = {name: Mock(return_value=value) for name, value in functions.items()}
        for name, mock in mocks.items():
            setattr(stand_in, name, mock)
        monkeypatch.setitem(sys.modules, module, stand_in)
        return mocks

    return put


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs misuse and returns the one line it gets."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cliqa-bench: error: ")
    assert err.count("\n") == 1
    return err.removeprefix("cliqa-bench: error: ").rstrip("\n")


# -- what a command hands on ---------------------------------------------------------------------------------


def test_run_gets_flags_over_file(fake: Any, tmp_path: Path) -> None:
    run = fake("cliqa_bench.execution.run", run=0)["run"]
    file = tmp_path / "run.yaml"
    file.write_text(
        "strategy: [tsn]\norders: [I, 'bid,live']\nseeds: [0, 1]\nsplit: 2\n"
        "training: {epochs: 3}\nparams: {tsn: {tau: 8, stages: [4]}}\n",
        encoding="utf-8",
    )
    words = ["run", "--config", str(file), "--seeds", "5", "--set", "tsn.tau=16", "--set", "training.lr=0.1"]
    assert main([*words, "--out", "a b"]) == 0
    (config, command, failed), _ = run.call_args
    assert not failed
    assert list(config.orders) == ["I", "bid,live"]
    assert (config.seeds, config.split, config.out) == ([5], "2", Path("a b"))
    assert (config.training.epochs, config.training.lr) == (3, 0.1)
    assert config.params == {"tsn": {"tau": 16.0, "stages": (4,)}}
    assert command == f"python -m cliqa_bench {' '.join(words)} --out 'a b'"


def test_the_exit_code_is_the_commands(fake: Any) -> None:
    fake("cliqa_bench.execution.run", run=3)
    assert main(["run", "--strategy", "tsn"]) == 3


def test_a_run_writes_the_report_that_is_asked_for(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake("cliqa_bench.execution.run", run=0, run_all=0)
    assert main(["run", "--strategy", "tsn", "--format", "csv,md", "--no-figures"]) == 0
    assert run["run"].call_args[1] == {"formats": ["csv", "md"], "figures": False}
    assert main(["run", "--strategy", "tsn"]) == 0
    assert run["run"].call_args[1] == {"formats": [], "figures": True}
    assert main(["paper", "--weights", "random", "--no-figures"]) == 0
    assert run["run_all"].call_args[1] == {"formats": [], "figures": False}
    assert main(["run", "--strategy", "tsn", "--format", "docx"]) == 2
    assert "unknown format 'docx'" in capsys.readouterr().err and run["run"].call_count == 2


def test_plan_prints(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake("cliqa_bench.execution.run", plan="six nodes")
    assert main(["plan", "--strategy", "tsn", "--orders", "all"]) == 0
    assert capsys.readouterr().out == "six nodes\n"


@pytest.fixture
def write_report(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """A recording stand-in for the function behind `report`."""
    write = Mock(return_value=types.SimpleNamespace(summary="a table"))
    monkeypatch.setattr(report, "write_report", write)
    return write


def test_report_prints_the_summary(write_report: Mock, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--out", "elsewhere"]) == 0
    write_report.assert_called_once_with(Path("elsewhere"), FORMATS, True, False)
    assert capsys.readouterr().out == "a table\n"


def test_report_takes_formats_and_published_values(write_report: Mock) -> None:
    assert main(["report", "--format", "md, tex", "--no-figures", "--published"]) == 0
    write_report.assert_called_once_with(Path("runs"), ["md", "tex"], False, True)


def test_report_of_published_values_alone_needs_no_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--published-only", "--out", str(tmp_path), "--format", "md"]) == 0
    assert "12 published tables" in capsys.readouterr().out
    assert (tmp_path / "report" / "published" / "table_IV.md").is_file()


def test_report_names_the_formats_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--format", "docx", "--out", str(tmp_path)]) == 2
    assert "unknown format 'docx'" in capsys.readouterr().err


def test_data_make(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make = fake("cliqa_bench.benchmarks.generated.make", make_miniatures=None)["make_miniatures"]
    assert main(["data", "make", "here", "--scale", "0.5", "--seed", "3"]) == 0
    make.assert_called_once_with(Path("here"), 0.5, 3)
    assert "--data here" in capsys.readouterr().out


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 2)])
def test_data_check(fake: Any, tmp_path: Path, ok: bool, code: int) -> None:
    report = types.SimpleNamespace(ok=ok, render=lambda: "a table")
    check = fake("cliqa_bench.benchmarks.check", check_data=report)["check_data"]
    assert main(["data", "check", str(tmp_path), "--datasets", "live, bid", "--split", "2"]) == code
    check.assert_called_once_with(tmp_path, ["live", "bid"], "2", 64.0)


def test_data_check_without_a_folder_checks_the_miniatures(fake: Any, tmp_path: Path) -> None:
    make = fake("cliqa_bench.benchmarks.generated.make", default_root=tmp_path, make_miniatures=None)
    report = types.SimpleNamespace(ok=True, render=lambda: "a table")
    check = fake("cliqa_bench.benchmarks.check", check_data=report)["check_data"]
    assert main(["data", "check"]) == 0
    make["make_miniatures"].assert_called_once_with(tmp_path, names=None)
    check.assert_called_once_with(tmp_path, None, "1", 64.0)


def test_data_sheet(fake: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live, bid = Mock(title="LIVE", generated=None), Mock(title="BID", generated={"n_images": 1})
    shown = {Path("there/live.png"): live, Path("there/bid.png"): bid}
    draw = fake("cliqa_bench.benchmarks.generated.contact", contact_sheet=shown)["contact_sheet"]
    assert main(["data", "sheet", str(tmp_path), "--out", "there"]) == 0
    draw.assert_called_once_with(tmp_path, Path("there"))
    assert capsys.readouterr().out.splitlines() == [
        "there/live.png: LIVE, real data", "there/bid.png: BID, a generated miniature"
    ]  # fmt: skip


def test_pretrain(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    train = fake("cliqa_bench.models.pretraining", pretrain=0.75)["pretrain"]
    fake("cliqa_bench.system.compute", resolve_device="a device")
    assert main(["pretrain", "--to", "w.safetensors", "--seed", "2", "--steps", "9"]) == 0
    (backbone, to, device, config, command), _ = train.call_args
    assert (backbone.name, to, device) == ("scnn", Path("w.safetensors"), "a device")
    assert config == replace(SCNN, seed=2, steps=9)
    assert command == "python -m cliqa_bench pretrain --to w.safetensors --seed 2 --steps 9"
    assert "0.750" in capsys.readouterr().out
    assert main(["pretrain", "--backbone", "vit_mini"]) == 0
    (backbone, to, _, config, _), _ = train.call_args
    assert (backbone.name, to) == ("vit_mini", Path("vit_mini.safetensors"))
    assert config == SHIPPED_PRETRAINING["vit_mini"] != SCNN


def test_data_ratings_of_the_miniatures(miniatures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "ratings", "csiq", "--data", str(miniatures), "--split", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "key,score,std,group,distortion,subset"
    ratings = registry.load("datasets", "csiq")(miniatures / "CSIQ").ratings()
    assert [line.partition(",")[0] for line in lines[1:]] == [rating.key for rating in ratings]
    assert {line.rpartition(",")[2] for line in lines[1:]} == {"train", "val", "test"}


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    first = {row[0]: row for row in rows}
    kinds = [name for kind in registry._ROOMS for name in registry.names(kind)]
    assert first.keys() == {
        *kinds,
        "timm:NAME",
        "avalanche:NAME",
        "csv:FILE",
        *ORDERS,
        "all",
        *WORDS,
        *PART_WORDS,
        *PART_TEXTS,
        *READOUTS,
    }
    assert first["resnet18"][1:3] == ["10,112", "98,304"]
    assert first["live"][1:4] == ["LIVE", "779", "images"]
    assert "https://database.mmsp-kn.de/kadid-10k-database.html" in first["kadid10k"]
    assert first["V"][1:] == ["kadid10k,", "koniq10k,", "clive,", "bid,", "csiq,", "live"]
    assert READOUT_TEXTS.keys() == set(READOUTS)


# -- help ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: cliqa-bench {name}")
    flags = [f for f in build_parser()[1][name]._option_string_actions if f.startswith("--")]
    assert [flag for flag in flags if flag not in out] in ([], ["--training", "--params", "--tables"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"cliqa-bench {__version__}\n"


# -- misuse --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "",
            f"which command? cliqa-bench {{{','.join(TOP)}}}, or --help",
        ),
        (
            "rum",
            f"unknown command 'rum' (did you mean 'run'?); choose from: {', '.join(sorted(TOP))}",
        ),
        ("data", "which command? cliqa-bench data {make,check,ratings,sheet}, or --help"),
        ("data rating", "unknown command 'rating' (did you mean 'ratings'?)"),
        ("--verbose", "unknown flag of cliqa-bench '--verbose'"),
        (
            "run --stratgy tsn",
            "unknown flag of run '--stratgy' (did you mean '--strategy'?); choose from: --backbone",
        ),
        ("run --strateg tsn", "unknown flag of run '--strateg' (did you mean '--strategy'?)"),
        ("run --conf no.yaml", "unknown flag of run '--conf' (did you mean '--config'?)"),
        ("run --stratgy=tsn", "unknown flag of run '--stratgy' (did you mean '--strategy'?)"),
        ("run --strategy tns", "unknown strategy 'tns' (did you mean 'tsn'?); choose from: "),
        ("run --strategy", "argument --strategy: expected one argument; see cliqa-bench run --help"),
        ("run tsn", "run does not take 'tsn'; see cliqa-bench run --help"),
        ("run --config /no/run.yaml", "config: File does not exist: '/no/run.yaml'"),
        ("data make", "the following arguments are required: dir; see cliqa-bench data make --help"),
        ("data make x --scale big", "scale must be float, not big; see cliqa-bench data make --help"),
        ("data ratings lvie", "unknown dataset 'lvie' (did you mean 'live'?)"),
        ("data ratings live --data /no/where", "no folder /no/where (--data)"),
        ("data check --datasets live,bdi", "unknown dataset 'bdi' (did you mean 'bid'?)"),
        ("pretrain --steps 0", "--steps must be at least 1, not 0"),
        ("pretrain --backbone vgg16", "unknown backbone to pre-train 'vgg16'; choose from: scnn, vit_mini"),
    ],
)
def test_misuse_gets_one_line(words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(capsys, *words.split()).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "stratgy: tsn",
            "unknown key in {file} 'stratgy' (did you mean 'strategy'?); choose from: backbone, data",
        ),
        ("training: {epoch: 3}", "unknown key of training 'epoch' (did you mean 'epochs'?)"),
        ("params: {tsn: {taus: 3}}", "unknown key of tsn 'taus' (did you mean 'tau'?)"),
        ("params: {tsn: 3}", "params must be dict, not 3"),
        ("training: 3", "training must be dict, not 3"),
        ("orders: 3", "orders cannot be 3"),
        ("set: 3", "--set takes STRATEGY.KEY=VALUE"),
        ("strategy: [", "{file} is not a YAML file of keys and values"),
        ("- tsn", "{file} is not a YAML file of keys and values"),
    ],
)
def test_misuse_in_a_file(text: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text + "\n", encoding="utf-8")
    told = complaint(capsys, "run", "--strategy", "tsn", "--config", str(file))
    assert told.startswith(line.format(file=file))


# -- how it ends ---------------------------------------------------------------------------------------------


def test_bad_data_is_one_line(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake("cliqa_bench.execution.run", run=0)["run"]
    run.side_effect = UserError("row 3 of dmos.csv is broken")
    assert complaint(capsys, "run", "--strategy", "tsn") == "row 3 of dmos.csv is broken"


def test_a_bug_of_ours_keeps_its_traceback(fake: Any) -> None:
    fake("cliqa_bench.execution.run", run=0)["run"].side_effect = ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        main(["run", "--strategy", "tsn"])


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped(fake: Any, sent: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    unwound = []

    def work(*_: Any, **__: Any) -> None:
        try:
            os.kill(os.getpid(), sent)
            threading.Event().wait(10)
        finally:
            unwound.append(True)

    before = signal.getsignal(signal.SIGTERM)
    fake("cliqa_bench.execution.run", run=0)["run"].side_effect = work
    assert main(["run", "--strategy", "tsn"]) == code
    assert unwound == [True]
    told = capsys.readouterr().err.strip()
    assert told.startswith("cliqa-bench: interrupted; run the same command to resume: ")
    assert told.endswith(": python -m cliqa_bench run --strategy tsn")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_forked_worker_dies_of_sigterm_quietly(fake: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def work(*_: Any, **__: Any) -> int:
        ready, alive = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(alive, b"!")
            threading.Event().wait(10)
            os._exit(99)
        os.read(ready, 1)  # a signal that comes amid the fork is lost
        os.kill(child, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    fake("cliqa_bench.execution.run", run=0)["run"].side_effect = work
    assert main(["run", "--strategy", "tsn"]) == 143
    assert capfd.readouterr().err == ""


def test_works_outside_the_main_thread(capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["list"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_nobody_reads_the_output() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "cliqa_bench", "list"]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_module_and_function_agree() -> None:
    command = [sys.executable, "-m", "cliqa_bench", "rum"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cliqa-bench: error: unknown command 'rum'")
