"""What `score` does with files and folders: which it takes, what becomes of bad ones, how a table grows."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features

from cliqa_bench.benchmarks.pixels.decode import decode
from cliqa_bench.cli.parser import main
from cliqa_bench.errors import UserError
from cliqa_bench.execution import find_pictures as finding
from cliqa_bench.execution import own_picture, score_files, score_pictures
from cliqa_bench.execution.find_pictures import find_pictures
from cliqa_bench.execution.own_picture import scored_size
from cliqa_bench.models.gated import Scored
from cliqa_bench.system.locks import claimed

RUNS = Path(__file__).parent / "run_0_1_0" / "runs"
NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


class Quick:
    """A model that takes no time: the mean of an image, and a trace of how many are in its batch.

    Attributes:
        images: How many images it was given.
    """

    tasks = 2
    images = 0

    def __init__(
        self, hook: Callable[[torch.Tensor], None] = lambda images: None, trace: float = 0.0
    ) -> None:
        self.hook, self.trace = hook, trace

    def __call__(self, images: torch.Tensor) -> Scored:
        self.hook(images)
        self.images += len(images)
        scores = images.double().mean(dim=(1, 2, 3)).numpy() + self.trace * len(images)
        heads = np.stack([scores, scores], axis=1)
        return Scored(scores, np.full((len(images), 2), 0.5), heads.astype(np.float32))


Use = Callable[[Quick], Quick]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Gives what puts a quick model in the place of that of a run."""

    def put(model: Quick) -> Quick:
        monkeypatch.setattr(score_files, "load_scorer", lambda *args: model)
        return model

    return put


@pytest.fixture
def model(use: Use) -> Quick:
    """Returns the quick model that scores in this test."""
    return use(Quick())


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def pictures(folder: Path, n: int) -> list[Path]:
    """Makes pictures of three shapes."""
    return [picture(folder / f"{i:03}.png", i, (24 + 8 * (i % 3), 16)) for i in range(n)]


def truncated(path: Path) -> Path:
    data = picture(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def score(*words: object) -> int:
    return main(["score", *map(str, words), "--runs", str(RUNS), "--run", "tsn", "--device", "cpu"])


def rows(to: Path) -> dict[str, dict[str, str]]:
    with to.open(newline="", encoding="utf-8") as file:
        return {Path(row["image"]).name: row for row in csv.DictReader(file)}


def names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_pictures([folder]).files]


# -- which files ---------------------------------------------------------------------------------------------


def test_pictures_are_known_by_their_content(tmp_path: Path) -> None:
    kinds = {"a.jp2": "JPEG2000", "b.j2k": "JPEG2000", "c.gif": "GIF", "d.jpe": "JPEG", "e.jfif": "JPEG",
             "f.JPG": "JPEG", "g": "PNG", "h.dat": "BMP", "i.webp": "WEBP"}  # fmt: skip
    if features.check("avif"):
        kinds["j.avif"] = "AVIF"
    for name, kind in kinds.items():
        picture(tmp_path / name, format=kind)
    for name in ("k.txt", "l.txt", "m", "n.MP4"):
        (tmp_path / name).write_text("no picture")
    assert names(tmp_path) == sorted(kinds)
    said = find_pictures([tmp_path]).left_out_text()
    assert said == "left out: 2 .txt, 1 .mp4, 1 without a suffix"


def test_what_systems_leave_in_folders_is_ignored_without_a_word(tmp_path: Path) -> None:
    for name in ("._a.png", ".hidden.png", ".thumbs/a.png", "Thumbs.db.png"):
        picture(tmp_path / name)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "apple.png").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    found = find_pictures([tmp_path])
    assert (names(tmp_path), found.left_out) == (["Thumbs.db.png"], {})


def test_links_are_followed_and_a_file_comes_once(tmp_path: Path) -> None:
    folder, outside = tmp_path / "mine", tmp_path / "elsewhere"
    picture(folder / "sub" / "z.png")
    (folder / "a.png").symlink_to("sub/z.png")  # the name that is not a link stays
    (folder / "b").symlink_to(folder, target_is_directory=True)
    (folder / "sub" / "up").symlink_to("..", target_is_directory=True)
    picture(outside / "deep" / "o.png")
    (outside / "back").symlink_to(folder, target_is_directory=True)
    (folder / "c").symlink_to(outside, target_is_directory=True)
    (folder / "d").symlink_to(outside / "deep", target_is_directory=True)
    os.link(folder / "sub" / "z.png", folder / "y.png")  # a file of its own
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "self").symlink_to("self")
    os.mkfifo(folder / "pipe.png")
    assert names(folder) == ["c/deep/o.png", "sub/z.png", "y.png"]
    assert find_pictures([folder]).left_out_text() == "left out: 2 broken links, 1 special file"
    assert len(find_pictures([folder, folder / "y.png", outside, folder]).files) == 3


