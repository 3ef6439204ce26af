"""The data check: one table, every fault found, and an answer of yes or no."""

from __future__ import annotations

import shutil
from pathlib import Path

import layouts
import numpy as np
import pytest
from colour_profiles import LINEAR, WIDE
from PIL import Image, ImageCms

from cliqa_bench.benchmarks import check, suites
from cliqa_bench.benchmarks.base import Dataset, ScoreFacts
from cliqa_bench.benchmarks.splits import seeded_split
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry
from cliqa_bench.types import SUBSETS


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    layouts.write_all(root)
    return root


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def one(root: Path, name: str) -> tuple[check.CheckReport, check.DatasetCheck]:
    report = check.check_data(root, [name])
    return report, report.rows[0]


def test_whole_data_is_well(whole: Path) -> None:
    report = check.check_data(whole)
    assert report.ok, report.render()
    assert [row.cls.name for row in report.rows] == list(suites.ORDERS["I"])
    lines = report.render().splitlines()
    assert lines[0].split()[:5] == ["dataset", "found", "expected", "present", "unreadable"]
    live = dict(zip(check.HEADER, report.rows[0].cells(), strict=True))
    assert live["found"] == "databaserelease2 (generated)"
    assert live["expected"] == live["present"] == "80"
    assert live["unreadable"] == live["unlabelled"] == live["duplicates"] == "0"
    assert live["authors' label"] == "lower better"
    assert live["sizes"] == "12x9"
    assert live["groups"] == "8"
    assert live["train/val/test"].count("/") == 2
    assert live["score"].startswith("0..")
    assert lines[-1] == "OK"


def test_colour_profiles_that_are_ignored_are_counted(data: Path) -> None:
    dataset = suites.find_datasets(data, ["bid"])["bid"]
    assert not one(data, "bid")[1].notes
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for rating, profile in zip(dataset.ratings(), (srgb, LINEAR, WIDE), strict=False):
        with Image.open(dataset.path(rating.key)) as image:
            image.copy().save(dataset.path(rating.key), icc_profile=profile)
    report, row = one(data, "bid")
    assert report.ok
    keys = ", ".join(rating.key for rating in dataset.ratings()[1:3])
    assert row.notes == [
        f"2 images with a colour profile other than sRGB ({keys}): it is ignored, as the published code "
        "does; run --srgb applies it"
    ]


