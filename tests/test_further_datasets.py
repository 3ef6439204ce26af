"""Further datasets in their authors' layouts, rebuilt in small, with their traps."""

from __future__ import annotations

import math
import re
from pathlib import Path

import layouts
import numpy as np
import pytest
import scipy.io
from broken_labels import assert_refused, edit, edit_cell
from further_layouts import WRITERS, Truth
from layouts import cells

from cliqa_bench.benchmarks import suites
from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.check import check_data
from cliqa_bench.benchmarks.pairs import PAIRS_PER_IMAGE, n_pairs_for
from cliqa_bench.benchmarks.splits import ratings_csv, resolve_split, seeded_split, unit_of, whole
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
    assert dataset.unlabelled_files() == []


REAL = {
    "tid2013": (3000, 25, "higher"),
    "spaq": (11125, None, "higher"),
    "agiqa3k": (2982, 300, "higher"),
    "flive": (39810, None, "higher"),
    "pipal": (23200, 200, "higher"),
    "tid2008": (1700, 25, "higher"),
    "livemd": (450, 15, "lower"),
    "cid2013": (474, 8, "higher"),
    "biq2021": (12000, None, "higher"),
    "gfiqa": (19998, 18456, "higher"),
    "uhdiqa": (6073, None, "higher"),
}


def test_counts_and_directions_of_the_real_sets() -> None:
    classes = {name: suites.dataset_class(name) for name in WRITERS}
    assert {name: (c.n_images, c.n_groups, c.direction) for name, c in classes.items()} == REAL
    split = {name: c.official_counts for name, c in classes.items() if c.official_counts}
    assert split == {
        "flive": (30256, 7727, 1827),
        "biq2021": (10000, 0, 2000),
        "uhdiqa": (4269, 904, 900),
    }
    for name, counts in split.items():
        assert sum(counts) == REAL[name][0]


def test_the_page_for_owners_states_what_the_classes_do() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs/archives.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| (.*?) \| (.*?) \|", page, re.MULTILINE)
    assert {name for name, *_ in rows} == set(REAL)
    for name, images, folders, told in rows:
        cls = suites.dataset_class(name)
        assert int(images.replace(",", "")) == cls.n_images
        assert set(re.findall("`(.*?)`", folders)) <= set(cls.folders)
        assert ("official split" in told) == (cls.official_counts is not None)
        if cls.official_counts:
            assert " / ".join(f"{n:,}" for n in cls.official_counts if n) in told


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
    edit(dataset.root / file, old, new)
    assert_refused(lambda: resolve_split("official", dataset, dataset.ratings()), line)


def test_a_deviation_that_is_not_published_is_an_empty_cell(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "spaq")
    lines = ratings_csv(dataset, dataset.ratings()).splitlines()
    assert lines[1] == "TestImage/00001.jpg,2.0,,,authentic,"


def test_sets_without_an_official_split_say_so(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "spaq")
    with pytest.raises(UserError, match="SPAQ: there is no official split; use a seeded one"):
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
    edit_cell(dataset.root / "Annotations/MOS and Image attribute scores.xlsx", "Sheet", cell, value)
    assert_refused(dataset.ratings, line)


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
        ("tid2008", "mos_with_names.txt", "I01_09_4", "I01_09_5", "row 2, column 'name'"),
        ("tid2008", "mos_with_names.txt", "i25_17_2", "i25_18_2", "row 6, column 'name'"),
        ("biq2021", "Test (Images and MOS).csv", "ss01 (6300)", "ss04 (6300)", "row 2, column 'Image Name'"),
        ("biq2021", "Test (Images and MOS).csv", "0.8100", "1.81", "row 2, column 'MOS' holds '1.81'"),
        ("biq2021", "Test (Images and MOS).csv", "ss01 (6300)", "ss02 (700)", "a second time"),
        ("gfiqa", "mos_val_rating.csv", "5446868959_0", "face", "row 7, column 'img_name' holds 'face.png'"),
        ("gfiqa", "mos_val_rating.csv", "mos", "score", "has no column 'mos'"),
        ("uhdiqa", "uhd-iqa-metadata.csv", "validation", "other", "row 4, column 'set' holds 'other'"),
        ("uhdiqa", "uhd-iqa-metadata.csv", "2.jpg", "b.jpg", "row 3, column 'image_name'"),
        ("pipal", "Train_Label/A0248.txt", "A0248_03_23", "A0248_03_24", "A0248.txt row 2, column 'name'"),
        ("pipal", "Train_Label/A0248.txt", "A0248_00_00", "A0001_00_00", "expected an image of A0248"),
    ],
)
def test_broken_labels_are_named_by_file_row_and_column(
    tmp_path: Path, name: str, file: str, old: str, new: str, line: str
) -> None:
    dataset, _ = made(tmp_path, name)
    edit(dataset.root / file, old, new)
    assert_refused(dataset.ratings, line)


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


