"""From flags and YAML to a configuration: presets, types, names, and the way back."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliqa_bench.benchmarks.suites import ORDERS
from cliqa_bench.cli.parser import main
from cliqa_bench.config import PRESETS, Training
from cliqa_bench.errors import Mistakes, UserError
from cliqa_bench.settings.resolve import config_dict, data_root, resolve, typed_fields, words
from cliqa_bench.strategies.tsn import TSN
from cliqa_bench.system.hardware import has_bfloat16


def make(**settings: Any) -> Any:
    return resolve({"strategy": "tsn", **settings})


# -- presets -------------------------------------------------------------------------------------------------


def test_paper_preset_is_the_protocol() -> None:
    # TSN-IQA, Section IV-A; weight decay and the rule for large images from the published code
    paper = PRESETS["paper"]
    assert (paper.crop, paper.resize) == (384, 768)
    assert (paper.pairs, paper.n_pairs) == ("sampled", "paper")
    assert (paper.warmup_batch, paper.batch) == (128, 32)
    assert (paper.warmup_epochs, paper.epochs, paper.lr, paper.decay_epochs) == (4, 8, 1e-3, (8,))
    assert (paper.ties, paper.slope, paper.bn_adapts, paper.weight_decay) == ("paper", "paper", "all", 5e-4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop", 0),
        ("resize", -1),
        ("n_pairs", 0),
        ("batch", 0),
        ("warmup_batch", -3),
        ("epochs", -1),
        ("lr", 0.0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("weight_decay", -1e-9),
        ("weight_decay", math.nan),
    ],
)
def test_numbers_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^training\.{field} must be (at least|above) "):
        Training(**{field: value})


def test_a_training_needs_an_epoch() -> None:
    with pytest.raises(UserError, match="both 0"):
        Training(warmup_epochs=0, epochs=0)
    assert Training(warmup_epochs=0, epochs=1).epochs == 1


# -- defaults ------------------------------------------------------------------------------------------------


def test_defaults_without_data() -> None:
    config = make()
    assert config.strategy == ["tsn"]
    assert config.orders == {"I": list(ORDERS["I"])}
    assert (config.data, config.preset, config.backbone) == (None, "quick", "scnn")
    assert (config.weights, config.seeds, config.split) == (None, [0], "1")
    assert (config.training, config.params) == (PRESETS["quick"], {})
    assert (config.device, config.out) == ("auto", Path("runs"))


def test_real_data_gets_the_papers_preset(tmp_path: Path) -> None:
    for folder in ("CSIQ", "BID"):
        (tmp_path / folder).mkdir()
    config = make(data=str(tmp_path), orders="bid,csiq")
    assert (config.preset, config.backbone, config.training) == ("paper", "resnet18", PRESETS["paper"])
    assert make(data=str(tmp_path), orders="bid,csiq", preset="quick").training == PRESETS["quick"]


def test_generated_data_gets_the_quick_preset(tmp_path: Path) -> None:
    for folder in ("CSIQ", "BID"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "generated.json").write_text(json.dumps({"n_images": 3}), encoding="utf-8")
    assert make(data=str(tmp_path), orders="bid,csiq").preset == "quick"
    (tmp_path / "BID" / "generated.json").unlink()  # one real set is enough to be worth the paper's protocol
    assert make(data=str(tmp_path), orders="bid,csiq").preset == "paper"


def test_data_flag_beats_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flag, named = tmp_path / "flag", tmp_path / "named"
    flag.mkdir()
    named.mkdir()
    assert data_root(None) is None
    monkeypatch.setenv("CLIQA_DATA", str(named))
    assert data_root(None) == named
    assert data_root(str(flag)) == flag
    monkeypatch.setenv("CLIQA_DATA", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"no folder .*gone \(the environment's CLIQA_DATA\)"):
        data_root(None)
    monkeypatch.setenv("CLIQA_DATA", "")
    assert data_root(None) is None


# -- names and numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ("all", list(ORDERS)),
        ("I,III", ["I", "III"]),
        ("bid,live,kadid10k", ["bid,live,kadid10k"]),
        ("bid,live;live,bid;II", ["bid,live", "live,bid", "II"]),
        (("bid", "live"), ["bid,live"]),
        (("I", "II"), ["I", "II"]),
        (("I", "bid,live"), ["I", "bid,live"]),
    ],
)
def test_orders(value: Any, labels: list[str]) -> None:
    orders = make(orders=value).orders
    assert list(orders) == labels
    for label, sequence in orders.items():
        assert sequence == list(ORDERS.get(label, label.split(",")))


@pytest.mark.parametrize(
    ("value", "seeds"),
    [(None, [0]), (3, [3]), (0, [0]), ("0,1,2", [0, 1, 2]), ("2, 1", [2, 1]), ((4, 5), [4, 5]), ("1,1", [1])],
)
def test_seeds(value: Any, seeds: list[int]) -> None:
    assert make(seeds=value).seeds == seeds


def test_all_strategies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = set(make(strategy="all").strategy)
    assert {"tsn", "liqe"} < every and "prompt" not in every
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--strategy all leaves out prompt: prompt needs a plain vision transformer")
    (tmp_path / "mine.csv").write_text("image,mos\na.png,1\nb.png,2\n")
    found = make(strategy="all", orders=f"csv:{tmp_path / 'mine.csv'}").strategy
    assert "tsn" in found and not {"liqe", "liqe_cl"} & set(found)
    assert "--strategy all leaves out liqe, liqe_cl: no scene and" in capsys.readouterr().err
    assert make(strategy="tsn,tsn").strategy == ["tsn"]
    assert make(strategy=("tsn",)).strategy == ["tsn"]


def test_split_and_weights_are_found(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.touch()
    assert make(split=str(tmp_path)).split == str(tmp_path)
    assert make(split=3).split == "3" and make(split="official").split == "official"
    assert make(weights=str(weights)).weights == str(weights)
    assert make(weights="random").weights == "random"


def test_one_run_shows_every_mistake() -> None:
    wrong = {
        "strategy": None, "orders": "IX", "backbone": "rsnet", "device": "gpu", "seeds": "x", "split": "0",
        "jobs": 0, "threads": 0, "log": "no", "max_megapixels": -1,
        "data": "/no/where", "weights": "/no/w.pth",
    }  # fmt: skip
    with pytest.raises(Mistakes) as caught:
        make(**wrong)
    assert [str(single)[:20] for single in caught.value.each] == [
        "unknown order or dat", "no folder /no/where ", "which strategy? give", "unknown backbone 'rs",
        "no file /no/w.pth (-", "--seeds must be whol", "no folder 0 (--split", "unknown device 'gpu'",
        "--jobs must be a who", "--threads must be fr", "unknown logger (--lo", "--max-megapixels mus",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"^which strategy.* all$"):
        make(strategy=None)
    with pytest.raises(Mistakes, match=r"^unknown key of tsn 'tu'.*; and --threads must be from 1") as caught:
        make(set=["tsn.tu=3"], threads=0)
    assert len(caught.value.each) == 2, "the protocol, which needs all of --set, is not complained of again"
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is Mistakes and str(again) == str(caught.value), "also from another process"


def test_mistakes_are_printed_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--orders", "IX", "--threads", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("error: ")[2][:15] for line in lines] == [
        "unknown order o", "which strategy?", "--threads must "
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"strategy": None}, "which strategy? give --strategy NAME; choose from: "),
        ({"strategy": " , "}, "which strategy?"),
        ({"strategy": "tsm"}, "unknown strategy 'tsm' (did you mean 'tsn'?)"),
        ({"strategy": "tsn,all"}, "unknown strategy 'all'"),
        ({"orders": "IX"}, "unknown order or dataset 'IX'"),
        ({"orders": "bid,lvie"}, "unknown order or dataset 'lvie' (did you mean 'live'?)"),
        ({"backbone": "resnet1"}, "unknown backbone 'resnet1' (did you mean 'resnet18'?)"),
        ({"preset": "papr"}, "unknown preset 'papr' (did you mean 'paper'?); choose from: paper, quick"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        (
            {"seeds": "0,x"},
            "--seeds must be whole numbers below 10^9 with commas between, such as 0,1,2; not '0,x'",
        ),
        ({"seeds": -1}, "--seeds must be whole numbers"),
        ({"data": "/no/where"}, "no folder /no/where (--data); give the folder that holds the datasets"),
        ({"weights": "/no/w.pth"}, "no file /no/w.pth (--weights)"),
        ({"split": "/no/where"}, "no folder /no/where (--split)"),
        ({"split": "0"}, "no folder 0 (--split); give a number from 1"),
        ({"params": {"tns": {"tau": 1}}}, "unknown strategy 'tns' (did you mean 'tsn'?)"),
        ({"params": {"tsn": {"taus": 1}}}, "unknown key of tsn 'taus' (did you mean 'tau'?)"),
        ({"params": {"tsn": {"tau": "hot"}}}, "tsn.tau must be a number, not 'hot'"),
        (
            {"strategy": "liqe", "params": {"liqe": {"pooling": "x"}}},
            "liqe.pooling must be 'datasets' | 'pairs', not 'x'",
        ),
        ({"training": {"epoch": 1}}, "unknown key of training 'epoch' (did you mean 'epochs'?)"),
        (
            {"training": {"decay_epochs": "4,x"}},
            "training.decay_epochs must be a list of whole numbers, such as [4, 8], not '4,x'",
        ),
        ({"training": {"epochs": 1.5}}, "training.epochs must be a whole number, not 1.5"),
        ({"training": {"pairs": "all"}}, "training.pairs must be 'sampled' | 'batch', not 'all'"),
        (
            {"training": {"n_pairs": "many"}},
            "training.n_pairs must be 'paper' | 'files' | a whole number, not 'many'",
        ),
        ({"training": {"crop": 0}}, "training.crop must be at least 1, not 0"),
        ({"training": {"epochs": None}}, "training.epochs must be a whole number, not None"),
        ({"params": {"tsn": {"tau": -math.inf}}}, "tsn.tau must be a finite number, not -inf"),
        ({"set": ["tsn.tau=" + "9" * 400]}, "tsn.tau must be "),
        ({"split": "9" * 400}, "no file or folder can be called 999"),
        ({"data": "~nobody-of-this-name/data"}, "no file or folder can be called ~nobody-of-this-name/data"),
        ({"weights": "a\0b"}, "no file or folder can be called a b"),
        ({"set": ["tau=1"]}, "--set takes STRATEGY.KEY=VALUE or training.KEY=VALUE, not 'tau=1'"),
        ({"set": ["tsn.tau"]}, "--set takes STRATEGY.KEY=VALUE"),
        ({"set": ["tns.tau=1"]}, "unknown target of --set 'tns' (did you mean 'tsn'?)"),
        ({"set": ["tsn.tau=[1]"]}, "tsn.tau must be a number, not '[1]'"),
    ],
)
def test_misuse_is_named(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        make(**settings)
    assert str(caught.value).replace('"', "'").startswith(line)
    assert "\n" not in str(caught.value)


# -- settings of the protocol and of a strategy --------------------------------------------------------------


def test_set_beats_the_file() -> None:
    config = make(
        training={"epochs": 3, "lr": 0.1},
        params={"tsn": {"tau": 8, "centroids": 64}},
        set=["training.epochs=5", "tsn.tau=16", "training.decay_epochs=[2, 4]", "tsn.stages=[4]"],
    )
    assert (config.training.epochs, config.training.lr, config.training.decay_epochs) == (5, 0.1, (2, 4))
    assert config.params == {"tsn": {"tau": 16.0, "centroids": 64, "stages": (4,)}}
    assert isinstance(config.params["tsn"]["tau"], float)


def test_params_equal_to_the_default_are_dropped() -> None:
    assert make(params={"tsn": {"tau": TSN().tau, "centroids": 3}}).params == {"tsn": {"centroids": 3}}
    assert make(set=[f"tsn.tau={TSN().tau}"]).params == {}


def test_typed_fields_reads_text_as_the_fields_type() -> None:
    text = {"epochs": "4", "lr": "1e-3", "decay_epochs": "[4, 8]", "n_pairs": "files", "ties": "code"}
    assert typed_fields(Training, text, "training") == {
        "epochs": 4, "lr": 0.001, "decay_epochs": (4, 8), "n_pairs": "files", "ties": "code",
    }  # fmt: skip
    assert typed_fields(Training, {"n_pairs": "700"}, "training") == {"n_pairs": 700}


@given(st.lists(st.from_regex("[a-z0-9]+", fullmatch=True)))
def test_words_undoes_join(names: list[str]) -> None:
    assert words(", ".join(names)) == words(",".join(names)) == words(names) == names


# -- the way back --------------------------------------------------------------------------------------------


def test_a_stored_configuration_repeats_the_run(tmp_path: Path) -> None:
    (tmp_path / "CSIQ").mkdir()
    (tmp_path / "BID").mkdir()
    first = make(
        orders="bid,csiq;csiq,bid",
        data=str(tmp_path),
        seeds="0,2",
        split=2,
        preset="quick",
        set=["tsn.stages=[2, 4]", "training.n_pairs=9", "training.epochs=1"],
        device="cpu",
        out="elsewhere",
    )
    stored = config_dict(first)
    assert json.loads(json.dumps(stored, allow_nan=False)) == stored
    assert resolve(stored) == first
    assert resolve(config_dict(make(orders="all"))) == make(orders="all")


# -- further test sets, processes, threads -------------------------------------------------------------------


def test_test_on_names_datasets_that_no_order_learns() -> None:
    assert make(orders="live,bid", test_on="csiq, clive").test_on == ["csiq", "clive"]
    with pytest.raises(UserError, match=r"--test-on bid: order live,bid learns it"):
        make(orders="live,bid", test_on="bid")
    with pytest.raises(UserError, match=r"unknown dataset 'csik' .did you mean 'csiq'"):
        make(test_on="csik")


def test_jobs_and_threads() -> None:
    assert (make().jobs, make().threads) == ("auto", None)
    assert (make(jobs=3, threads=2).jobs, make(jobs=3, threads=2).threads) == (3, 2)
    for wrong in (0, -1, "many"):
        with pytest.raises(UserError, match="--jobs must be a whole number from 1 to 4096, or auto"):
            make(jobs=wrong)
    with pytest.raises(UserError, match="--threads must be from 1 to 4096"):
        make(threads=0)


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make().training.precision == "fp32"
    assert make(precision="bf16").training.precision == "bf16"
    # what --set says of the protocol is the last word
    assert make(precision="bf16", set=["training.precision=fp32"]).training.precision == "fp32"
    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("cliqa_bench.system.hardware.has_bfloat16", lambda has=has: has)
        assert make(precision="auto", device="cpu").training.precision == expected
    assert make(precision="auto", device="mps").training.precision == "fp32"
    with pytest.raises(UserError, match="unknown precision 'fp16'"):
        make(precision="fp16")


def test_bfloat16_is_read_from_the_cpus_flags(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    assert not has_bfloat16(told)
    known = {"fpu amx_bf16 amx_tile": True, "fpu avx512_bf16": True, "fpu avx512f amx_tile": False}
    for flags, expected in known.items():
        told.write_text(f"model name\t: a CPU with amx_bf16\nflags\t\t: {flags}\n")
        assert has_bfloat16(told) is expected
