"""TID2013, SPAQ, AGIQA-3K, FLIVE and PIPAL in their authors' layouts, rebuilt in small, with their traps."""

from __future__ import annotations

import math
from pathlib import Path

import openpyxl
import pytest
from further_layouts import WRITERS, Truth

from cliqa_bench.benchmarks import suites
from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.check import check_data
from cliqa_bench.benchmarks.pairs import PAIRS_PER_IMAGE, n_pairs_for
from cliqa_bench.benchmarks.splits import ratings_csv, resolve_split, seeded_split, whole
from cliqa_bench.errors import UserError


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