def test_raw_files_are_left_out_and_refused_by_name(tmp_path: Path, model: Quick) -> None:
    raw = picture(tmp_path / "mine" / "a.NEF", format="TIFF")  # its first picture is a preview
    picture(tmp_path / "mine" / "b.tif")
    found = find_pictures([tmp_path / "mine"])
    assert found.left_out_text() == "left out: 1 .nef (raw; export as JPEG, PNG or TIFF)"
    assert [path.name for path in found.files] == ["b.tif"]
    assert score(raw, "--to", tmp_path / "x.csv") == 1
    assert "is a camera's raw file" in rows(tmp_path / "x.csv")["a.NEF"]["error"]


@pytest.mark.parametrize("installed", [False, True])
def test_heic_files_without_the_extra_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"nothing that can be read")
    picture(tmp_path / "b.png")
    monkeypatch.setattr(finding, "_reads_heif", lambda: installed)
    left_out = {} if installed else {".heic (needs the extra heif)": 1}
    assert find_pictures([tmp_path]).left_out == left_out


def test_a_folder_without_pictures_is_misuse_and_says_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(14):
        (tmp_path / f"a.{i:02}x").write_text("no picture")
    assert score(tmp_path) == 2
    error = capsys.readouterr().err
    assert f"no images in {tmp_path} (left out: 1 .00x, " in error
    assert "1 .09x, 4 of other kinds)" in error
    with pytest.raises(UserError, match=r"no file or folder .*gone"):
        find_pictures([tmp_path / "gone"])


# -- bad pictures --------------------------------------------------------------------------------------------


def test_bad_pictures_among_good_ones_are_rows(
    tmp_path: Path, model: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    good = pictures(folder, 5)
    assert score(folder, "--to", tmp_path / "good.csv") == 0
    truncated(folder / "000a.png")
    (folder / "001a.jpg").write_text("no picture")
    (folder / "002a.tif").write_bytes(b"")
    picture(folder / "003a.png", size=(300, 200))
    capsys.readouterr()
    assert score(folder, "--to", tmp_path / "all.csv", "--max-megapixels", "0.05") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("5 of 9 pictures scored; 4 could not be, see column error; first: image ")
    assert "000a.png is damaged" in said
    found, alone = rows(tmp_path / "all.csv"), rows(tmp_path / "good.csv")
    assert {path.name: found[path.name] for path in good} == alone
    assert [name for name, row in found.items() if row["score"] == ""] == [
        "000a.png", "001a.jpg", "002a.tif", "003a.png",
    ]  # fmt: skip
    for name, why in {
        "001a.jpg": "none of the formats",
        "002a.tif": "empty",
        "003a.png": "300 x 200",
    }.items():
        assert why in found[name]["error"]
    assert all(row["error"] == "" for row in alone.values())


def test_all_of_them_bad_is_no_misuse(tmp_path: Path, model: Quick) -> None:
    truncated(tmp_path / "a.png")
    assert score(tmp_path, "--to", tmp_path / "x.csv") == 1
    assert "damaged" in rows(tmp_path / "x.csv")["a.png"]["error"]


def _spoil(images: torch.Tensor, error: Exception) -> None:
    if (images.amax(dim=(2, 3)) == images.amin(dim=(2, 3))).all(dim=1).any():  # one of one colour
        raise error


def _white(path: Path) -> Path:
    Image.new("RGB", (24, 16), "gray").save(path)
    return path


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FloatingPointError("no number in layer 3"), "no number in layer 3"),
        (MemoryError(), "24 x 16 pixels do not fit into memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "24 x 16 pixels do not fit into memory"),
        (
            RuntimeError("Given input size: (1x1x1). Output size is too small"),
            "are too few for this backbone",
        ),
    ],
)
def test_a_picture_that_the_model_fails_on_spoils_no_other(
    tmp_path: Path, use: Use, error: Exception, said: str
) -> None:
    use(Quick(lambda images: _spoil(images, error)))
    for i in range(6):
        picture(tmp_path / f"{i}.png", i)
    _white(tmp_path / "3a.png")
    assert score(tmp_path, "--to", tmp_path / "x.csv") == 1
    found = rows(tmp_path / "x.csv")
    assert said in found.pop("3a.png")["error"]
    assert len({row["score"] for row in found.values()}) == 6 and "" not in {
        r["score"] for r in found.values()
    }


