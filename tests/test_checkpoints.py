"""Going on from the last epoch: the same bits, and no trust in a file that is not what it should be."""

import math
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from test_runner import arguments, content

from cliqa_bench.cli import parser
from cliqa_bench.errors import UserError
from cliqa_bench.learning import checkpoints
from cliqa_bench.learning.checkpoints import (
    Checkpoints,
    Resumed,
    Unusable,
    checkpoint_pause,
    read_checkpoint,
    write_checkpoint,
)
from cliqa_bench.learning.learner import Learner
from cliqa_bench.reports import report
from cliqa_bench.results.nodes import clean_partial, read_json
from cliqa_bench.results.weights import write_weights
from cliqa_bench.strategies.lwf import LwF
from cliqa_bench.strategies.mas import MAS
from cliqa_bench.strategies.replay import Replay
from cliqa_bench.strategies.si import SI
from cliqa_bench.strategies.sl import SL
from cliqa_bench.strategies.tsn import TSN
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def sources():
    with tiny_sources(2) as made:
        yield made


# -- the file --------------------------------------------------------------------------------------------


def assorted():
    weights = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    square = torch.randn(3, 3)
    return {
        "square/s": square, "turned/s": square.T, "bits/s": square.view(torch.int32),
        "model/a": weights, "best/a": weights, "adam/0.step": torch.tensor(3.0), "none/x": torch.zeros(0, 2),
        "memory/n": torch.arange(5), "half/h": torch.randn(3).bfloat16(), "part/a": weights[:2],
    }  # fmt: skip


