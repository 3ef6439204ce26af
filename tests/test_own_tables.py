"""A table of one's own is a dataset: how it is read, what its columns are, and which pictures it names."""

from __future__ import annotations

import io
import json
import math
import random
import shutil
import sys
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.check import check_data
from cliqa_bench.benchmarks.labelled import LabelledDataset, load_materials
from cliqa_bench.benchmarks.pixels.cache import ImageCache, outdated
from cliqa_bench.benchmarks.pixels.decode import OWN, decode
from cliqa_bench.benchmarks.splits import resolve_split
from cliqa_bench.cli.parser import main
from cliqa_bench.config import RunConfig
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.settings.resolve import config_dict, resolve

SCORES = {"a.png": 3.25, "b, c.png": 1.5, "ü.png": 4.75}
STDS = (0.5, 0.25, 1.0)


def draw(folder: Path, names: Sequence[str], start: int = 0) -> Path:
    """Writes pictures of 16 x 12 pixels that differ."""
    for number, name in enumerate(names, start):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG" if path.suffix.lower() in (".jpg", ".jfif") else "PNG")
        path.write_bytes(file.getvalue())
    return folder


def opened(spec: str) -> Dataset:
    cls = registry.load("datasets", spec)
    assert cls.home is not None
    dataset: Dataset = cls(cls.home)
    return dataset