def test_a_fault_of_the_model_s_code_is_raised(tmp_path: Path, use: Use) -> None:
    def fail(images: torch.Tensor) -> None:
        raise RuntimeError("shapes do not fit")

    use(Quick(fail))
    picture(tmp_path / "a.png")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        score(tmp_path)


def test_pytorch_still_says_so_of_what_is_too_small() -> None:
    tiny = torch.zeros(1, 3, 1, 1)
    for layer in (torch.nn.MaxPool2d(2), torch.nn.Conv2d(3, 3, 3)):
        with pytest.raises(RuntimeError) as caught:
            layer(tiny)
        assert (
            score_pictures._reason(caught.value, 8, 8)
            == "8 x 8 pixels are too few for this backbone; leave it out"
        )


@pytest.mark.parametrize("what", ["scores", "weights"])
def test_no_number_is_an_error_of_its_row(tmp_path: Path, use: Use, what: str) -> None:
    class Failing(Quick):
        def __call__(self, images: torch.Tensor) -> Scored:
            found = super().__call__(images)
            getattr(found, what)[0] = np.nan
            return found

    use(Failing())
    for i in range(2):
        picture(tmp_path / f"{i}.png", i)
    assert score(tmp_path, "--to", tmp_path / "x.csv") == 1
    found = rows(tmp_path / "x.csv")
    assert found["0.png"]["error"] == f"image {tmp_path / '0.png'}: the model returned NaN or infinity"
    assert found["0.png"]["score"] == "" and found["1.png"]["score"] != ""


def test_a_picture_that_memory_cannot_hold_is_a_row(
    tmp_path: Path, model: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *more: Any) -> object:
        if path.name == "1.png":
            raise MemoryError
        return decode(path, *more)

    monkeypatch.setattr(own_picture, "decode", full)
    for i in range(2):
        picture(tmp_path / f"{i}.png", i)
    assert score(tmp_path, "--to", tmp_path / "x.csv") == 1
    assert "does not fit into memory" in rows(tmp_path / "x.csv")["1.png"]["error"]
    monkeypatch.setattr(own_picture, "decode", decode)
    assert score(tmp_path, "--to", tmp_path / "x.csv") == 0  # tried again, though the file is what it was
    assert model.images == 2


def test_notes_are_counted_by_kind(tmp_path: Path, model: Quick, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.png", "c.jpg"):
        picture(tmp_path / name, format="JPEG")
    to = tmp_path / "x.csv"
    for _ in range(2):  # what was noted of rows that are kept is told again
        assert score(tmp_path, "--to", to) == 0
        said = capsys.readouterr().err.splitlines()
        assert (
            f"{tmp_path / 'a.png'} is a JPEG file, not what its name says; the same holds for 1 more" in said
        )


# -- narrow pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((1024, 768), 768, (1024, 768)),
        ((4000, 3000), 768, (1024, 768)),
        ((2304, 768), 768, (2304, 768)),  # 3:1, three times 768 squared
        ((2305, 768), 768, (2304, 767)),
        ((190, 10_000), 768, (183, 9_650)),
        ((8000, 800), 768, (4206, 420)),
        ((190, 8_000), 160, (160, 6736)),  # the bound is no smaller where the rule is
        ((190, 10_000), 0, (190, 10_000)),  # nothing is to be shrunk
        ((3000, 1000), 1000, (3000, 1000)),
        ((4000, 1000), 1000, (3464, 866)),
    ],
)
def test_a_picture_is_scored_at_a_bounded_size(
    size: tuple[int, int], resize: int, expected: tuple[int, int]
) -> None:
    assert scored_size(*size, resize) == expected
    assert scored_size(*size[::-1], resize) == expected[::-1]


def test_a_narrow_picture_is_shrunk_and_noted(tmp_path: Path) -> None:
    found = own_picture.read_picture(picture(tmp_path / "a.png", size=(190, 10_000)), 768, 64)
    assert found.pixels is not None and found.pixels.shape == (9650, 183, 3)
    assert found.notes == ["is narrow, and was shrunk to 1.8 megapixels"]
    found = own_picture.read_picture(picture(tmp_path / "b.png", size=(800, 1000)), 768, 64)
    assert found.pixels is not None and found.pixels.shape == (960, 768, 3) and not found.notes
    found = own_picture.read_picture(picture(tmp_path / "c.png", size=(8, 300_000)), 768, 64)
    assert found.error.endswith("c.png has 8 x 300000 pixels, too narrow to be shrunk; crop it")


# -- a table grows -------------------------------------------------------------------------------------------


