"""TID2013, SPAQ, AGIQA-3K, FLIVE and PIPAL in their authors' layouts, rebuilt in small, with their traps."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
from layouts import describe, write_image

from cliqa_bench.benchmarks import suites
from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.check import check_data
from cliqa_bench.benchmarks.pairs import PAIRS_PER_IMAGE, n_pairs_for
from cliqa_bench.benchmarks.splits import ratings_csv, resolve_split, seeded_split, whole
from cliqa_bench.errors import UserError

Truth = dict[str, tuple[float, float, str | None]]


def write_tid2013(root: Path) -> Truth:
    """Two references, the file names with the capitals of the authors' archive, the labels in lower case."""
    truth: Truth = {}
    lines, stds = [], []
    for reference in ("01", "25"):
        for kind, level in (("01", 1), ("10", 5), ("11", 1), ("13", 1), ("24", 3)):
            odd = level == 1
            on_disk = (
                f"{'I' if odd else 'i'}{reference}_{kind}_{level}.{'BMP' if kind in ('11', '13') else 'bmp'}"
            )
            write_image(root / "distorted_images" / on_disk, len(truth))
            score, std = round(7.2 - 0.31 * len(truth), 5), round(0.1 + 0.01 * len(truth), 5)
            name = f"i{reference}_{kind}_{level}.bmp"
            lines.append(f"{score} {name}")
            stds.append(str(std))
            truth[f"distorted_images/{name}"] = (score, std, f"i{reference}")
    (root / "mos_with_names.txt").write_bytes("\r\n".join(lines).encode() + b"\r\n")
    (root / "mos_std.txt").write_text("\n".join(stds) + "\n")
    describe(root, len(truth), 2)
    return truth