def test_deviations_of_tid2008_are_read_where_they_are(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "tid2008")
    assert "no mos_std.txt" in check_data(tmp_path, ["tid2008"]).render()
    stds = dataset.root / "mos_std.txt"
    stds.write_text("".join(f"1.3{i}e-001\n" for i in range(len(truth))))
    fresh = type(dataset)(dataset.root)
    assert [r.std for r in fresh.ratings()] == [0.13, 0.131, 0.132, 0.133, 0.134, 0.135]
    assert not fresh.notes()
    stds.write_text("0.13\n")
    with pytest.raises(UserError, match=r"has 1 values, .* rates 6 images"):
        type(dataset)(dataset.root).ratings()


def test_parts_of_livemd_go_by_other_spellings(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "livemd")
    for part in (1, 2):
        (dataset.root / f"Part {part}").rename(dataset.root / f"Part_{part}")
    dataset.root.rename(tmp_path / "To_Release")
    fresh = suites.find_datasets(tmp_path, ["livemd"])["livemd"]
    assert [r.key for r in fresh.ratings()] == list(truth)
    fresh.verify_files()
    assert fresh.path("Part 2/blurnoise/palace2_noise3.bmp").parent.parent.name == "Part_2"
    kinds = {r.distortion for r in fresh.ratings()}
    assert {"Gaussian blur", "JPEG", "Gaussian blur and white noise"} < kinds


def test_pictures_of_both_parts_of_livemd_stay_together(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "livemd")
    units = {unit_of(rating) for rating in dataset.ratings()}
    assert units == {"babygirl", "palace2"} and len(truth) == 12