def test_rows_are_written_as_they_come(tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_files, "WINDOW", 8)  # less than a file's buffer keeps back by itself
    to = tmp_path / "x.csv"
    seen = []
    use(Quick(lambda images: seen.append(len(to.read_text().splitlines()))))
    pictures(tmp_path / "mine", 20)
    assert score(tmp_path / "mine", "--to", to) == 0
    assert sorted(set(seen)) == [1, 9, 17]
    assert len(rows(to)) == 20


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_score_files import Quick, score
from cliqa_bench.execution import score_files

seen = [0]
def die(images):
    seen[0] += len(images)
    if seen[0] > 128:
        os.kill(os.getpid(), signal.SIGKILL)

score_files.load_scorer = lambda *args: Quick(die, 1e-9)
score({folder!r}, "--to", {to!r})
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Returns a folder in which a command was killed when it scored the third window of 64 pictures."""
    folder = tmp_path_factory.mktemp("killed")
    pictures(folder / "mine", 150)
    truncated(folder / "mine" / "070a.png")
    code = KILLED.format(
        tests=str(Path(__file__).parent), folder=str(folder / "mine"), to=str(folder / "x.csv")
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    yield folder


def test_a_killed_command_is_resumed_to_the_same_bytes(killed: Path, use: Use) -> None:
    to = killed / "x.csv"
    assert len(rows(to)) == 128
    os.truncate(to, to.stat().st_size - 30)  # half a row
    with (killed / ".x.csv.journal").open("ab") as journal:
        journal.write(b'[{"image": "')
    model = use(Quick(trace=1e-9))
    assert score(killed / "mine", "--to", to) == 1
    assert model.images == 23
    use(Quick(trace=1e-9))
    assert score(killed / "mine", "--to", killed / "whole.csv") == 1
    assert to.read_bytes() == (killed / "whole.csv").read_bytes()
    assert "damaged" in rows(to)["070a.png"]["error"]
    model = use(Quick(trace=1e-9))
    assert score(killed / "mine", "--to", to) == 1  # nothing is left to do
    assert model.images == 0
    assert to.read_bytes() == (killed / "whole.csv").read_bytes()


def test_what_changed_and_what_is_new_is_scored(tmp_path: Path, use: Use) -> None:
    folder, to = tmp_path / "mine", tmp_path / "x.csv"
    use(Quick())
    pictures(folder, 6)
    truncated(folder / "001.png")
    assert score(folder, "--to", to) == 1
    before = rows(to)
    picture(folder / "001.png", 99)  # mended
    picture(folder / "003.png", 98)  # another one
    picture(folder / "002a.png", 97)  # a new one
    (folder / "005.png").unlink()
    model = use(Quick())
    assert score(folder, "--to", to) == 0
    after = rows(to)
    assert model.images == 3
    assert list(after) == ["000.png", "001.png", "002.png", "002a.png", "003.png", "004.png"]
    assert [name for name in before if after.get(name) == before[name]] == ["000.png", "002.png", "004.png"]
    use(Quick())
    assert score(folder, "--to", tmp_path / "whole.csv") == 0
    assert to.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_file_of_the_same_size_is_another_one(tmp_path: Path, use: Use) -> None:
    path, to = tmp_path / "a.bmp", tmp_path / "x.csv"
    for seed in range(2):
        picture(path, seed)
        os.utime(path, ns=(0, 10**18 + seed))
        model = use(Quick())
        assert score(path, "--to", to) == 0
        assert model.images == 1


def test_a_bad_picture_that_was_taken_away_leaves_no_row(tmp_path: Path, model: Quick) -> None:
    pictures(tmp_path / "mine", 2)
    bad = truncated(tmp_path / "mine" / "bad.png")
    to = tmp_path / "x.csv"
    assert score(tmp_path / "mine", "--to", to) == 1
    bad.unlink()
    assert score(tmp_path / "mine", "--to", to) == 0
    assert list(rows(to)) == ["000.png", "001.png"]


def _refused(to: Path, said: str, capsys: pytest.CaptureFixture[str], *words: object) -> None:
    before = to.read_bytes()
    capsys.readouterr()
    assert score(*words, "--to", to) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"cliqa-bench: error: {to} {said}; give another file with --to, or delete it first"
    assert to.read_bytes() == before


def test_something_else_under_the_name_is_refused(
    tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, to = tmp_path / "mine", tmp_path / "x.csv"
    model = use(Quick())
    pictures(folder, 3)
    to.write_text("image,score\na.png,1\n")
    _refused(to, "exists already and has no journal, so it cannot be resumed", capsys, folder)
    to.unlink()
    assert score(folder, "--to", to) == 0
    _refused(to, "was begun with tolerance 0.0, not 0.1", capsys, folder, "--tolerance", 0.1)
    _refused(to, "was begun with precision fp32, not bf16", capsys, folder, "--precision", "bf16")
    _refused(to, "was begun with max-megapixels 64.0, not 5.0", capsys, folder, "--max-megapixels", 5)
    others = f"has rows of files that are not asked for now, such as {folder / '001.png'}"
    _refused(to, others, capsys, folder / "000.png")
    monkeypatch.setattr(score_files, "decoder_version", lambda: 99)
    _refused(to, f"was begun with version of decoding {_decoding(to)}, not 99", capsys, folder)
    monkeypatch.undo()
    use(model)
    good = to.read_text()
    to.write_text(good.replace("001.png,", "001.png,0"))
    _refused(to, "was changed since it was written", capsys, folder)
    to.write_text(good + "half a row of another")
    _refused(to, "was changed since it was written", capsys, folder)
    journal = tmp_path / ".x.csv.journal"
    to.write_text(good)
    journal.write_text(journal.read_text().splitlines()[0] + '\n[{"image": 1}]\n')
    _refused(to, "has a damaged journal (.x.csv.journal)", capsys, folder)
    assert model.images == 3
    to.unlink()  # which is enough
    assert score(folder, "--to", to, "--tolerance", 0.1) == 0
    assert model.images == 6


def _decoding(to: Path) -> int:
    made = json.loads((to.parent / f".{to.name}.journal").read_text().splitlines()[0])
    return int(made["version of decoding"])


def test_a_table_of_another_run_is_refused(
    tmp_path: Path, model: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "mine", 2)
    words = ["score", str(tmp_path / "mine"), "--runs", str(RUNS), "--to", str(tmp_path / "x.csv")]
    assert main([*words, "--run", "tsn"]) == 0
    assert main([*words, "--run", "naive"]) == 2
    assert "x.csv was begun with run tsn-" in capsys.readouterr().err


def test_names_are_those_of_a_folder(
    tmp_path: Path, model: Quick, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two folders have a picture of one name, given without its folder."""
    for name in ("one", "two"):
        picture(tmp_path / name / "a.png")
        monkeypatch.chdir(tmp_path / name)
        code = score("a.png", "--to", tmp_path / "x.csv")
        assert code == (0 if name == "one" else 2)
    assert f"was begun with folder {tmp_path / 'one'}, not {tmp_path / 'two'}" in capsys.readouterr().err