def test_labels_that_only_look_like_the_release_are_a_problem(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = suites.dataset_class("csiq")
    monkeypatch.setattr(cls, "as_released", lambda self, ratings: len(ratings) == 0)
    report, row = one(data, "csiq")
    assert not report.ok
    assert [p for p in row.problems if "not those of the release" in p and cls.homepage in p]


def as_released(data: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[type[Dataset], list[float]]:
    """Makes BID's few images the whole release, and returns their scores."""
    cls = suites.dataset_class("bid")
    scores = [rating.score for rating in suites.find_datasets(data, ["bid"])["bid"].ratings()]
    (data / "BID/generated.json").unlink()
    monkeypatch.setattr(cls, "n_images", len(scores))
    return cls, scores


def test_range_and_mean_of_scores_are_held_against_the_release(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls, scores = as_released(data, monkeypatch)
    low, high, mean = min(scores), max(scores), sum(scores) / len(scores)
    slip = 0.003 * (high - low)
    monkeypatch.setattr(cls, "score_facts", ScoreFacts(low, high, mean + slip / 3))
    assert one(data, "bid")[0].ok
    for facts in ((low - slip, high, mean), (low, high + slip, mean), (low, high, mean + slip)):
        monkeypatch.setattr(cls, "score_facts", ScoreFacts(*facts))
        report, row = one(data, "bid")
        assert not report.ok and len(row.problems) == 1
        assert f"scores range from {low:.5g} to {high:.5g}, mean {mean:.5g}; those of the" in row.problems[0]
        assert cls.homepage in row.problems[0] and "run the wrong way" not in row.problems[0]
    monkeypatch.setattr(cls, "score_facts", None)
    assert one(data, "bid")[0].ok


def test_scores_in_the_wrong_direction_are_told_as_such(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cls, scores = as_released(data, monkeypatch)
    assert abs(np.mean(scores) - (min(scores) + max(scores)) / 2) > 0.01, "their mean is not in the middle"
    low, high, mean = (min(-x for x in scores), max(-x for x in scores), -sum(scores) / len(scores))
    monkeypatch.setattr(cls, "score_facts", ScoreFacts(low, high, mean))
    _, row = one(data, "bid")
    assert [p for p in row.problems if "they run the wrong way" in p]


def test_every_release_states_its_scores(data: Path) -> None:
    for name in registry.names("datasets"):
        cls = suites.dataset_class(name)
        facts = cls.score_facts
        assert facts is not None and facts.low < facts.mean < facts.high, name
        # what was turned over counts from its worst image, but CSIQ's from 1
        assert cls.direction == "higher" or facts.low == 0, name


@pytest.mark.parametrize("name", ["live", "csiq", "kadid10k"])
def test_real_labels_have_the_stated_scores(shared: Path, name: str) -> None:
    cls = suites.dataset_class(name)
    dataset = cls(shared / "data/original_labels" / layouts.FOLDERS[name])
    ratings = dataset.ratings()
    assert dataset.score_faults(ratings) == []
    turned = [rating._replace(score=1.7 - rating.score) for rating in ratings]
    (told,) = dataset.score_faults(turned)
    # KADID-10k's mean is .019 of its range from the middle, the tolerance is .002
    assert "run the wrong way" in told


def test_a_missing_dataset_is_a_problem_unless_it_is_not_asked_for(data: Path) -> None:
    shutil.rmtree(data / "CSIQ")
    report = check.check_data(data)
    assert not report.ok
    assert [row.cls.name for row in report.rows if row.problems] == ["csiq"]
    assert "CSIQ: not found in" in report.render()
    assert check.check_data(data, ["bid", "live"]).ok
    with pytest.raises(UserError, match="does not exist"):
        check.check_data(data / "none")
    with pytest.raises(UserError, match="unknown dataset"):
        check.check_data(data, ["csik"])


def test_missing_truncated_and_foreign_files_are_counted_and_named(data: Path) -> None:
    images = sorted((data / "koniq-10k/1024x768").iterdir())
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:200])
    images[2].write_bytes(b"")
    images[3].with_name("99.jpg").write_bytes(images[3].read_bytes())
    report, row = one(data, "koniq10k")
    assert not report.ok
    assert row.missing == [f"1024x768/{images[0].name}"]
    assert set(row.unreadable) == {f"1024x768/{p.name}" for p in images[1:3]}
    assert row.unlabelled == ["1024x768/99.jpg"]
    cells = dict(zip(check.HEADER, row.cells(), strict=True))
    assert [cells[k] for k in ("expected", "present", "unreadable", "unlabelled")] == ["20", "19", "2", "1"]
    text = report.render()
    for path in images[:3]:
        assert path.name in text
    assert "1 images without a label are left out: 1024x768/99.jpg" in text


def test_an_unlabelled_image_alone_is_no_problem(data: Path) -> None:
    layouts.write_image(data / "CSIQ/dst_imgs/contrast/elk.contrast.4.png", 7)
    report, row = one(data, "csiq")
    assert report.ok
    assert row.unlabelled == ["dst_imgs/contrast/elk.contrast.4.png"]


def test_equal_pixels_across_subsets_are_found_in_whatever_format(data: Path) -> None:
    dataset = suites.find_datasets(data, ["clive"])["clive"]
    split = seeded_split(dataset.ratings(), "clive", 1)
    train, test = ([key for key in split.keys(s) if key.endswith(".bmp")] for s in ("train", "test"))
    source = dataset.path(train[0])
    Image.open(source).save(dataset.path(test[0]), dpi=(300, 300))  # other bytes, the same pixels
    shutil.copy(source, dataset.path(train[1]))  # within train: no leak by itself
    report, row = one(data, "clive")
    assert not report.ok
    assert [sorted(keys) for keys in row.duplicates] == [sorted([train[0], train[1], test[0]])]
    assert f"{test[0]} (test)" in report.render()
    assert f"{train[0]} (train)" in report.render()


def test_equal_pixels_within_a_subset_are_no_leak(data: Path) -> None:
    dataset = suites.find_datasets(data, ["clive"])["clive"]
    split = seeded_split(dataset.ratings(), "clive", 1)
    first, second, *_ = [key for key in split.keys("train") if key.endswith(".bmp")]
    shutil.copy(dataset.path(first), dataset.path(second))
    report, row = one(data, "clive")
    assert report.ok
    assert row.duplicates == []


def test_broken_labels_stop_one_dataset_and_no_other(data: Path) -> None:
    path = data / "kadid10k/dmos.csv"
    path.write_text(path.read_text().replace(",I02.png,", ",I02.png,x", 1))
    report = check.check_data(data)
    assert [row.cls.name for row in report.rows if row.problems] == ["kadid10k"]
    assert f"{path} row 5" in report.render()
    assert all(row.pictures for row in report.rows[:5])


def test_a_broken_split_is_a_problem_of_the_dataset(data: Path) -> None:
    report = check.check_data(data, ["bid"], split=str(data))
    assert not report.ok
    assert "no split files of BID" in report.render()
    assert len(report.rows[0].pictures) == 20
    other = check.check_data(data, ["bid"], split="2").rows[0].split
    assert other is not None
    assert other.name == "seeded-2"
    assert [len(other.keys(s)) for s in SUBSETS] == [14, 2, 4]


def test_sizes_and_variant_are_shown(data: Path) -> None:
    folder = data / "koniq-10k"
    (folder / "1024x768").rename(folder / "512x384")
    layouts.write_image(sorted((folder / "512x384").iterdir())[0], 1, size=(10, 20))
    report, row = one(data, "koniq10k")
    assert report.ok
    assert row.cells()[check.HEADER.index("sizes")] == "12x9..10x20 (2)"
    assert "512x384 release" in report.render()
    assert check.sizes(set()) == "-"


def test_every_broken_row_is_told_in_one_pass_and_images_are_decoded_all_the_same(data: Path) -> None:
    path = data / "kadid10k/dmos.csv"
    lines = path.read_text().splitlines()
    name = lines[7].split(",")[0]
    lines[1] = lines[1].replace(",I01.png", ",I02.png")
    lines[2] += ",1"
    lines[3] = lines[3].rsplit(",", 1)[0] + ",nan"
    path.write_text("\n".join(lines))
    (data / f"kadid10k/images/{name}").write_bytes(b"")
    report, row = one(data, "kadid10k")
    told = "\n".join(row.problems)
    for number, what in ((2, "column 'ref_img'"), (3, "has 5 cells"), (4, "column 'var' holds 'nan'")):
        assert f"{path} row {number}" in told and what in told
    assert f"{name} is empty" in told
    assert not report.ok


def test_problems_of_a_kind_are_listed_up_to_a_number_and_counted(data: Path) -> None:
    path = data / "kadid10k/dmos.csv"
    path.write_text(path.read_text().replace(".png,I", ".jpg,I"))
    _, row = one(data, "kadid10k")
    assert len(row.problems) == check.SHOWN + 1
    assert row.problems[-1] == "and 10 more problems of the labels"


def test_a_broken_split_a_link_and_a_large_image_are_told_together(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    dataset = suites.find_datasets(data, ["bid"])["bid"]
    keys = [rating.key for rating in dataset.ratings()]
    folder.mkdir()
    (folder / "bid_train_score.txt").write_text(f"{keys[0]}\t1\t0\n/etc/passwd\t1\t0\n../{keys[1]}\t1\t0\n")
    (folder / "bid_val.txt").write_text(f"{keys[0]}\t1\t0\n")
    (folder / "bid_test.txt").write_text(f"{keys[2]}\t1_0\t0\n")
    outside = data / "outside.JPG"
    (dataset.root / keys[3]).rename(outside)
    (dataset.root / keys[3]).symlink_to(outside)
    Image.new("RGB", (1200, 900)).save(dataset.root / keys[4])
    row = check.check_data(data, ["bid"], str(folder), max_megapixels=1).rows[0]
    told = "\n".join(row.problems)
    for words in (
        "row 2 names '/etc/passwd', which is not an image of BID",
        f"row 3 names '../{keys[1]}'",
        f"{keys[0]} appears in two subsets: bid_train_score.txt row 1 and bid_val.txt row 1",
        "holds '1_0' where the score should be",
        "18 images are in no subset",
        "the subset val is empty",
        f"{keys[3]} points outside the dataset, to {outside}",
        f"1 rated images are missing: {keys[3]}",
        f"{keys[4]} has 1200 x 900 pixels, more than 1 megapixels",
    ):
        assert words in told
    with pytest.raises(UserError, match=r"BID: the link .* points outside the dataset"):
        dataset.verify_files()


def test_a_link_of_the_whole_dataset_is_the_dataset(data: Path) -> None:
    (data / "CSIQ").rename(data / "elsewhere")
    (data / "CSIQ").symlink_to(data / "elsewhere")
    assert check.check_data(data, ["csiq"]).ok


def test_a_linked_folder_of_images_or_label_file_is_told(data: Path) -> None:
    (data / "CSIQ/dst_imgs").rename(data / "images")
    (data / "CSIQ/dst_imgs").symlink_to(data / "images")
    (data / "kadid10k/dmos.csv").rename(data / "dmos.csv")
    (data / "kadid10k/dmos.csv").symlink_to(data / "dmos.csv")
    text = check.check_data(data, ["csiq", "kadid10k"]).render()
    assert f"the link {data / 'CSIQ/dst_imgs'} points outside the dataset" in text
    assert f"{data / 'kadid10k/dmos.csv'} points outside the dataset" in text


def test_a_broken_description_of_generated_data_is_one_problem(data: Path) -> None:
    (data / "CSIQ/generated.json").write_text("[" * 100_000)
    report = check.check_data(data, ["csiq", "bid"])
    assert [bool(row.problems) for row in report.rows] == [True, False]
    assert "generated.json" in report.render()


def of_koniq(data: Path) -> tuple[Path, str]:
    """Returns the folder of KonIQ's images, and the name of a rated one."""
    (dataset,) = suites.find_datasets(data, ["koniq10k"]).values()
    path = dataset.path(dataset.ratings()[3].key)
    return path.parent, path.name


def test_of_names_that_differ_in_case_the_exact_one_is_read(data: Path) -> None:
    folder, name = of_koniq(data)
    Image.new("RGB", (12, 9), "red").save(folder / "twin.png")
    (folder / "twin.png").rename(folder / name.upper())
    if (
        not (folder / name).exists()
        or len([p for p in folder.iterdir() if p.name.lower() == name.lower()]) < 2
    ):
        pytest.skip("this disk does not tell cases apart")
    (dataset,) = suites.find_datasets(data, ["koniq10k"]).values()
    assert dataset.path(dataset.ratings()[3].key).name == name
    report, row = one(data, "koniq10k")
    assert report.ok
    (note,) = [note for note in row.notes if "differs only in case" in note]
    assert note.startswith(f"reading {folder.name}/{name}, not {folder.name}/{name.upper()}, ")


def test_of_names_that_all_differ_none_is_guessed(data: Path) -> None:
    folder, name = of_koniq(data)
    stem, suffix = name.split(".")
    (folder / name).rename(folder / name.upper())
    shutil.copy(folder / name.upper(), folder / f"{stem}.{suffix.title()}")
    if len([p for p in folder.iterdir() if p.name.lower() == name.lower()]) < 2:
        pytest.skip("this disk does not tell cases apart")
    (dataset,) = suites.find_datasets(data, ["koniq10k"]).values()
    key = dataset.ratings()[3].key
    said = f"image {key} could be .* or .*, which differ only in case; rename the right one to .*{name}"
    with pytest.raises(UserError, match=said):
        dataset.path(key)
    with pytest.raises(UserError, match=said):
        dataset.verify_files()
    report, row = one(data, "koniq10k")
    assert not report.ok
    assert [p for p in row.problems if "differ only in case" in p]


def test_what_should_be_known_of_a_picture_is_a_note(data: Path) -> None:
    dark = Image.fromarray(np.full((9, 12), 4000, np.uint16))
    (dataset,) = suites.find_datasets(data, ["csiq"]).values()
    path = dataset.path(dataset.ratings()[0].key)
    assert path.suffix == ".png"
    dark.save(path)
    _, row = one(data, "csiq")
    said = f"{dataset.ratings()[0].key} has 16 bits but uses only the lowest 12: it was read as nearly black"
    assert said in row.notes