def matrices(root: Path, part: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    here = root / f"Part {part}"
    scores, lists = scipy.io.loadmat(here / "Scores.mat"), scipy.io.loadmat(here / "Imagelists.mat")
    return {"DMOSscores": scores["DMOSscores"]}, {"distimgs": lists["distimgs"]}


def test_other_scores_or_names_of_livemd_are_refused(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "livemd")
    scores, lists = matrices(dataset.root, 2)

    def refused(line: str) -> None:
        scipy.io.savemat(dataset.root / "Part 2/Scores.mat", scores)
        scipy.io.savemat(dataset.root / "Part 2/Imagelists.mat", lists)
        assert_refused(type(dataset)(dataset.root).ratings, line)

    scores["DMOSscores"] = scores["DMOSscores"][:, :5]
    refused("DMOSscores has shape 1x5, expected 1x6")
    scores["DMOSscores"] = np.array([[1.0, 2, 3, 4, 5, 500]])
    refused("DMOSscores entry 6 (palace2_blur3_noise2.bmp) is 500")
    scores["DMOSscores"][0, 5] = 50
    lists["distimgs"] = cells(
        ["babygirl_blur1_jpeg1.bmp", *(f"palace2_noise{i}.bmp" for i in (1, 2, 3, 4, 5))]
    )
    refused("entry 1 names 'babygirl_blur1_jpeg1.bmp', expected a name such as babygirl_blur1_noise2.bmp")
    lists["distimgs"] = cells(["babygirl.bmp"] * 6)
    refused("entry 1 names 'babygirl.bmp'")


def test_livemd_without_any_image_is_refused(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "livemd")
    for part in (1, 2):
        scipy.io.savemat(dataset.root / f"Part {part}/Scores.mat", {"DMOSscores": np.zeros((1, 0))})
        scipy.io.savemat(dataset.root / f"Part {part}/Imagelists.mat", {"distimgs": np.empty((1, 0), object)})
    with pytest.raises(UserError, match="rates 0 images, expected 12"):
        dataset.ratings()


@pytest.mark.parametrize(
    ("cell", "value", "line"),
    [
        ("A3", "IS_IX_C01_D01", "row 3, column 'Source_ID' holds 'IS_IX_C01_D01'"),
        ("A3", "IS_I_C09_D01", "row 3, column 'Source_ID'"),
        ("C3", "good", "row 3, column 'Realigned MOS' holds 'good'"),
        ("C1", "MOS", "has no column 'Realigned MOS'"),
    ],
)
def test_a_broken_workbook_of_cid2013_is_refused(tmp_path: Path, cell: str, value: str, line: str) -> None:
    dataset, _ = made(tmp_path, "cid2013")
    edit_cell(dataset.root / "CID2013 data - version 12112014.xlsx", "CID2013 MOS", cell, value)
    assert_refused(dataset.ratings, line)


def test_scenes_of_cid2013_stay_together_whatever_their_set(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "cid2013")
    assert {unit_of(r) for r in dataset.ratings()} == {"scene 1", "scene 8"} and len(truth) == 6


def test_the_official_split_of_uhdiqa_is_that_of_its_folders(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "uhdiqa")
    split = resolve_split("official", dataset, dataset.ratings())
    assert split.name == "official" and not split.note
    assert split.keys("train") == ["training/1.jpg", "training/4.jpg", "training/5.jpg"]
    assert split.keys("val") == ["validation/3.jpg"]
    assert split.keys("test") == ["test/2.jpg", "test/6.jpg"]


def test_biq2021_has_a_test_set_and_validation_is_drawn(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "biq2021")
    split = resolve_split("official", dataset, dataset.ratings())
    assert split.name == "official-val-1"
    assert split.keys("test") == list(truth)[8:]
    assert len(split.keys("val")) == 1 and len(split.keys("train")) == 7
    assert split.note == "the official split has no val: 1 of 8 train images are used, drawn with a seed"
    again = resolve_split("official", dataset, dataset.ratings())
    assert again.fingerprint == split.fingerprint


def test_an_official_split_of_other_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, _ = made(tmp_path, "uhdiqa")
    (dataset.root / "generated.json").unlink()
    monkeypatch.setattr(type(dataset), "n_images", 6)
    fresh = type(dataset)(dataset.root)
    with pytest.raises(UserError, match=r"its official split has 3/1/2 images .* not 4269/904/900") as caught:
        resolve_split("official", fresh, fresh.ratings())
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(type(dataset), "official_counts", (3, 1, 2))
    assert len(resolve_split("official", fresh, fresh.ratings()).keys("train")) == 3


# -- KonIQ-10k's own split


def koniq(tmp_path: Path) -> Dataset:
    """Both files of the authors; the one from their repository says the sets."""
    root = tmp_path / "koniq-10k"
    truth = layouts.write_koniq10k(root)
    sets = ["training"] * 12 + ["validation"] * 3 + ["test"] * 5
    names = [key.rsplit("/", 1)[-1] for key in truth]
    rows = [f"{name},{part}" for name, part in zip(names, sets, strict=True)]
    (root / "koniq10k_distributions_sets.csv").write_text("\n".join(["image_name,set", *rows[::-1], ""]))
    return suites.find_datasets(tmp_path, ["koniq10k"])["koniq10k"]


def test_the_official_split_of_koniq_is_the_column_of_their_repository(tmp_path: Path) -> None:
    dataset = koniq(tmp_path)
    keys = [rating.key for rating in dataset.ratings()]
    split = resolve_split("official", dataset, dataset.ratings())
    assert split.name == "official"
    assert [split.keys(part) for part in ("train", "val", "test")] == [keys[:12], keys[12:15], keys[15:]]
    assert type(dataset).official_counts == (7058, 1000, 2015)
    (dataset.root / "koniq10k_distributions_sets.csv").unlink()
    with pytest.raises(UserError, match=r"no koniq10k_distributions_sets\.csv or metadata/"):
        resolve_split("official", dataset, dataset.ratings())


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("100007.jpg,", "100008.jpg,", "row 20, column 'image_name' holds '100008.jpg'"),
        ("100007.jpg,", "100014.jpg,", "row 20, column 'image_name' holds '100014.jpg'"),
        ("100133.jpg,test", "100133.jpg,train", "row 2, column 'set' holds 'train'"),
        (
            "100000.jpg,training\n",
            "",
            "its official split: 1 images are in no subset, first 1024x768/100000.jpg",
        ),
    ],
)
def test_a_broken_split_of_koniq_is_refused(tmp_path: Path, old: str, new: str, line: str) -> None:
    dataset = koniq(tmp_path)
    edit(dataset.root / "koniq10k_distributions_sets.csv", old, new)
    assert_refused(lambda: resolve_split("official", dataset, dataset.ratings()), line)