def write_spaq(root: Path) -> Truth:
    """The workbook's name has blanks, and there is no std."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"])
    truth: Truth = {}
    for i in range(6):
        name = f"{i + 1:05d}.jpg"
        sheet.append([name, 10.5 * i + 2, 50, 50, 50, 50, 50])
        write_image(root / "TestImage" / name, i)
        truth[f"TestImage/{name}"] = (10.5 * i + 2, math.nan, None)
    (root / "Annotations").mkdir()
    book.save(root / "Annotations/MOS and Image attribute scores.xlsx")
    describe(root, len(truth), None)
    return truth


def write_agiqa3k(root: Path) -> Truth:
    """Prompts are quoted and hold commas, names hold dots, lines end with CRLF, pictures lie flat."""
    lines = ["name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align"]
    truth: Truth = {}
    for i, (generator, number) in enumerate(
        (g, n) for n in ("000", "001", "002") for g in ("sd1.5_highcorr", "xl2.2_normal", "AttnGAN_normal")
    ):
        name = f"{generator}_{number}.jpg"
        lines.append(
            f'{name},"a cat, a ""dog"", and a house",bright,,anime style,{0.4 * i},{0.2 + i / 9},4.2,0.1'
        )
        write_image(root / name, i)
        truth[name] = (0.4 * i, 0.2 + i / 9, number)
    (root / "data.csv").write_bytes("\r\n".join([*lines, ""]).encode())
    describe(root, len(truth), 3)
    return truth


def write_flive(root: Path) -> Truth:
    names = ("voc_emotic_ava/AVA__1.jpg", "voc_emotic_ava/VOC2012__2.jpg", "blur_dataset/motion0091.JPG")
    truth: Truth = {}
    for i, name in enumerate((*names, "EE371R/rq59.jpg")):
        write_image(root / "database" / name, i)
        truth[f"database/{name}"] = (30.0 * i, math.nan, None)
    write_image(root / "database/patches/AVA__1.jpg_patch_1.jpg", 99)
    rows = [f"{key.removeprefix('database/')},{score}" for key, (score, _, _) in truth.items()]
    (root / "labels_image.csv").write_text("\n".join(["name,mos", *rows]) + "\n")
    describe(root, len(truth), None)
    return truth


def write_pipal(root: Path) -> Truth:
    """A label file per reference, images in one of four folders."""
    truth: Truth = {}
    (root / "Train_Label").mkdir(parents=True)
    for folder, reference in (("Distortion_1", "A0001"), ("Distortion_4", "A0248")):
        rows = []
        for i, kind in enumerate(("00_00", "03_23", "06_26")):
            name = f"{reference}_{kind}.bmp"
            score = 1520.0648 + 7 * i + len(truth)
            rows.append(f"{name},{score!r}")
            write_image(root / folder / name, len(truth))
            truth[f"Distortion/{name}"] = (score, math.nan, reference)
        (root / f"Train_Label/{reference}.txt").write_text("\n".join(rows) + "\n")
    describe(root, len(truth), 2)
    return truth


WRITERS: dict[str, tuple[str, Callable[[Path], Truth]]] = {
    "tid2013": ("tid2013", write_tid2013),
    "spaq": ("SPAQ", write_spaq),
    "agiqa3k": ("AGIQA-3K", write_agiqa3k),
    "flive": ("FLIVE", write_flive),
    "pipal": ("PIPAL", write_pipal),
}


def made(tmp_path: Path, name: str) -> tuple[Dataset, Truth]:
    folder, write = WRITERS[name]
    (tmp_path / folder).mkdir()
    truth = write(tmp_path / folder)
    return suites.find_datasets(tmp_path, [name])[name], truth


@pytest.mark.parametrize("name", WRITERS)
def test_a_tree_in_the_authors_layout_is_read(tmp_path: Path, name: str) -> None:
    dataset, truth = made(tmp_path, name)
    ratings = dataset.ratings()
    assert [r.key for r in ratings] == list(truth), "order of the label file"
    for rating in ratings:
        score, std, group = truth[rating.key]
        assert rating.score == score
        assert rating.std == std or (math.isnan(rating.std) and math.isnan(std))
        assert rating.group == group
        assert dataset.path(rating.key).is_file()
    assert dataset.unlabelled_files() == [] and dataset.direction == "higher"


def test_counts_of_the_real_sets() -> None:
    # counts, references and value ranges of the releases
    counts = {name: suites.dataset_class(name).n_images for name in WRITERS}
    assert counts == {"tid2013": 3000, "spaq": 11125, "agiqa3k": 2982, "flive": 39810, "pipal": 23200}
    groups = {name: suites.dataset_class(name).n_groups for name in WRITERS}
    assert groups == {"tid2013": 25, "spaq": None, "agiqa3k": 300, "flive": None, "pipal": 200}


def test_missing_pictures_of_flive_are_told_by_their_source(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "flive")
    for gone in ("voc_emotic_ava/AVA__1.jpg", "blur_dataset/motion0091.JPG"):
        (dataset.root / "database" / gone).unlink()
    fresh = type(dataset)(dataset.root)
    with pytest.raises(UserError, match=r"2 of 4 .* 1 of AVA, 1 of blur_dataset \(https"):
        fresh.verify_files()
    assert "database_prep.ipynb: 1 of AVA" in check_data(tmp_path, ["flive"]).render()
    with pytest.raises(UserError, match=r"collect them .*: 1 of AVA$"):
        fresh.path("database/voc_emotic_ava/AVA__1.jpg")


def write_flive_split(root: Path) -> None:
    """The two files by which the authors split: names among columns of the patches."""
    (root / "labels640.csv").write_text("mos_patch_1,name_image\n7,voc_emotic_ava/VOC2012__2.jpg\n")
    lines = ["name_image,is_valid", "voc_emotic_ava/AVA__1.jpg,False", "blur_dataset/motion0091.JPG,True"]
    (root / "labels=640_padded.csv").write_text("\n".join(lines) + "\n")


def test_the_official_split_of_flive_is_read(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "flive")
    with pytest.raises(UserError, match=r"no labels640\.csv or database/labels640\.csv"):
        resolve_split("official", dataset, dataset.ratings())
    write_flive_split(dataset.root)
    split = resolve_split("official", dataset, dataset.ratings())
    assert split.name == "official"
    assert split.keys("test") == ["database/voc_emotic_ava/VOC2012__2.jpg"]
    assert split.keys("val") == ["database/blur_dataset/motion0091.JPG"]
    assert split.keys("train") == ["database/voc_emotic_ava/AVA__1.jpg", "database/EE371R/rq59.jpg"]


@pytest.mark.parametrize(
    ("file", "old", "new", "line"),
    [
        ("labels640.csv", "VOC2012__2", "VOC2012__3", "row 2, column 'name_image'"),
        ("labels=640_padded.csv", "AVA__1", "VOC2012__2", "row 2, column 'name_image'"),
        ("labels=640_padded.csv", "True", "yes", "row 3, column 'is_valid' holds 'yes'"),
        ("labels=640_padded.csv", "blur_dataset/motion0091.JPG,True\n", "", "leave out 1 pictures"),
    ],
)
def test_a_broken_official_split_is_refused(tmp_path: Path, file: str, old: str, new: str, line: str) -> None:
    dataset, _ = made(tmp_path, "flive")
    write_flive_split(dataset.root)
    path = dataset.root / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError) as caught:
        resolve_split("official", dataset, dataset.ratings())
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_deviation_that_is_not_published_is_an_empty_cell(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "spaq")
    lines = ratings_csv(dataset, dataset.ratings()).splitlines()
    assert lines[1] == "TestImage/00001.jpg,2.0,,,authentic,"


def test_sets_without_an_official_split_say_so(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "spaq")
    with pytest.raises(UserError, match="SPAQ: there is no official split; take a seeded one"):
        resolve_split("official", dataset, dataset.ratings())


def test_pipal_with_merged_folders_and_with_a_label_missing(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "pipal")
    for folder in ("Distortion_1", "Distortion_4"):
        for path in (dataset.root / folder).iterdir():
            (dataset.root / "Dist_Imgs").mkdir(exist_ok=True)
            path.rename(dataset.root / "Dist_Imgs" / path.name)
    fresh = type(dataset)(dataset.root)
    fresh.verify_files()
    assert not fresh.unlabelled_files() and len(fresh.ratings()) == len(truth)
    labels = dataset.root / "Train_Label/A0248.txt"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"Train_Label rates 5 images, expected 6"):
        type(dataset)(dataset.root).ratings()


@pytest.mark.parametrize(
    ("cell", "value", "line"),
    [
        ("A3", "2.jpg", "row 3, column 'Image name' holds '2.jpg'"),
        ("B3", None, "row 3, column 'MOS' is empty"),
        ("B3", 100.5, "row 3, column 'MOS' holds 100.5, expected a number from 0 to 100"),
        ("A3", "00001.jpg", "row 3 rates TestImage/00001.jpg a second time"),
        ("B1", "MOSS", "has no column 'MOS'"),
    ],
)
def test_a_broken_workbook_is_named_by_row_and_column(
    tmp_path: Path, cell: str, value: object, line: str
) -> None:
    dataset, _ = made(tmp_path, "spaq")
    path = dataset.root / "Annotations/MOS and Image attribute scores.xlsx"
    book = openpyxl.load_workbook(path)
    book.worksheets[0][cell] = value
    book.save(path)
    with pytest.raises(UserError) as caught:
        dataset.ratings()
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_check_without_names_asks_for_the_six_alone(tmp_path: Path) -> None:
    made(tmp_path, "agiqa3k")
    found = [row.cls.name for row in check_data(tmp_path).rows]
    assert found == [*suites.ORDERS["I"], "agiqa3k"]
    asked = check_data(tmp_path, ["spaq"])
    assert not asked.ok and "SPAQ: not found" in asked.render()


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "line"),
    [
        ("tid2013", "mos_with_names.txt", "i01_24_3.bmp", "i01_25_3.bmp", "row 5, column 'name'"),
        ("tid2013", "mos_with_names.txt", "7.2 i01", "9.2 i01", "row 1, column 'mos' holds '9.2'"),
        ("tid2013", "mos_with_names.txt", "7.2 i01", "i01", "row 1 has 1 cells, expected 2"),
        ("tid2013", "mos_std.txt", "0.19\n", "", "has 9 values"),
        ("agiqa3k", "data.csv", "sd1.5_highcorr_000.jpg", "sd1.jpg", "row 2, column 'name'"),
        ("agiqa3k", "data.csv", "mos_quality", "quality", "has no column 'mos_quality'"),
        ("flive", "labels_image.csv", "EE371R/", "other/", "row 5, column 'name'"),
        ("flive", "labels_image.csv", "90.0", "nan", "row 5, column 'mos'"),
        ("pipal", "Train_Label/A0248.txt", "A0248_03_23", "A0248_03_24", "A0248.txt row 2, column 'name'"),
        ("pipal", "Train_Label/A0248.txt", "A0248_00_00", "A0001_00_00", "expected an image of A0248"),
    ],
)
def test_broken_labels_are_named_by_file_row_and_column(
    tmp_path: Path, name: str, file: str, old: str, new: str, line: str
) -> None:
    dataset, _ = made(tmp_path, name)
    path = dataset.root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        dataset.ratings()
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_pictures_of_a_prompt_stay_together(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "agiqa3k")
    split = seeded_split(dataset.ratings(), "agiqa3k", 1)
    for number in ("000", "001", "002"):
        assert len({split.subset[key] for key in truth if number in key}) == 1


def test_a_whole_set_is_a_test_set(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "spaq")
    split = whole(dataset.ratings())
    assert split.keys("test") == list(truth)
    assert not split.keys("train") and not split.keys("val")
    assert split.fingerprint != seeded_split(dataset.ratings(), "spaq", 1).fingerprint


def test_sets_that_the_paper_does_not_learn_have_pairs_too(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "spaq")
    assert n_pairs_for(dataset, "paper", 500) == n_pairs_for(dataset, "files", 500) == 500 * PAIRS_PER_IMAGE
    assert n_pairs_for(dataset, "paper", 4) == 6, "not more than there are"
    assert n_pairs_for(dataset, 100, 500) == 100