def test_tensors_and_facts_come_back_as_they_went(tmp_path):
    path, tensors = tmp_path / "there" / "x.safetensors", assorted()
    write_checkpoint(path, tensors, {"loss": 0.1, "history": [None, "né"]})
    back, body = read_checkpoint(path)
    assert body == {"loss": 0.1, "history": [None, "né"]}
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_one_tensor_of_two_names_is_written_once(tmp_path):
    big = torch.randn(10_000)
    write_checkpoint(tmp_path / "one", {"a": big}, {})
    write_checkpoint(tmp_path / "two", {"a": big, "b": big}, {})
    write_checkpoint(tmp_path / "copy", {"a": big, "b": big.clone()}, {})
    size = {name: (tmp_path / name).stat().st_size for name in ("one", "two", "copy")}
    assert size["two"] - size["one"] < 100
    assert size["copy"] > 1.9 * size["one"]


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_no_changed_byte_goes_unnoticed(tmp_path, place):
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, assorted(), {"epoch": 3})
    content = bytearray(path.read_bytes())
    content[place * len(content) // 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(Unusable):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("tensors", "body"),
    [
        ({"a": torch.arange(4), "b": torch.zeros(2)}, '{"epoch":4,"same":{}}'),
        ({"c": torch.arange(4), "b": torch.zeros(2)}, '{"epoch":3,"same":{}}'),
        ({"a": torch.arange(4).view(2, 2), "b": torch.zeros(2)}, '{"epoch":3,"same":{}}'),
        ({"a": torch.tensor([0, 1, 2, 4]), "b": torch.zeros(2)}, '{"epoch":3,"same":{}}'),
        ({"a": torch.arange(4), "b": torch.zeros(2).view(torch.int32)}, '{"epoch":3,"same":{}}'),
        ({"a": torch.arange(4)}, '{"epoch":3,"same":{}}'),
    ],
    ids=["body", "name", "shape", "values", "dtype", "left out"],
)
def test_the_hash_is_of_everything(tmp_path, tensors, body):
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, {"a": torch.arange(4), "b": torch.zeros(2)}, {"epoch": 3})
    with safe_open(path, "pt") as file:
        hashed = file.metadata()
    assert hashed["body"] == '{"epoch":3,"same":{}}'
    write_weights(path, tensors, {**hashed, "body": body})
    with pytest.raises(Unusable, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("text", [b"", b"x", b"{}", (1 << 60).to_bytes(8, "little") + b"{}"])
def test_what_is_no_checkpoint_is_not_read(tmp_path, text):
    path = tmp_path / "x.safetensors"
    for wrong in (text, text + pickle.dumps(print)):
        path.write_bytes(wrong)
        with pytest.raises(Unusable):
            read_checkpoint(path)


# -- going on --------------------------------------------------------------------------------------------

FIVE = replace(TRAINING, warmup_epochs=2, epochs=3, lr=0.02)


class Killed(BaseException):
    """Stands for the end of the process."""


class Kill:
    """Ends the training after an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def after_training_epoch(self, learner, **kwargs):
        if learner.epoch == self.epoch:
            raise Killed


def second(strategy, left, sources, *plugins, training=FIVE, tick=None):
    """Learns the second dataset with all things new, from what the first has left; laid out as in a run."""
    model, new = new_model(strategy).to(memory_format=torch.channels_last), replace(strategy)
    model.add_task()
    model.load_own_state(left[0])
    new.load_state(left[1])
    learner = Learner(
        model=model, strategy=new, training=training, seen=sources[:1], plugins=plugins, tick=tick
    )
    return learn(new, model, sources[1:], training, seen=sources[:1], learner=learner)


def first(strategy, sources):
    learner = learn(replace(strategy), new_model(strategy), sources[:1], FIVE)
    return learner.model.own_state(), learner.strategy.state()


def same(one, other):
    for a, b in (
        (one.model.own_state(), other.model.own_state()),
        (one.last_state, other.last_state),
        (one.strategy.state(), other.strategy.state()),
    ):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert one.history == other.history
    assert (one.best_epoch, one.images) == (other.best_epoch, other.images)


STRATEGIES = [cls(warmup_rate=1.0, main_rate=1.0) for cls in (SI, LwF, Replay, TSN)]


@pytest.mark.parametrize(
    "strategy",
    [pytest.param(s, marks=[] if s.name == "si" else [pytest.mark.slow]) for s in STRATEGIES],
    ids=lambda strategy: strategy.name,
)
def test_an_experience_in_pieces_ends_in_the_bits_of_one_in_one_go(sources, tmp_path, strategy):
    left = first(strategy, sources)
    straight = second(strategy, left, sources)
    said: list[str] = []
    for epoch in (1, 2, 4, 5):
        with pytest.raises(Killed):
            saving = Checkpoints(tmp_path / "x", {}, said.append, pause=0)
            second(strategy, left, sources, saving, Kill(epoch))
    pieces = second(strategy, left, sources, Checkpoints(tmp_path / "x", {}, said.append, pause=0))
    same(straight, pieces)
    assert said == [f"resuming after epoch {n} of 5" for n in (1, 2, 4, 5)]


def test_a_head_that_has_learned_before_goes_on_where_it_was(sources, tmp_path):
    """Its epochs start after the warm-up: of three, two are done when the fourth is over."""
    strategy = SL()
    said: list[str] = []
    ticks: list[tuple[str, int]] = []
    left = first(strategy, sources)
    straight = second(strategy, left, sources)
    with pytest.raises(Killed):
        second(strategy, left, sources, Checkpoints(tmp_path / "x", {}, print, pause=0), Kill(4))
    saving = Checkpoints(tmp_path / "x", {}, said.append, pause=0)
    pieces = second(
        strategy, left, sources, saving, tick=lambda images, text, part: ticks.append((part, images))
    )
    same(straight, pieces)
    assert said == ["resuming after epoch 2 of 3"] and saving.resumed.epochs == 2
    assert ticks[0] == ("earlier", straight.images * 2 // 3)
    assert sum(images for _, images in ticks) == straight.images
    assert [part for part, _ in ticks].count("earlier") == 1


@pytest.mark.parametrize("strategy", [MAS(), SI()], ids=lambda strategy: strategy.name)
@pytest.mark.parametrize("epochs", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_consolidated_after_the_last_epoch_is_what_learned_in_it(sources, tmp_path, strategy, epochs):
    training = replace(FIVE, epochs=epochs)
    left = first(strategy, sources)
    straight = second(strategy, left, sources, training=training)
    with pytest.raises(Killed):
        saving = Checkpoints(tmp_path / "x", {}, print, pause=0)
        second(strategy, left, sources, saving, Kill(2 + epochs), training=training)
    saving = Checkpoints(tmp_path / "x", {}, print, pause=0)
    pieces = second(strategy, left, sources, saving, training=training)
    same(straight, pieces)
    assert pieces.warming_up == straight.warming_up == (not epochs)
    for (name, one), other in zip(straight.model.named_parameters(), pieces.model.parameters(), strict=True):
        assert one.requires_grad == other.requires_grad, name


def test_the_best_epoch_before_the_interruption_is_still_the_one_to_beat(sources, tmp_path, monkeypatch):
    """Also where none had a validation SRCC: then any with one is better."""
    nan = math.nan
    for values, best in (([nan, nan, 0.1, 0.05, 0.07], 3), ([0.2, 0.3, 0.25, nan, 0.1], 2)):
        monkeypatch.setattr(Learner, "validate", lambda learner, values=values: values[learner.epoch])
        strategy, path = TSN(), tmp_path / str(best)
        left = first(strategy, sources)
        straight = second(strategy, left, sources)
        with pytest.raises(Killed):
            second(strategy, left, sources, Checkpoints(path, {}, print, pause=0), Kill(2))
        pieces = second(strategy, left, sources, Checkpoints(path, {}, print, pause=0))
        same(straight, pieces)
        assert pieces.best_epoch == best


@pytest.mark.parametrize(
    ("was", "now"),
    [({"a": 1}, {"a": 1, "b": 2}), ({"a": 1, "b": 2}, {"a": 1}), ({"b": [1, 2]}, {"b": (1, 3)})],
)
def test_a_fact_more_less_or_other_is_said(was, now):
    saving = Checkpoints(Path("x"), now, print)
    with pytest.raises(Unusable, match=r"made with other b$"):
        saving._check({"facts": was})
    Checkpoints(Path("x"), {"b": (1, 2)}, print)._check({"facts": {"b": [1, 2]}})


def test_seconds_add_up_over_interruptions(sources, tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(checkpoints, "time", clock)

    class Slow:
        """An epoch takes as many seconds as its number."""

        def after_training_epoch(self, learner, **kwargs):
            clock.now += learner.epoch

    strategy = TSN()
    left = first(strategy, sources)
    for epoch in (1, 3):
        clock.now += 1000  # between two runs
        with pytest.raises(Killed):
            saving = Checkpoints(tmp_path / "x", {}, print, pause=0)
            second(strategy, left, sources, Slow(), saving, Kill(epoch))
    saving = Checkpoints(tmp_path / "x", {}, print, pause=0)
    second(strategy, left, sources, saving)
    assert saving.resumed == Resumed(3, 1 + 2 + 3)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        pytest.param(
            lambda path: path.write_bytes(path.read_bytes()[:-9]), "cannot be read", marks=pytest.mark.slow
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff"), "damaged"),
        pytest.param(lambda path: path.write_bytes(b""), "cannot be read", marks=pytest.mark.slow),
        (lambda path: None, "made with other device, versions"),
    ],
)
def test_a_checkpoint_that_will_not_do_is_said_and_the_experience_starts_over(sources, tmp_path, damage, why):
    path, strategy = tmp_path / "x", STRATEGIES[0]
    said: list[str] = []
    left = first(strategy, sources)
    straight = second(strategy, left, sources)
    old, new = {"versions": {"torch": "1"}, "device": "cpu"}, {"versions": {"torch": "2"}, "device": "cuda"}
    with pytest.raises(Killed):
        second(strategy, left, sources, Checkpoints(path, old, said.append, pause=0), Kill(4))
    damage(path)
    assert said == []
    same(straight, second(strategy, left, sources, Checkpoints(path, new, said.append, pause=0)))
    (line,) = said
    assert str(path) in line and why in line and "starts over" in line


def test_a_strategy_that_cannot_take_it_back_fails_once(sources, tmp_path):
    class Broken(TSN):
        def load_progress(self, progress, learner):
            raise RuntimeError("no idea")

    path, left = tmp_path / "x", first(STRATEGIES[-1], sources)
    with pytest.raises(Killed):
        second(Broken(), left, sources, Checkpoints(path, {}, print, pause=0), Kill(2))
    with pytest.raises(RuntimeError, match="no idea"):
        second(Broken(), left, sources, Checkpoints(path, {}, print, pause=0))
    assert len(second(Broken(), left, sources, Checkpoints(path, {}, print, pause=0)).history) == 5


def test_a_strategy_that_does_not_say_what_it_remembers_has_no_checkpoints(sources, tmp_path):
    class Mine(TSN):
        def after_step(self, learner):
            pass

    learn(Mine(), new_model(Mine()), sources[:1], plugins=[Checkpoints(tmp_path / "x", {}, print, pause=0)])
    assert not list(tmp_path.iterdir())


def test_where_it_cannot_be_written_the_training_goes_on(sources, tmp_path):
    (tmp_path / "file").write_text("")
    said: list[str] = []
    saving = Checkpoints(tmp_path / "file" / "x", {}, said.append, pause=0)
    assert len(learn(TSN(), new_model(TSN()), sources[:1], plugins=[saving]).history) == 3
    (line,) = said
    assert "cannot write" in line and line.endswith("continuing without checkpoints")


# -- when ------------------------------------------------------------------------------------------------


class Clock:
    """A clock that only moves when told."""

    now = 0.0

    def perf_counter(self):
        return self.now


def written_at(monkeypatch, times, n_bytes, takes):
    """Returns the times of those epochs after which a checkpoint is written, where writing takes so long."""
    clock, found = Clock(), []

    def write(path, tensors, body):
        found.append(clock.now)
        clock.now += takes

    monkeypatch.setattr(checkpoints, "time", clock)
    monkeypatch.setattr(checkpoints, "write_checkpoint", write)
    tensors = {"w": torch.empty(n_bytes, dtype=torch.uint8)}
    monkeypatch.setattr(checkpoints, "progress_of", lambda learner: (tensors, {}))
    nowhere: Any = SimpleNamespace(is_file=lambda: False)
    saving: Any = Checkpoints(nowhere, {}, print)
    saving.before_training_exp(None)
    for time in times:
        clock.now = max(clock.now, time)
        saving.after_training_epoch(None)
    return found


def test_checkpoints_are_ten_seconds_apart_and_cost_less_than_a_hundredth(monkeypatch):
    assert written_at(monkeypatch, range(0, 40, 3), 8, 0.0) == [12, 24, 36]
    slow = written_at(monkeypatch, range(1, 900), 8, 2.0)
    assert slow == [10, 213, 416, 619, 822], "the first is quick for all that is known"
    big = written_at(monkeypatch, range(1, 900), 10**8, 0.1)
    assert all(50 < later - earlier < 52 for earlier, later in pairwise([0, *big])), "half a second each"
    assert len(big) > 15


@pytest.mark.parametrize(("text", "pause"), [("0", 0), ("2.5", 2.5), ("inf", math.inf)])
def test_the_environment_says_how_often(monkeypatch, text, pause):
    monkeypatch.setenv("CLIQA_CHECKPOINT_SECONDS", text)
    assert checkpoint_pause() == pause


@pytest.mark.parametrize("text", ["", "often", "-1", "nan"])
def test_a_pause_that_is_no_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("CLIQA_CHECKPOINT_SECONDS", text)
    with pytest.raises(UserError, match="CLIQA_CHECKPOINT_SECONDS must be 0 or more"):
        checkpoint_pause()


# -- through the runner ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_an_experience_ends_with_the_same_bytes(
    miniatures, tmp_path, monkeypatch, capsys
):
    def words(name):
        command = arguments(miniatures, tmp_path / name, "--set", "training.epochs=2")
        return ["si" if word == "tsn" else "live,bid" if ";" in word else word for word in command]

    monkeypatch.setattr(report, "write_report", lambda *given: SimpleNamespace(summary=""))
    assert parser.main(words("straight")) == 0
    monkeypatch.setenv("CLIQA_CHECKPOINT_SECONDS", "0")
    write = checkpoints.write_checkpoint

    def write_and_die(path, tensors, body):
        write(path, tensors, body)
        if "2bid" in path.name and body["epoch"] == 2:
            raise Killed

    monkeypatch.setattr(checkpoints, "write_checkpoint", write_and_die)
    with pytest.raises(Killed):
        parser.main(words("killed"))
    (kept,) = (tmp_path / "killed/checkpoints").iterdir()
    assert kept.name.startswith("si-scnn-2bid-")
    monkeypatch.setattr(checkpoints, "write_checkpoint", write)
    capsys.readouterr()
    assert parser.main(words("killed")) == 0
    assert "(seed 0): resuming after epoch 2 of 3" in capsys.readouterr().out
    assert not list((tmp_path / "killed/checkpoints").iterdir())
    straight, killed = content(tmp_path / "straight"), content(tmp_path / "killed")
    assert straight | {"config.yaml": ""} == killed | {"config.yaml": ""}
    (done,) = (tmp_path / "killed/train").glob("si-scnn-2bid-*/done.json")
    assert read_json(done)["facts"]["resumed"]["epochs"] == 2


def test_checkpoints_of_finished_experiences_go_and_others_stay(tmp_path):
    for name in ("done", "open"):
        write_checkpoint(tmp_path / "checkpoints" / f"{name}.safetensors", assorted(), {})
    (tmp_path / "train/done").mkdir(parents=True)
    (tmp_path / "train/done/done.json").write_text("{}")
    clean_partial(tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["open.safetensors"]


def test_nothing_is_resumed_that_was_not_interrupted(sources, tmp_path):
    saving = Checkpoints(tmp_path / "x", {}, print, pause=0)
    learn(TSN(), new_model(TSN()), sources[:1], plugins=[saving])
    assert saving.resumed == Resumed(0, 0.0)
    saving.remove()
    assert not list(tmp_path.iterdir())