def test_a_table_that_another_process_writes_is_refused(
    tmp_path: Path, model: Quick, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    with claimed(tmp_path / ".x.csv.lock"):
        assert score(tmp_path, "--to", tmp_path / "x.csv") == 2
    assert "another process is writing " in capsys.readouterr().err


# -- how it is written ---------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "darwin", reason="its disks take UTF-8 names alone")
def test_any_name_can_be_written(tmp_path: Path, model: Quick, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    for i, name in enumerate((NOT_UTF8, "line\nend.png", "né.png", "=1+1.png")):
        picture(folder / name, i)
    assert score(folder, "--to", tmp_path / "x.csv") == 0
    said = capsys.readouterr().err
    assert f"{folder / 'caf'}\\xe9.png {score_files.ESCAPED}; the same holds for 1 more" in said
    assert list(rows(tmp_path / "x.csv")) == ["=1+1.png", "caf\\xe9.png", "line\\x0aend.png", "né.png"]
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 5
    assert score(folder) == 0
    assert capsys.readouterr().out == (tmp_path / "x.csv").read_text()
    before = model.images
    assert score(folder, "--to", tmp_path / "x.csv") == 0
    assert model.images == before


def test_json_lines_say_what_csv_says(tmp_path: Path, model: Quick) -> None:
    folder = tmp_path / "mine"
    pictures(folder, 3)
    truncated(folder / "bad.png")
    assert score(folder, "--to", tmp_path / "x.csv") == 1
    assert score(folder, "--to", tmp_path / "x.jsonl") == 1
    found = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    expected = list(rows(tmp_path / "x.csv").values())
    assert [list(row) for row in found] == [list(row) for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == other
    assert found[-1]["score"] is None and "damaged" in found[-1]["error"]
    assert score(folder, "--to", tmp_path / "x.jsonl") == 1
    assert model.images == 6


@pytest.mark.parametrize("name", ["x.json", "x.txt", "x"])
def test_other_forms_are_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert score(tmp_path / "nowhere", "--to", tmp_path / name) == 2
    assert f"{name} must end in .csv or .jsonl" in capsys.readouterr().err