def table(folder: Path, text: str, name: str = "my.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return f"csv:{folder / name}"


def numbered(folder: Path, header: str, rows: Sequence[str]) -> str:
    """Writes a table of pictures 00.png, 01.png, ...; what else a row has is given."""
    draw(folder, [f"{n:02}.png" for n in range(len(rows))])
    lines = [f"{n:02}.png,{row}" for n, row in enumerate(rows)]
    return table(folder, "\n".join([f"image,{header}", *lines]) + "\n")


def told_all(error: UserError) -> str:
    return " | ".join(str(single) for single in error.each)


def told(error: pytest.ExceptionInfo[UserError]) -> str:
    return told_all(error.value)


# -- kinds of files ------------------------------------------------------------------------------------------


def lines(delimiter: str = ",", comma: str = ".", end: str = "\n", quoted: bool = True) -> str:
    found = [delimiter.join(("Image Name", "MOS", "SD"))]
    for (name, score), std in zip(SCORES.items(), STDS, strict=True):
        cell = f'"{name}"' if quoted else name
        found.append(delimiter.join((cell, str(score).replace(".", comma), str(std).replace(".", comma))))
    return end.join(found) + end


def workbook(changed: dict[str, str] | None = None, above: int = 0) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    for _ in range(above):
        sheet.append(["Ratings of 2024"])
    sheet.append(["Image Name", "MOS", "SD"])
    for (name, score), std in zip(SCORES.items(), STDS, strict=True):
        sheet.append([name, (changed or {}).get(name, score), std])
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def json_lines() -> str:
    rows = [
        {"Image Name": name, "MOS": score, "SD": std, "more": [1]}
        for (name, score), std in zip(SCORES.items(), STDS, strict=True)
    ]
    return "\n\n".join(json.dumps(row) for row in rows)


KINDS: dict[str, bytes] = {
    "commas": lines().encode(),
    "a mark before UTF-8": lines().encode("utf-8-sig"),
    "UTF-16, little end first": lines().encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + lines("\t", quoted=False).encode("utf-16-be"),
    "UTF-16 without a mark": lines(";").encode("utf-16-le"),
    "semicolons, decimal commas": lines(";", ",").encode(),
    "quoted decimal commas": b'image name,mos,sd\na.png,"3,25","0,5"\n"b, c.png","1,5","0,25"\n'
    + '"ü.png","4,75","1,0"\n'.encode(),
    "tabs": lines("\t", quoted=False).encode(),
    "tabs, decimal commas": lines("\t", ",", quoted=False).encode(),
    "bars": lines("|").encode(),
    "Windows": lines(";", ",", "\r\n").encode("utf-8-sig"),
    "old Mac": lines(end="\r").encode(),
    "blanks behind commas": lines().replace(",", ", ").replace("b, ", "b,").encode(),
    "Excel's first line": b"sep=;\r\n" + lines(";", ",", "\r\n").encode(),
    "empty lines and cells at the end": lines().replace("\n", ",,\n\n,,\n").encode(),
    "a workbook": workbook(),
    "a workbook with a title": workbook(above=3),
    "a workbook with decimal commas": workbook({"a.png": "3,25"}),
    "JSON lines": json_lines().encode(),
    "JSON lines with a mark": json_lines().encode("utf-8-sig"),
    "JSON lines, UTF-16": json_lines().encode("utf-16"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_read_whatever_wrote_it(tmp_path: Path, kind: str) -> None:
    """By its content: no kind is told by the file's name."""
    draw(tmp_path, list(SCORES))
    (tmp_path / "my.dat").write_bytes(KINDS[kind])
    dataset = opened(f"csv:{tmp_path / 'my.dat'}")
    ratings = dataset.ratings()
    assert {r.key: r.score for r in ratings} == SCORES
    assert tuple(r.std for r in ratings) == STDS
    assert dataset.missing_files() == dataset.unlabelled_files() == [] and dataset.title == "my"
    assert not any("names matched" in note for note in dataset.notes())


REFUSED: dict[str, tuple[bytes, str]] = {
    "thousands": (
        b'image,mos\na.png,"1,234"\n"b, c.png",850\n',
        "row 2, column 'mos' holds '1,234', which may",
    ),
    "both marks": (b"image;mos\na.png;3,5\nb;3.5\n", "'3,5', and row 3 '3.5'"),
    "another encoding": (lines().encode("latin-1"), "not a text file in UTF-8 or UTF-16"),
    "a cell too few": (b"image,mos,std\na.png,3\n", "row 2 has 2 cells, the header names 3; correct it"),
    "text for a score": (
        b"image,mos\na.png,good\n",
        "row 2, column 'mos' holds 'good', expected a number; correct",
    ),
    "no score": (b"image,mos\na.png,\n", "row 2, column 'mos' is empty"),
    "no number": (b"image,mos\na.png,nan\n", "row 2, column 'mos' holds 'nan'"),
    "a std below zero": (b"image,mos,std\na.png,3,-1\n", "column 'std' holds '-1'"),
    "an open quote": (b'image,mos\n"a.png,3\n', "is broken"),
    "a header alone": (b"image,mos\n", "has no row below its header"),
    "nothing": (b"", "has no row"),
    "zero bytes": (b"image,mos\na\0.png,3\n", "holds zero bytes"),
    "a formula": (workbook({"a.png": "=1+2"}), "row 2, column 'MOS' holds a formula"),
    "a broken workbook": (b"PK\x03\x04 and no more", "is a broken workbook"),
    "a broken line": (b'{"image": "a.png", "mos": 3}\n{"image": \n', "row 2 is not JSON"),
    "JSON that is not an object": (b'{"image": "a.png", "mos": 3}\n[1, 2]\n', "row 2 is not a JSON object"),
    "true for a score": (b'{"image": "a.png", "mos": true}\n', "row 1, column 'mos' holds True"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_table_of_ratings_is_refused_by_row_and_column(tmp_path: Path, kind: str) -> None:
    data, words = REFUSED[kind]
    (tmp_path / "my.csv").write_bytes(data)
    with pytest.raises(UserError) as error:
        opened(f"csv:{tmp_path / 'my.csv'}").ratings()
    assert words in told(error) and str(tmp_path / "my.csv") in told(error)


PIECES = (
    b",",
    b";",
    b'"',
    b"\n",
    b"\0",
    b"\x1f",
    b"\xff\xfe",
    b"{",
    b"[" * 999,
    b"9" * 400,
    b"a" * 5000,
    b"..\\",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_table_is_read_or_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    draw(tmp_path, list(SCORES))
    rng = random.Random(kind)
    for number in range(60):
        data = bytearray(KINDS[kind])
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(data))
            data[start : start + rng.randint(0, 20)] = rng.choice((*PIECES, b"", bytes([rng.randrange(256)])))
        (tmp_path / "my.dat").write_bytes(data or b"x")
        options = ("", "?average", "?lower_is_better&std=none")[number % 3]
        try:
            dataset = opened(f"csv:{tmp_path / 'my.dat'}{options}")
            dataset.ratings()
            assert dataset.notes() and dataset.missing_files() is not None
        except UserError as error:
            assert "\n" not in told_all(error)


def test_all_faults_of_a_table_are_told(tmp_path: Path) -> None:
    spec = table(tmp_path, "image,mos\na.png,x\nb.png,3\nc.png,\n")
    with pytest.raises(UserError) as error:
        opened(spec).ratings()
    assert "row 2" in told(error) and "row 4" in told(error) and "row 3" not in told(error)


@pytest.mark.parametrize("text", ["3,250", "0,812;4,120", "-1,500"])
def test_semicolons_say_that_commas_are_decimal(tmp_path: Path, text: str) -> None:
    values = text.split(";")
    spec = table(tmp_path, "image;mos\n" + "".join(f"{n};{v}\n" for n, v in enumerate(values)))
    assert [r.score for r in opened(spec).ratings()] == [float(v.replace(",", ".")) for v in values]


def test_parquet_is_read_by_pandas_or_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas

    draw(tmp_path, ["a.png", "b.png"])
    (tmp_path / "my.parquet").write_bytes(b"PAR1 stands for what pandas would read")
    spec = f"csv:{tmp_path / 'my.parquet'}"

    def lacking(file: object) -> None:
        raise ImportError("no engine")

    monkeypatch.setattr(pandas, "read_parquet", lacking)
    with pytest.raises(UserError, match="pip install pyarrow"):
        opened(spec)
    frame = pandas.DataFrame({"file": ["a.png", "b.png"], "mos": [3.5, 2], "std": [0.5, None]})
    monkeypatch.setattr(pandas, "read_parquet", lambda file: frame)
    ratings = opened(spec).ratings()
    assert [r[:2] for r in ratings] == [("a.png", 3.5), ("b.png", 2.0)]
    assert ratings[0].std == 0.5 and math.isnan(ratings[1].std)


# -- columns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image", ["image", "File", "FileName", " name ", "path", "img", "image_name", "Image Name"]
)
@pytest.mark.parametrize("score", ["mos", "Score", "QUALITY", "rating"])
def test_columns_go_by_their_usual_names(tmp_path: Path, image: str, score: str) -> None:
    (rating,) = opened(table(tmp_path, f"x,{score},{image}\n9,3,a.png\n")).ratings()
    assert (rating.key, rating.score) == ("a.png", 3.0)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("image,file,mos", ("several columns that could be the image: image, file", "my.csv?image=image")),
        ("image,mos,score", ("could be the score: mos, score", "my.csv?score=mos")),
        ("image,mos,std,sd", ("could be the std: std, sd", "?std=std", "?std=none")),
        ("image,mos,ref,group", ("could be the group: ref, group",)),
        ("image,mos,MOS", ("two columns called 'mos'",)),
        (
            "picture,mos,x",
            ("no column image or file", "header names: picture, mos, x", "my.csv?image=COLUMN"),
        ),
        ("image,z,x", ("no column mos or score", "my.csv?score=COLUMN")),
        ("image,dmos,x", ("'dmos'", 'my.csv?lower_is_better"', 'my.csv?higher_is_better"')),
        ("image,DMOS realigned,x", ("no column mos",)),
    ],
)
def test_what_is_unclear_is_asked_in_one_line(tmp_path: Path, header: str, words: Sequence[str]) -> None:
    cells = ",".join("1" for _ in header.split(","))
    with pytest.raises(UserError) as error:
        opened(table(tmp_path, f"{header}\n{cells}\n"))
    for word in words:
        assert word in told(error)


@pytest.mark.parametrize("column", ["dmos", "DMOS", "dmos_realigned", "my DMOS"])
def test_a_name_that_holds_dmos_is_asked_about(tmp_path: Path, column: str) -> None:
    spec = table(tmp_path, f"image,{column}\na.png,3\n") + f"?score={column}"
    with pytest.raises(UserError, match="is unclear whether lower or higher"):
        opened(spec)
    assert opened(f"{spec}&lower_is_better").ratings()[0].score == -3


OPTIONS = [
    ("score=z", [7.0, 8.0]),
    ("score=Z", [7.0, 8.0]),
    ("score=z&lower_is_better", [-7.0, -8.0]),
    ("score=dmos&higher_is_better", [3.0, 0.0]),
    ("score=dmos&lower_is_better", [-3.0, 0.0]),
    ("image=other&score=z", [7.0, 8.0]),
]


@pytest.mark.parametrize(("options", "scores"), OPTIONS)
def test_columns_and_direction_can_be_named(tmp_path: Path, options: str, scores: list[float]) -> None:
    spec = table(tmp_path, "image,other,z,dmos\na.png,c.png,7,3\nb.png,d.png,8,0\n")
    dataset = opened(f"{spec}?{options}")
    ratings = dataset.ratings()
    assert [r.score for r in ratings] == scores and "-0.0" not in [repr(r.score) for r in ratings]
    assert [r.key for r in ratings] == (["c.png", "d.png"] if "other" in options else ["a.png", "b.png"])
    assert dataset.direction == ("lower" if "lower" in options else "higher")
    better = "lower is better" if "lower" in options else "higher is better"
    assert better in dataset.notes()[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("scor=z", "did you mean 'score'"),
        ("score=zz", "unknown column"),
        ("score", "write score=VALUE"),
        ("score=z&score=mos", "given twice"),
        ("lower_is_better&higher_is_better", "leave one out"),
        ("lower_is_better=1", "unknown option"),
        ("images=nowhere", "no such folder"),
        ("average&std=std", "leave std=std out"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: str, words: str) -> None:
    spec = table(tmp_path, "image,mos,z,std\na.png,3,7,1\n")
    with pytest.raises(UserError) as error:
        opened(f"{spec}?{options}")
    assert words in told(error)


# -- names of images -----------------------------------------------------------------------------------------

NFC, NFD = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
NAMES: dict[str, tuple[list[str], list[str], list[str], str]] = {
    "exact": (["a.png"], ["a.png"], ["a.png"], ""),
    "exact below": (["s/a.png"], ["s/a.png"], ["s/a.png"], ""),
    "a dot in front": (["a.png"], ["./a.png"], ["a.png"], "1 without ./"),
    "backslashes": (["sub/a.png"], ["sub\\a.png"], ["sub/a.png"], "1 without ./ or with / for \\"),
    "backslash and dot": (["sub/a.png"], [".\\sub\\a.png"], ["sub/a.png"], "with / for \\"),
    "a folder in front": (
        ["a.png", "b.png"],
        ["images/a.png", "images/b.png"],
        ["a.png", "b.png"],
        "images/ in",
    ),
    "a disk in front": (["s/a.png"], ["C:\\x\\s\\a.png"], ["s/a.png"], "without x/ in front"),
    "a path in front": (
        ["1/a.png", "2/b.png"],
        ["/x/1/a.png", "/x/2/b.png"],
        ["1/a.png", "2/b.png"],
        "x/ in",
    ),
    "decomposed on the disk": ([NFD], [NFC], [NFC], "Unicode form"),
    "decomposed in the table": ([NFC], [NFD], [NFC], "Unicode form"),
    "another case": (["A.PNG"], ["a.png"], ["A.PNG"], "with another case (a.png is A.PNG)"),
    "case of a folder": (["Sub/a.png"], ["sub/a.png"], ["Sub/a.png"], "another case"),
    "jfif": (["a.jfif"], ["a.jpg"], ["a.jfif"], "another suffix"),
    "jpg": (["a.jpg"], ["a.JPEG"], ["a.jpg"], "another suffix"),
    "no suffix": (["img.1.png"], ["img.1"], ["img.1.png"], "another suffix"),
    "a number": (["1600.png"], ["1600"], ["1600.png"], "another suffix"),
    "exact beside a twin": (["A.png", "a.png"], ["a.png"], ["a.png"], ""),
    "exact beside a twin, another not": (
        ["A.png", "a.png", "b.PNG"],
        ["a.png", "b.png"],
        ["a.png", "b.PNG"],
        "1 with",
    ),
    "exact beside two of a kind": (["a.jpg", "a.jfif"], ["a.jfif"], ["a.jfif"], ""),
    "both twins": (["A.png", "a.png"], ["a.png", "A.png"], ["a.png", "A.png"], ""),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_are_matched_as_people_write_them(tmp_path: Path, case: str) -> None:
    files, names, keys, words = NAMES[case]
    draw(tmp_path, files)
    dataset = opened(table(tmp_path, "image,mos\n" + "".join(f"{n},{i}\n" for i, n in enumerate(names))))
    assert [r.key for r in dataset.ratings()] == keys and dataset.missing_files() == []
    notes = [note for note in dataset.notes() if "names matched after changes" in note]
    assert len(notes) == bool(words) and words in "".join(notes)
    for key in keys:
        assert unicodedata.normalize("NFC", dataset.path(key).relative_to(dataset.root).as_posix()) == key


UNCLEAR: dict[str, tuple[list[str], list[str], str]] = {
    "two cases": (["A.PNG", "a.Png"], ["a.png"], "image a.png could be A.PNG or a.Png"),
    "two suffixes": (["a.png", "a.jpg"], ["a"], "image a could be a.jpg or a.png"),
    "two of a kind": (["a.jfif", "a.jpeg"], ["a.jpg"], "image a.jpg could be a.jfif or a.jpeg"),
    "another's picture": (["a.png"], ["a.png", "A.PNG"], "image A.PNG is missing: a.png"),
    "two folders": (["x/a.png", "y/a.png"], ["a.png"], "say which folder is meant: images=FOLDER"),
    "thumbnails that are more": (
        ["x/a.png", "y/a.png", "y/b.png"],
        ["a.png", "b.png"],
        "y (2 of 2); say which",
    ),
    "rated twice": (["a.png"], ["a.png", "a.png"], "row 3 rates a.png a second time, the first is"),
    "rated twice, written otherwise": (["a.png"], ["a.png", "./a.png"], "row 3 rates a.png a second time"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_could_be_two_pictures_is_refused_by_name(tmp_path: Path, case: str) -> None:
    files, names, words = UNCLEAR[case]
    draw(tmp_path, files)
    spec = table(tmp_path, "image,mos\n" + "".join(f"{n},{i}\n" for i, n in enumerate(names)))
    with pytest.raises(UserError) as error:
        opened(spec).ratings()
    assert words in told(error) and told(error).startswith(str(tmp_path / "my.csv"))


@pytest.mark.parametrize("name", ["a.jpg", "b.png", "x/a.png", "a"])
def test_another_picture_is_never_taken_for_a_missing_one(tmp_path: Path, name: str) -> None:
    """Neither a PNG for a JPEG, nor one that lies in another folder than the table says."""
    draw(tmp_path, ["a.png", "a.jpg/c.png", "y/a.png"] if name == "x/a.png" else ["a.png", "a2.png"])
    others = ["y/a.png"] if name == "x/a.png" else []
    names = [name, *others] if name != "a" else ["a.bmp"]
    dataset = opened(table(tmp_path, "image,mos\n" + "".join(f"{n},{i}\n" for i, n in enumerate(names))))
    assert dataset.missing_files() == [names[0]]
    with pytest.raises(UserError, match="images=FOLDER"):
        dataset.verify_files()


def test_thumbnails_below_are_not_taken_for_a_missing_picture(tmp_path: Path) -> None:
    draw(tmp_path, ["a.png", "b.png", "small/a.png", "small/b.png", "small/c.png"])
    dataset = opened(table(tmp_path, "image,mos\na.png,1\nb.png,2\nc.png,3\n"))
    assert dataset.root == tmp_path and dataset.missing_files() == ["c.png"]


@pytest.mark.parametrize("where", ["beside", "below", "images=", "images= beside"])
def test_pictures_lie_beside_the_table_or_below_or_where_it_is_said(tmp_path: Path, where: str) -> None:
    home = tmp_path / "tables"
    folder = {"beside": home, "below": home / "pics/all", "images= beside": home / "p"}.get(
        where, tmp_path / "p"
    )
    draw(folder, ["a.png", "b.png"])
    draw(home / "other", ["x.png"], 7)
    spec = table(home, "image,mos\na.png,1\nb.png,2\n")
    spec += {"images=": f"?images={tmp_path / 'p'}", "images= beside": "?images=p"}.get(where, "")
    dataset = opened(spec)
    assert dataset.root == folder and dataset.path("b.png") == folder / "b.png"
    assert any(str(folder) in note for note in dataset.notes()) == (where == "below")


def test_a_folder_in_front_may_be_another_below(tmp_path: Path) -> None:
    draw(tmp_path / "pics", ["a.png", "b.png"])
    dataset = opened(table(tmp_path, "image,mos\nimages/a.png,1\nimages/b.png,2\n"))
    assert dataset.root == tmp_path / "pics" and [r.key for r in dataset.ratings()] == ["a.png", "b.png"]
    assert f"the images are in {tmp_path / 'pics'}" in dataset.notes()


def test_several_ratings_of_a_picture_are_averaged_when_asked(tmp_path: Path) -> None:
    draw(tmp_path, ["a.png", "b.png"])
    given = {"a.png": [1.0, 2.0, 4.5], "b.png": [3.0]}
    rows = ["a.png,1,r", "b.png,3,s", "./a.png,2,r", "a.png,4.5,r"]
    spec = table(tmp_path, "image,score,ref\n" + "\n".join(rows))
    dataset = opened(f"{spec}?average")
    first, second = dataset.ratings()
    assert (first.key, first.group, second.key) == ("a.png", "r", "b.png")
    assert (first.score, first.std) == (
        float(np.mean(given["a.png"])),
        float(np.std(given["a.png"], ddof=1)),
    )
    assert second.score == 3 and math.isnan(second.std)
    assert any("4 ratings are averaged into scores of 2 images" in note for note in dataset.notes())
    assert dataset.expected_images == 2
    torn = table(tmp_path, "image,score,ref\na.png,1,r\na.png,2,s\n")
    with pytest.raises(UserError, match=r"row 3 puts a\.png into group s, .* row 2 into r"):
        opened(f"{torn}?average").ratings()


def test_a_std_beside_several_ratings_is_not_read(tmp_path: Path) -> None:
    draw(tmp_path, ["a.png"])
    spec = table(tmp_path, "image,mos,std\na.png,1,\na.png,3,x\n")
    (rating,) = opened(f"{spec}?average").ratings()
    assert (rating.score, rating.std) == (2.0, math.sqrt(2))


# -- splits and labels ---------------------------------------------------------------------------------------


def split_of(dataset: Dataset, spec: str = "1") -> dict[str, str]:
    split = resolve_split(spec, dataset, dataset.ratings())
    return dict(split.subset)


@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("Training", "validation", "Testing"), ("TRAIN", "dev", "test")]
)
@pytest.mark.parametrize("column", ["split", "Set", "subset"])
def test_a_column_says_what_is_trained_on(tmp_path: Path, words: tuple[str, ...], column: str) -> None:
    rows = [f"{n},{words[(0, 0, 1, 2)[n % 4]]}" for n in range(12)]
    dataset = opened(numbered(tmp_path, f"mos,{column}", rows))
    wanted = {f"{n:02}.png": ("train", "train", "val", "test")[n % 4] for n in range(12)}
    assert split_of(dataset) == split_of(dataset, "2") == split_of(dataset, "official") == wanted


def test_without_val_an_eighth_of_train_is_taken_by_group(tmp_path: Path) -> None:
    rows = [f"{n},{'test' if n >= 32 else 'train'},g{n // 4}" for n in range(40)]
    dataset = opened(numbered(tmp_path, "mos,split,group", rows))
    splits = [split_of(dataset, str(number)) for number in range(1, 6)]
    for split in splits:
        chosen = [key for key, subset in split.items() if subset == "val"]
        assert len(chosen) == 4 and len({int(key[:2]) // 4 for key in chosen}) == 1
        assert [k for k, subset in split.items() if subset == "test"] == [f"{n}.png" for n in range(32, 40)]
    assert len({str(split) for split in splits}) > 1 and splits[0] == split_of(dataset)
    note = resolve_split("1", dataset, dataset.ratings()).note
    assert "has no val: 4 of 32 train images" in note
    assert (
        note in check_data(Path(), [registry.check("datasets", f"csv:{tmp_path / 'my.csv'}")]).rows[0].notes
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["1,train,r", "2,val,s", "3,hidden,t"], "holds 'hidden', expected one of train, val, test"),
        (["1,train,r", "2,val,s", "3,,t"], "column 'split' is empty"),
        (["1,train,r", "2,val,s", "3,val,t"], "no image for test"),
        (["1,test,r", "2,val,s", "3,val,t"], "no image for train"),
        (["1,train,r", "2,val,s", "3,test,r"], "reference r is in two subsets"),
        (["1,train,r", "2,train,r", "3,test,s"], "none to validate on"),
    ],
)
def test_a_split_column_that_will_not_do_is_refused(tmp_path: Path, rows: list[str], words: str) -> None:
    spec = numbered(tmp_path, "mos,split,ref", rows)
    with pytest.raises(UserError) as error:
        split_of(opened(spec))
    assert words in told(error)
    assert set(split_of(opened(f"{spec}?split=none&group=none")).values()) == {"train", "val", "test"}


def test_without_a_column_the_split_is_seeded_by_group(tmp_path: Path) -> None:
    dataset = opened(numbered(tmp_path, "mos,ref", [f"{n},{n // 4}" for n in range(40)]))
    split = split_of(dataset)
    assert [list(split.values()).count(part) for part in ("train", "val", "test")] == [28, 4, 8]
    assert all(len({split[f"{4 * g + i:02}.png"] for i in range(4)}) == 1 for g in range(10))
    with pytest.raises(UserError, match="no official split"):
        split_of(dataset, "official")


def test_a_table_that_is_only_tested_on_needs_no_split(tmp_path: Path) -> None:
    name = registry.check("datasets", numbered(tmp_path, "mos,set", ["1,LIVE", "2,LIVE", "3,other"]))
    (material,) = load_materials([], test_only=[name]).values()
    assert set(material.split.subset.values()) == {"test"} and material.dataset.notes()
    with pytest.raises(UserError, match="column 'set' holds 'LIVE'"):
        load_materials([name])


@pytest.mark.parametrize("labels", [[3] * 30, [1, 2] * 15, [1, 2, 3, 4, 5] * 6, list(range(30))])
def test_labels_that_say_little_are_pointed_out(tmp_path: Path, labels: list[int]) -> None:
    notes = " | ".join(opened(numbered(tmp_path, "mos", [str(n) for n in labels])).notes())
    assert ("all 30 labels are equal" in notes and "no SRCC" in notes) == (len({*labels}) == 1)
    assert (f"only {len({*labels})} different labels among 30" in notes) == (1 < len({*labels}) < 30)


@pytest.mark.parametrize("column", ["", ",split", ",group"])
def test_one_picture_in_two_subsets_is_a_leak_whatever_the_split(tmp_path: Path, column: str) -> None:
    parts = ["train"] * 5 + ["val", "test", "test"]
    cells = {
        "": [""] * 8,
        ",split": [f",{p}" for p in parts],
        ",group": [f",{n}" for n in range(8)],
    }
    spec = numbered(tmp_path, f"mos{column}", [f"{n}{cell}" for n, cell in enumerate(cells[column])])
    name = registry.check("datasets", spec)
    (material,) = load_materials([name]).values()
    assert material.fingerprint
    test, train = material.split.keys("test")[0], material.split.keys("train")[0]
    shutil.copy(tmp_path / train, tmp_path / test)
    (material,) = load_materials([name]).values()
    with pytest.raises(UserError, match="are the same picture; leave one out"):
        _ = material.fingerprint
    (row,) = check_data(Path(), [name]).rows
    assert row.duplicates
    assert [p for p in row.problems if "equal pixels in different subsets" in p]
    alike = dict.fromkeys((test, train), "one")
    text = "".join(f"{n:02}.png,{n},{alike.get(f'{n:02}.png', n)}\n" for n in range(8))
    (together,) = load_materials(
        [registry.check("datasets", table(tmp_path, f"image,mos,ref\n{text}"))]
    ).values()
    assert together.fingerprint


# -- pixels and names of work --------------------------------------------------------------------------------


def material_of(spec: str) -> LabelledDataset:
    (material,) = load_materials([registry.check("datasets", spec)]).values()
    return material


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forgets which table a name stands for: another place is another command."""
    return lambda: monkeypatch.setattr(registry, "_sourced", {})


def test_a_fingerprint_is_of_labels_images_and_options_not_of_the_path(
    tmp_path: Path, forgotten: Callable[[], None]
) -> None:
    spec = numbered(tmp_path / "one", "mos,z,ref", [f"{n},{n * n},{n // 2}" for n in range(12)])
    first = material_of(spec).fingerprint
    shutil.copytree(tmp_path / "one", tmp_path / "two/three")

    def elsewhere(change: Callable[[Path], object] = lambda root: None, options: str = "") -> str:
        forgotten()
        root = tmp_path / f"{len(list(tmp_path.iterdir()))} of them" / "sub"
        shutil.copytree(tmp_path / "one", root)
        change(root)
        return material_of(f"csv:{root / 'my.csv'}{options}").fingerprint

    assert elsewhere() == first
    assert elsewhere(lambda root: (root / "extra.txt").write_text("x")) == first
    assert elsewhere(lambda root: draw(root, ["03.png"], 99)) != first
    assert elsewhere(lambda root: (root / "my.csv").write_text(
        (root / "my.csv").read_text().replace("03.png,3", "03.png,3.5"))) != first  # fmt: skip
    for options in ("?score=z", "?lower_is_better", "?group=none"):
        assert elsewhere(options=options) != first


def profiled(path: Path) -> np.ndarray:
    """Writes a PNG whose profile has a gamma of 1 where sRGB has a curve; returns the numbers in the file."""
    pixels = np.random.default_rng(5).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    start = profile.index(b"para", 128)
    profile[start + 8 : start + 10] = (0).to_bytes(2, "big")  # the curve's kind: Y = X ** g ...
    profile[start + 12 : start + 16] = (1 << 16).to_bytes(4, "big")  # ... with g = 1
    named = bytes(profile).replace(b"s\0R\0G\0B", b"t\0R\0G\0B")
    Image.fromarray(pixels).save(path, icc_profile=named)
    return pixels


def test_pictures_are_read_by_content_and_with_their_profiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = numbered(tmp_path, "mos", [str(n) for n in range(6)])
    Image.fromarray(np.full((12, 16, 3), 90, np.uint8)).save(tmp_path / "00.png", "JPEG")
    plain = profiled(tmp_path / "01.png")
    material = material_of(spec)
    keys = [r.key for r in material.ratings]
    cache = ImageCache.open(material.dataset, keys, 0)
    assert (cache.image(0) == 90).all()
    own = decode(tmp_path / "01.png", reading=OWN)
    np.testing.assert_array_equal(cache.image(1), own)
    assert (own != plain).any() and (decode(tmp_path / "01.png") == plain).all()
    said = capsys.readouterr().err
    assert "00.png is a JPEG file, not what its name says" in said
    assert "01.png has the colour profile" in said and "converted to sRGB" in said
    assert check_data(Path(), [material.name]).ok


def test_another_reading_is_another_cache_and_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliqa_bench.benchmarks.pixels.decode import RELEASED

    material = material_of(numbered(tmp_path, "mos", [str(n) for n in range(6)]))
    keys = [r.key for r in material.ratings]
    own = ImageCache.open(material.dataset, keys, 0)
    assert own.path == ImageCache.open(material.dataset, keys, 0).path and outdated(own.path) == ""
    fingerprint = material.fingerprint
    monkeypatch.setattr(type(material.dataset), "reading", RELEASED)
    released = ImageCache.open(material.dataset, keys, 0)
    assert released.path != own.path and released.digest != own.digest and outdated(released.path) == ""
    assert LabelledDataset(material.dataset, material.ratings, material.split).fingerprint != fingerprint


# -- the command line ----------------------------------------------------------------------------------------


def said_of(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def configured(**settings: Any) -> RunConfig:
    return resolve({"strategy": "tsn", "preset": "quick", **settings})


def test_a_table_stands_wherever_a_dataset_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: Callable[[], None]
) -> None:
    one = numbered(tmp_path / "a", "mos", ["1", "2", "3"])
    table(draw(tmp_path / "b", ["x.png"]), "file,dmos\nx.png,3\n", "a, b; c & 100%.csv")
    quoted = f"csv:{tmp_path}/b/a%2C b%3B c & 100%25.csv?lower_is_better"
    config = configured(orders=f"live,{one};{one}", test_on=quoted)
    assert config.orders == {"live,csv-my": ["live", "csv-my"], "csv-my": ["csv-my"]}
    assert config.test_on == ["csv-a-b-c-100"]
    assert [source.count(",") for source in config.tables] == [0, 0]
    again = config_dict(config)
    forgotten()
    monkeypatch.chdir("/")
    repeated = resolve({**again, "preset": "quick"})
    assert (repeated.orders, repeated.test_on, repeated.tables) == (
        config.orders,
        config.test_on,
        config.tables,
    )
    with pytest.raises(UserError, match="learns it"):
        configured(orders=one, test_on=one)
    with pytest.raises(UserError, match="names csv-my twice"):
        configured(orders=f"{one},{one}")
    with pytest.raises(UserError, match="a comma in a path is written %2C"):
        configured(orders=f"csv:{tmp_path}/b/a, b; c & 100%.csv")


def test_two_tables_of_one_name_are_told_apart_by_hand(tmp_path: Path) -> None:
    spec = numbered(tmp_path, "mos,z", ["1,2", "2,3", "3,1"])
    with pytest.raises(UserError, match="are both called csv-my; add name=OTHER"):
        configured(orders=f"{spec},{spec}?score=z")
    config = configured(orders=f"{spec},{spec}?score=z&name=sharpness")
    assert config.orders == {"csv-my,csv-sharpness": ["csv-my", "csv-sharpness"]}
    assert registry.load("datasets", "csv-sharpness").title == "sharpness"


def test_data_check_and_ratings_take_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = numbered(tmp_path, "mos", [str(n) for n in range(10)])
    code, out, _ = said_of(capsys, "data", "check", spec)
    assert code == 0 and out.rstrip().endswith("\nOK") and "7/1/2" in out
    assert "score: mos, higher is better (otherwise: lower_is_better)" in out
    code, out, err = said_of(capsys, "data", "ratings", spec, "--split", "1")
    assert code == 0 and out.startswith("key,score,std,group,distortion,subset\n00.png,0.0,,,,")
    assert "score: mos, higher is better" in err
    (tmp_path / "03.png").unlink()
    (tmp_path / "05.png").write_bytes(b"no picture")
    (tmp_path / "extra.jfif").write_bytes(b"")
    code, out, _ = said_of(capsys, "data", "check", spec)
    assert (
        code == 2
        and "1 rated images are missing: 03.png" in out
        and "05.png is in none of the formats" in out
    )
    assert "1 images without a label are left out: extra.jfif" in out
    assert f"{tmp_path} has problems, listed above: do not use it yet" in out


def test_where_labels_are_broken_the_pictures_of_the_table_are_looked_at_and_no_others(
    tmp_path: Path,
) -> None:
    draw(tmp_path, ["a.png", "b.png", "c.png"])
    for name in ("b.png", "c.png"):
        (tmp_path / name).write_bytes(b"no picture")
    name = registry.check("datasets", table(tmp_path, "image,mos\na.png,x\nb.png,2\n"))
    (row,) = check_data(tmp_path, [name]).rows
    assert sorted(row.pictures) == ["a.png", "b.png"] and row.unreadable == ["b.png"]
    assert "row 2, column 'mos' holds 'x'" in row.problems[0]


def test_plan_takes_a_table_and_names_work_without_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = numbered(tmp_path / "own", "mos", [str(n) for n in range(10)])
    words = ("--strategy", "tsn", "--orders", spec, "--preset", "quick", "--out", str(tmp_path / "runs"))
    code, out, err = said_of(capsys, "plan", *words)
    assert code == 0 and "train/tsn-scnn-csv-my-" in out and "my: score: mos, higher is better" in err
    (node,) = [line.split()[0] for line in out.splitlines() if line.startswith("train/")]
    shutil.move(tmp_path / "own", tmp_path / "moved")
    registry._sourced.clear()
    code, out, _ = said_of(capsys, "plan", *[word.replace("/own/", "/moved/") for word in words])
    assert code == 0 and node in out


def test_a_table_is_a_benchmark_of_avalanche_s_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cliqa_bench.benchmarks.streams import iqa_benchmark

    spec = numbered(tmp_path, "mos", [str(n) for n in range(5)])
    for n in range(5):
        Image.new("RGB", (96, 96), (50 * n, 9, 9)).save(tmp_path / f"{n:02}.png")
    benchmark = iqa_benchmark(spec, preset="quick")
    assert [experience.dataset_name for experience in benchmark.train_stream] == ["csv-my"]
    assert "my: score: mos, higher is better" in capsys.readouterr().err


def test_without_weights_of_resnet18_the_way_out_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    spec = numbered(tmp_path, "mos", [str(n) for n in range(10)])
    code, _, err = said_of(capsys, "plan", "--strategy", "tsn", "--orders", spec)
    assert code == 2 and "--backbone scnn" in err and "--preset quick" in err and len(err.splitlines()) == 1


PLAN = ("plan", "--strategy", "tsn")


@pytest.mark.parametrize(
    "words",
    [
        ("data", "check"),
        ("data", "check", "--datasets"),
        ("data", "ratings"),
        (*PLAN, "--orders"),
        (*PLAN, "--test-on"),
    ],
)
def test_a_table_without_csv_in_front_is_told_how_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    path = table(tmp_path, "image,mos\na.png,1\n", "My.csv").removeprefix("csv:")
    code, _, err = said_of(capsys, *words, path)
    assert code == 2 and f'write "csv:{path}"' in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--orders", "--test-on"])
def test_a_name_that_no_file_can_have_is_unknown(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    code, _, err = said_of(capsys, *PLAN, flag, "x" * 5000)
    assert code == 2 and "unknown" in err and len(err.splitlines()) == 1


CATS = '''"""Cats."""

from cliqa_bench.benchmarks.base import Dataset, Entry
from cliqa_bench.benchmarks.readers.text import read_csv
from cliqa_bench.types import Rating


class Cats(Dataset):
    """Cats, rated."""

    title = "Cats"
    folders = ("cats",)
    label_files = ("cats.csv",)
    image_folders = ("",)
    homepage = "here"
    n_images = 2
    direction = "higher"

    def entries(self):
        rows = read_csv(self.label_file("cats.csv"), ("file", "mos"))
        return [Entry(r.where, Rating(r.text("file"), r.number_in("mos"), 0.1, None, "cat")) for r in rows]
'''


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    draw(tmp_path / "data/cats", ["a.png", "b.png"])
    (tmp_path / "data/cats/cats.csv").write_text("file,mos\na.png,1\nb.png,2\n")
    (tmp_path / "my_cats.py").write_text(CATS)
    return tmp_path / "my_cats.py"


def test_ratings_and_sheets_include_a_dataset_of_one_s_own(
    cats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, more = str(tmp_path / "data"), ("--include", str(cats))
    code, out, _ = said_of(capsys, "data", "ratings", "my_cats", "--data", data, *more)
    assert code == 0 and "b.png,2.0,0.1,,cat," in out
    code, _, _ = said_of(capsys, "data", "sheet", data, "--out", str(tmp_path / "sheets"), *more)
    assert code == 0 and [path.name for path in (tmp_path / "sheets").iterdir()] == ["my_cats.png"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('    direction = "higher"\n', "", "does not state direction"),
        ('    title = "Cats"\n', "", "does not state title"),
        ('    n_images = 2\n    direction = "higher"\n', "", "does not state n_images, direction"),
        ('"higher"', '"up"', "direction must be higher or lower, not 'up'"),
    ],
)
def test_a_class_that_states_too_little_is_refused(
    cats: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    cats.write_text(CATS.replace(old, new))
    code, _, err = said_of(capsys, "list", "--include", str(cats))
    assert code == 2 and words in err and "my_cats" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["mos.csv", "mos.xlsx", "mos"])
def test_a_table_is_not_included(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / name).write_text("image,mos\na.png,1\n")
    code, _, err = said_of(capsys, "list", "--include", str(tmp_path / name))
    assert code == 2 and "is not a Python file" in err and f"csv:{tmp_path / name}" in err
    assert len(err.splitlines()) == 1


def test_list_says_how_a_table_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said_of(capsys, "list")
    assert code == 0 and [
        line for line in out.splitlines() if line.startswith("  csv:FILE") and "table" in line
    ]


def test_of_several_sheets_it_is_said_which_is_read(tmp_path: Path) -> None:
    import openpyxl
    import openpyxl.chart

    draw(tmp_path, ["a.png", "b.png", "c.png"])
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, scores in (("First", (1, 2, 3)), ("2nd, new", (3, 1, 2))):
        sheet = book.create_sheet(title)
        for row in (("image", "mos"), *zip(("a.png", "b.png", "c.png"), scores, strict=True)):
            sheet.append(row)
    book.create_chartsheet("A chart", 0).add_chart(openpyxl.chart.BarChart())
    book.save(tmp_path / "my.xlsx")
    spec = f"csv:{tmp_path / 'my.xlsx'}"

    def scores_of(dataset: Dataset) -> list[float]:
        return [rating.score for rating in dataset.ratings()]

    first = opened(spec)
    assert scores_of(first) == [1, 2, 3]
    other = '"csv:my.xlsx?sheet=2nd%2C%20new"'
    assert f"reading the sheet 'First', the first of 2 (to read another: {other})" in first.notes()
    second = opened(f"{spec}?sheet=2nd%2C%20new&name=second")
    assert scores_of(second) == [3, 1, 2] and not any("sheet" in note for note in second.notes())
    with pytest.raises(UserError, match="no sheet 'third'; it has: First, 2nd, new"):
        opened(f"{spec}?sheet=third&name=third")
    only = table(tmp_path, "image,mos\na.png,1\nb.png,2\n")
    with pytest.raises(
        UserError, match=r"my\.csv is not a workbook and has no sheets; leave sheet=First out"
    ):
        opened(f"{only}?sheet=First&name=fourth")


def test_a_workbook_with_rules_for_its_cells_warns_of_nothing(tmp_path: Path) -> None:
    book = workbook()
    before = io.BytesIO(book)
    after = tmp_path / "my.xlsx"
    extension = (
        b'<extLst><ext xmlns:x14="http://schemas.microsoft.com/office/spreadsheetml/2009/9/main" '
        b'uri="{CCE6A557-97BC-4b89-ADB6-D9C93CAAB3DF}"><x14:dataValidations/></ext></extLst></worksheet>'
    )
    with zipfile.ZipFile(before) as old, zipfile.ZipFile(after, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(b"</worksheet>", extension) if "sheet1" in name else data)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        openpyxl_says(after)
        assert warned, "else this tests nothing"
        del warned[:]
        draw(tmp_path, list(SCORES))
        assert len(opened(f"csv:{after}").ratings()) == len(SCORES)
    assert not warned


def openpyxl_says(path: Path) -> None:
    import openpyxl

    list(openpyxl.load_workbook(path, read_only=True).active.iter_rows())


RAW_NAMES = ("x.dng", "x.NEF", "x.cr2", "x.cr3", "x.arw")


@pytest.mark.parametrize("name", RAW_NAMES)
def test_raw_files_of_cameras_are_refused_and_not_read_as_their_preview(tmp_path: Path, name: str) -> None:
    draw(tmp_path, ["a.png", "b.png"])
    Image.new("RGB", (32, 24), "red").save(tmp_path / name, "TIFF")
    spec = table(tmp_path, f"image,mos\na.png,1\nb.png,2\n{name},3\n")
    report = check_data(tmp_path, [registry.check("datasets", spec)])
    (problem,) = (line for line in report.rows[0].problems if name in line)
    assert "is a camera's raw file" in problem and "export it as JPEG, PNG or TIFF" in problem


def test_a_dng_file_is_known_by_its_content_and_a_tiff_file_is_none(tmp_path: Path) -> None:
    plain, raw = tmp_path / "plain.tif", tmp_path / "raw.tif"
    image = Image.new("RGB", (32, 24), "red")
    image.save(plain)
    image.save(raw, tiffinfo={50706: b"\x01\x04\x00\x00"})
    assert decode(plain, reading=OWN).shape == (24, 32, 3)
    with pytest.raises(UserError, match=r"raw\.tif is a camera's raw file"):
        decode(raw, reading=OWN)
