"""The six datasets: real label files row by row, the authors' layouts, and every known trap."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import openpyxl
import pytest
import scipy.io
from broken_labels import assert_refused, edit

from cliqa_bench.benchmarks import suites
from cliqa_bench.benchmarks.base import Dataset, content
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry

NAMES = tuple(layouts.WRITERS)


def opened(root: Path, name: str) -> Dataset:
    return suites.find_datasets(root, [name])[name]


def made(tmp_path: Path, name: str, **options: Any) -> tuple[Dataset, layouts.Truth]:
    truth = layouts.WRITERS[name](tmp_path / layouts.FOLDERS[name], **options)
    return opened(tmp_path, name), truth


def assert_told(dataset: Dataset, *words: str) -> None:
    assert_refused(dataset.ratings, *words)


# --- the real label files


@pytest.mark.parametrize(("name", "tolerance"), [("live", 1e-6), ("csiq", 5.01e-4), ("kadid10k", 1e-9)])
def test_real_label_files_agree_row_by_row_with_the_published_numbers(
    shared: Path, name: str, tolerance: float
) -> None:
    with (shared / "data/labels" / f"{name}.tsv").open() as file:
        truth = {row["path"]: row for row in csv.DictReader(file, delimiter="\t")}
    dataset = opened(shared / "data/original_labels", name)
    ratings = dataset.ratings()
    assert len(ratings) == len(truth) == dataset.n_images
    # KADID's published std is the square root of the column, CSIQ's is wrong in the test set
    std = {"live": "std", "csiq": "std_corrected", "kadid10k": "author_var_column"}[name]
    for rating in ratings:
        row = truth.pop(rating.key)
        assert abs(rating.score - float(row["score"])) <= tolerance, rating
        assert abs(rating.std - float(row[std])) <= tolerance, rating
        assert rating.group is not None
        assert content(rating.group) == content(row["ref"]), rating
    assert not truth


def test_full_precision_of_the_authors_is_kept(shared: Path) -> None:
    for name, column in (("live", "author_dmos_new"), ("csiq", "author_dmos")):
        with (shared / "data/labels" / f"{name}.tsv").open() as file:
            dmos = {row["path"]: float(row[column]) for row in csv.DictReader(file, delimiter="\t")}
        top = max(dmos.values()) if name == "live" else 1.0
        for rating in opened(shared / "data/original_labels", name).ratings():
            assert rating.score == pytest.approx(top - dmos[rating.key], abs=1e-13)


def test_distortions_of_the_real_datasets(shared: Path) -> None:
    labels = shared / "data/original_labels"
    live = Counter(r.distortion for r in opened(labels, "live").ratings())
    assert live == {
        "JPEG2000": 169,
        "JPEG": 175,
        "white noise": 145,
        "Gaussian blur": 145,
        "fast fading": 145,
    }
    csiq = Counter(r.distortion for r in opened(labels, "csiq").ratings())
    assert csiq == {k: 116 if k == "contrast" else 150 for k in layouts.CSIQ_TYPES}
    kadid = Counter(r.distortion for r in opened(labels, "kadid10k").ratings())
    assert len(kadid) == 25
    assert set(kadid.values()) == {405}
    # the numbers of the types as kadid10k's own page lists them
    numbered = {
        "01": "gaussian blur",
        "09": "JPEG2000",
        "10": "JPEG",
        "11": "white noise",
        "25": "contrast change",
    }
    of = {r.key: r.distortion for r in opened(labels, "kadid10k").ratings()}
    assert {number: of[f"images/I07_{number}_03.png"] for number in numbered} == numbered


@pytest.mark.parametrize("name", ["live", "csiq", "kadid10k"])
def test_labels_that_are_not_the_releases_are_told(shared: Path, name: str) -> None:
    dataset = opened(shared / "data/original_labels", name)
    ratings = dataset.ratings()
    assert dataset.as_released(ratings) and dataset.as_released(ratings[::-1])
    one, two, *rest = ratings
    assert not dataset.as_released([one._replace(score=two.score), two._replace(score=one.score), *rest])
    assert not dataset.as_released([one._replace(score=one.score + 0.01), two, *rest])
    assert not dataset.as_released([one._replace(group=rest[-1].group), two, *rest])
    assert not dataset.as_released([two, *rest])


def test_facts_agree_with_table_two(shared: Path) -> None:
    with (shared / "data/paper_tables/table_II.csv").open() as file:
        published = list(csv.DictReader(file))
    for name in NAMES:
        cls = suites.dataset_class(name)
        values = {row["metric"]: row["value"] for row in published if row["test_dataset"] == cls.title}
        assert cls.n_images == int(values["n_images"])
        assert cls.n_pairs_paper == int(values["n_training_pairs"])


# --- the authors' layouts


@pytest.mark.parametrize("name", NAMES)
def test_a_tree_in_the_authors_layout_is_read(tmp_path: Path, name: str) -> None:
    dataset, truth = made(tmp_path, name)
    ratings = dataset.ratings()
    assert [r.key for r in ratings] == list(truth), "order of the label file"
    for rating in ratings:
        score, std, group = truth[rating.key]
        assert rating.score == pytest.approx(score, abs=1e-12)
        assert rating.std == pytest.approx(std, abs=1e-12)
        assert rating.group == group
        assert type(rating.score) is float
        assert type(rating.std) is float
        assert dataset.path(rating.key) == dataset.root / rating.key
        assert dataset.path(rating.key).is_file()
    dataset.verify_files()
    assert dataset.unlabelled_files() == []
    assert {r.distortion for r in ratings} == {"authentic"} or dataset.n_groups is not None


def test_synthetic_files_of_full_size_pass_without_a_description(tmp_path: Path) -> None:
    full: dict[str, dict[str, Any]] = {
        "live": {"blocks": layouts.LIVE_BLOCKS, "n_refs": 29},
        "bid": {"n": 586},
        "clive": {"n": 1162},
        "koniq10k": {"n": 10073},
    }
    for name, options in full.items():
        dataset, truth = made(tmp_path, name, images=False, **options)
        assert dataset.generated is None
        assert {r.key: r.score for r in dataset.ratings()} == pytest.approx(
            {k: v[0] for k, v in truth.items()}
        )


@pytest.mark.parametrize("name", NAMES)
def test_without_a_description_the_real_number_of_images_is_expected(tmp_path: Path, name: str) -> None:
    dataset, _ = made(tmp_path, name, images=False)
    (dataset.root / "generated.json").unlink()
    assert_told(opened(tmp_path, name), str(dataset.root), "expected")


@pytest.mark.parametrize("name", NAMES)
def test_half_a_dataset_is_told_before_any_image_is_opened(tmp_path: Path, name: str) -> None:
    dataset, truth = made(tmp_path, name)
    keys = list(truth)
    for key in (keys[3], keys[1]):
        (dataset.root / key).unlink()
    fresh = opened(tmp_path, name)
    assert fresh.missing_files() == [keys[1], keys[3]]
    with pytest.raises(UserError, match=f"2 of {len(keys)} rated images are missing in .*, first {keys[1]}"):
        fresh.verify_files()
    with pytest.raises(UserError, match=f"{keys[3]} is missing"):
        fresh.path(keys[3])
    fresh.verify_files(fresh.ratings()[4:])


@pytest.mark.parametrize("name", NAMES)
def test_files_are_found_whatever_the_case(tmp_path: Path, name: str) -> None:
    dataset, truth = made(tmp_path, name)
    for key in truth:
        path = dataset.root / key
        path.rename(path.with_name(path.name.swapcase()))
    fresh = opened(tmp_path, name)
    fresh.verify_files()
    key = next(iter(truth))
    assert fresh.path(key).name == Path(key).name.swapcase()


@pytest.mark.parametrize("name", NAMES)
def test_no_label_file_says_where_it_is_had(tmp_path: Path, name: str) -> None:
    (tmp_path / layouts.FOLDERS[name]).mkdir()
    dataset = opened(tmp_path, name)
    assert_told(dataset, str(dataset.root), dataset.homepage)


@pytest.mark.parametrize("name", NAMES)
def test_a_nested_archive_is_entered(tmp_path: Path, name: str) -> None:
    inner = layouts.FOLDERS[name]
    truth = layouts.WRITERS[name](tmp_path / inner / inner)
    dataset = opened(tmp_path, name)
    assert dataset.root == tmp_path / inner / inner
    assert len(dataset.ratings()) == len(truth)


def test_a_broken_description_is_told(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "bid", images=False)
    (dataset.root / "generated.json").write_text("{}")
    assert_told(opened(tmp_path, "bid"), "generated.json")


# --- LIVE


def change_mat(path: Path, **variables: Any) -> None:
    old = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    scipy.io.savemat(path, old | variables)


def test_live_without_the_realigned_scores_says_where_they_are_had(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "live", images=False)
    path = dataset.root / "dmos_realigned.mat"
    path.rename(path.with_name("dmos.mat"))
    assert_told(opened(tmp_path, "live"), "dmos_realigned.mat", "Update to Release 2", dataset.homepage)


def test_live_copies_that_go_round_are_refused(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "live", images=False)
    path, n = dataset.root / "dmos_realigned.mat", dataset.expected_images
    orgs = scipy.io.loadmat(path)["orgs"]
    change_mat(path, orgs=np.zeros((1, n)))
    assert_told(opened(tmp_path, "live"), "orgs has shape", f"expected 1x{orgs.size}")
    change_mat(path, orgs=np.zeros_like(orgs))
    assert_told(opened(tmp_path, "live"), "orgs marks 0 reference copies, expected 56")
    change_mat(path, orgs=np.roll(orgs, 1))
    assert_told(opened(tmp_path, "live"), "a reference copy has DMOS 0")
    dmos = scipy.io.loadmat(path)["dmos_new"]
    first = int(np.flatnonzero(orgs[0] == 0)[0])
    changed = dmos.copy()
    changed[0, first] = 0
    change_mat(path, orgs=orgs, dmos_new=changed)
    assert_told(opened(tmp_path, "live"), f"entry {first + 1} has dmos_new 0 but orgs 0")
    change_mat(path, dmos_new=dmos)
    change_mat(path, orgs=orgs, dmos_std=np.full(orgs.shape, np.nan))
    assert_told(opened(tmp_path, "live"), "dmos_std entry 1 (jp2k/img1.bmp) is nan")
    change_mat(path, dmos_std=np.full(orgs.shape, -1.0))
    assert_told(opened(tmp_path, "live"), "dmos_std entry 1 (jp2k/img1.bmp) is -1")


def test_live_references_in_another_order_are_refused(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "live", images=False, blocks=layouts.LIVE_BLOCKS, n_refs=29)
    path = dataset.root / "refnames_all.mat"
    refs = scipy.io.loadmat(path)["refnames_all"]
    by_name = sorted(str(cell.item()) for cell in refs.ravel())
    scipy.io.savemat(path, {"refnames_all": layouts.cells(by_name)})
    assert_told(opened(tmp_path, "live"), str(path), "not in the order of the images")
    scipy.io.savemat(path, {"refnames_all": refs[:, :779]})
    assert_told(opened(tmp_path, "live"), "shape 1x779, expected 982 cells")


def test_live_folder_blur_and_missing_copies(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "live")
    (dataset.root / "gblur").rename(dataset.root / "blur")
    layouts.write_image(dataset.root / "jp2k/img999.bmp", 1)
    fresh = opened(tmp_path, "live")
    fresh.verify_files()
    key = next(k for k in truth if k.startswith("gblur/"))
    assert fresh.path(key) == dataset.root / key.replace("gblur", "blur")
    assert fresh.unlabelled_files() == ["jp2k/img999.bmp"]


# --- CSIQ


@pytest.mark.parametrize("layout", ["flat", "upper"])
def test_csiq_derived_layouts(tmp_path: Path, layout: str) -> None:
    dataset, truth = made(tmp_path, "csiq")
    if layout == "flat":
        (dataset.root / "dst_imgs_all").mkdir()
        for key in truth:
            (dataset.root / key).rename(dataset.root / "dst_imgs_all" / Path(key).name)
    else:
        for folder in ("awgn", "blur", "jpeg"):
            (dataset.root / "dst_imgs" / folder).rename(dataset.root / "dst_imgs" / folder.upper())
    opened(tmp_path, "csiq").verify_files()


def change_csiq(root: Path, row: int, column: str, value: object) -> None:
    book = openpyxl.load_workbook(root / "csiq.DMOS.xlsx")
    book["all_by_image"][f"{column}{row}"] = value
    book.save(root / "csiq.DMOS.xlsx")


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [
        (9, "I", "n/a", ["row 9", "'dmos' holds 'n/a'", "from 0 to 1"]),
        (9, "I", 1.2, ["row 9", "'dmos' holds 1.2"]),
        (9, "H", None, ["row 9", "'dmos_std' is empty"]),
        (9, "F", "fog", ["row 9", "'dst_type' holds 'fog'", "jpeg 2000"]),
        (9, "G", 6, ["row 9", "'dst_lev'"]),
        (4, "I", "score", ["no column 'dmos'"]),
        (6, "F", "noise", ["row 6 rates dst_imgs/awgn/1600.AWGN.1.png a second time", "row 5"]),
    ],
)
def test_csiq_broken_rows(tmp_path: Path, row: int, column: str, value: object, words: list[str]) -> None:
    dataset, _ = made(tmp_path, "csiq", images=False)
    change_csiq(dataset.root, row, column, value)
    assert_told(opened(tmp_path, "csiq"), "csiq.DMOS.xlsx", *words)


# --- BID


def test_bid_images_and_labels_beside_each_other(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "bid")
    for key in truth:
        (dataset.root / key).rename(dataset.root / Path(key).name)
    opened(tmp_path, "bid").verify_files()
    (dataset.root / "DatabaseGrades.xls").rename(dataset.root / "ImageDatabase/databasegrades.XLS")
    assert len(opened(tmp_path, "bid").ratings()) == len(truth)


def test_bid_needs_grades(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "bid", images=False)
    book = openpyxl.Workbook()
    header = ["Image Number", "Average Subjective Grade", "Number of Grades"]
    header += [f"Grade #{i}" for i in range(1, 21)]
    for row in (header, [1, 3.0, 2, 2.5, 3.5], [2, 4.0, 1, 4.0]):
        book.active.append(row)
    (dataset.root / "DatabaseGrades.xls").unlink()
    book.save(dataset.root / "DatabaseGrades.xlsx")
    assert_told(opened(tmp_path, "bid"), "row 3", "at least two grades")


# --- LIVE Challenge


def test_clive_practice_images_are_checked_by_name_and_place(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "clive", images=False)
    path = dataset.root / "Data/AllImages_release.mat"
    names = scipy.io.loadmat(path)["AllImages_release"]
    scipy.io.savemat(path, {"AllImages_release": np.roll(names, 1, axis=0)})
    assert_told(opened(tmp_path, "clive"), str(path), "must be entries 1 to 7", "2, 3, 4")
    scipy.io.savemat(path, {"AllImages_release": names[7:]})
    assert_told(opened(tmp_path, "clive"), "shape 20x1, expected 27 cells")


def test_clive_out_of_range_and_other_cases(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "clive")
    (dataset.root / "Images").rename(dataset.root / "images")
    (dataset.root / "Data").rename(dataset.root / "data")
    fresh = opened(tmp_path, "clive")
    fresh.verify_files()
    assert fresh.unlabelled_files() == []
    path = dataset.root / "data/AllMOS_release.mat"
    mos = scipy.io.loadmat(path)["AllMOS_release"]
    mos[0, 8] = 101
    scipy.io.savemat(path, {"AllMOS_release": mos})
    assert_told(opened(tmp_path, "clive"), "entry 9", Path(list(truth)[1]).name, "from 0 to 100")


# --- KonIQ-10k


def test_koniq_both_label_files_give_the_same_scores(tmp_path: Path) -> None:
    counts, _ = made(tmp_path / "a", "koniq10k", images=False)
    fractions, _ = made(tmp_path / "b", "koniq10k", images=False, fractions=True)
    for one, other in zip(counts.ratings(), fractions.ratings(), strict=True):
        assert one.key == other.key
        assert one.score == pytest.approx(other.score, abs=1e-12)
        assert 1 <= one.score <= 5
        assert one.std == other.std


def test_koniq_mos_that_is_not_that_of_the_votes_is_refused(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "koniq10k", images=False)
    path = dataset.root / "koniq10k_scores_and_distributions.csv"
    first = next(iter(truth.values()))[0]
    edit(path, repr(first), repr(first * 20))
    assert_told(opened(tmp_path, "koniq10k"), f"{path} row 2", "'MOS'", "from 1 to 5")
    edit(path, repr(first * 20), "4.999")
    assert_told(opened(tmp_path, "koniq10k"), "row 2", "the mean of the votes")


def test_koniq_half_size_is_accepted_and_recorded(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "koniq10k")
    assert dataset.variant == ""
    shutil.copytree(dataset.root / "1024x768", dataset.root / "512x384")
    both = opened(tmp_path, "koniq10k")
    assert both.variant == ""
    assert both.unlabelled_files() == []
    shutil.rmtree(dataset.root / "1024x768")
    half = opened(tmp_path, "koniq10k")
    half.verify_files()
    assert half.variant == "512x384"
    assert half.path(next(iter(truth))).parent.name == "512x384"


# --- KADID-10k


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("I01_10_01.png,I01.png", "I01_10_01.png,I02.png", ["row 3", "'ref_img'", "I01.png"]),
        ("I01_10_01.png", "I01_26_01.png", ["row 3", "'dist_img'", "01 to 25"]),
        ("I01_10_01.png", "I01_01_01.png", ["row 3 rates images/I01_01_01.png a second time", "row 2"]),
        ("dmos,var", "dmos", ["no column 'var'"]),
        ("I02_01_01.png,I02.png,", "I02_01_01.png,I02.png,x", ["row 5", "'dmos' holds 'x"]),
        ("I02_01_01.png,I02.png,", "I02_01_01.png,I02.png,nan,", ["row 5", "has 5 cells"]),
    ],
)
def test_kadid_broken_rows(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    dataset, _ = made(tmp_path, "kadid10k", images=False)
    edit(dataset.root / "dmos.csv", old, new)
    assert_told(opened(tmp_path, "kadid10k"), "dmos.csv", *words)


def test_a_row_that_is_rated_twice_is_told_beside_one_that_cannot_be_read(tmp_path: Path) -> None:
    dataset, _ = made(tmp_path, "kadid10k", images=False)
    path = dataset.root / "dmos.csv"
    edit(path, "I02_01_01.png,I02.png,", "I02_01_01.png,I02.png,x")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1]]))
    with pytest.raises(UserError) as told:
        opened(tmp_path, "kadid10k").ratings()
    first, second = map(str, told.value.each)
    assert "row 5" in first and "a second time, the first is" in second


def test_kadid_a_missing_row_and_a_missing_reference_are_told(tmp_path: Path) -> None:
    dataset, truth = made(tmp_path, "kadid10k", images=False)
    path = dataset.root / "dmos.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert_told(
        opened(tmp_path, "kadid10k"), str(path), f"rates {len(truth) - 1} images, expected {len(truth)}"
    )
    path.write_text("".join([*lines[:-3], *(line.replace("_01.png", "_02.png") for line in lines[1:4])]))
    assert_told(opened(tmp_path, "kadid10k"), "rates images of 9 references, expected 10")


# --- suites


def test_orders_are_those_of_the_paper() -> None:
    assert {label: " ".join(order) for label, order in suites.ORDERS.items()} == {
        "I": "live csiq bid clive koniq10k kadid10k",
        "II": "live bid csiq clive kadid10k koniq10k",
        "III": "live csiq kadid10k bid clive koniq10k",
        "IV": "bid clive koniq10k live csiq kadid10k",
        "V": "kadid10k koniq10k clive bid csiq live",
        "VI": "koniq10k kadid10k clive csiq bid live",
        "VII": "koniq10k clive bid kadid10k csiq live",
        "VIII": "kadid10k csiq live koniq10k clive bid",
    }
    assert list(suites.ORDERS) == ["I", "II", "III", "IV", "V", "VI", "VII", "VIII"]
    assert all(sorted(order) == sorted(NAMES) for order in suites.ORDERS.values())
    assert len(set(suites.ORDERS.values())) == 8
    assert set(NAMES) < set(registry.names("datasets"))


def test_parse_orders() -> None:
    assert suites.parse_orders("all") == {label: list(order) for label, order in suites.ORDERS.items()}
    assert list(suites.parse_orders(" iii, V")) == ["III", "V"]
    assert suites.parse_orders("bid, LIVE,kadid10k") == {"bid,live,kadid10k": ["bid", "live", "kadid10k"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("IX", "unknown order or dataset 'IX'.*VIII"),
        ("live,cisq", "'cisq' .did you mean 'csiq'"),
        ("I,live", "mix 'I' with other names"),
        ("live,bid,live", "names live twice"),
        (" , ", "no orders given"),
    ],
)
def test_parse_orders_faults(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        suites.parse_orders(text)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("live", "LIVE"), ("csiq", "csiq"), ("clive", "CLIVE"), ("clive", "LIVEC"), ("bid", "bid"),
        ("clive", "challengedb_RELEASE"), ("koniq10k", "KonIQ10k"), ("koniq10k", "koniq_10k"),
        ("kadid10k", "KADID-10k"),
    ],
)  # fmt: skip
def test_usual_folder_names(tmp_path: Path, name: str, folder: str) -> None:
    layouts.WRITERS[name](tmp_path / folder, images=False)
    assert opened(tmp_path, name).root == tmp_path / folder
    assert opened(tmp_path / folder, name).root == tmp_path / folder, "the dataset's own folder"
    assert opened(tmp_path, name).ratings()


def test_missing_datasets_are_told_all_at_once(tmp_path: Path) -> None:
    layouts.write_bid(tmp_path / "BID", images=False)
    with pytest.raises(UserError, match=r"LIVE: databaserelease2.*CSIQ: CSIQ.*found: BID"):
        suites.find_datasets(tmp_path, ["live", "bid", "csiq"])
    with pytest.raises(UserError, match="does not exist"):
        suites.find_datasets(tmp_path / "none", ["live"])
    with pytest.raises(UserError, match=r"unknown dataset 'liv'.*did you mean 'live'"):
        suites.find_datasets(tmp_path, ["liv"])


def test_the_authors_folder_name_wins(tmp_path: Path) -> None:
    write: Callable[..., layouts.Truth] = layouts.write_live
    for folder in ("LIVE", "databaserelease2"):
        write(tmp_path / folder, images=False)
    assert opened(tmp_path, "live").root.name == "databaserelease2"


def test_finding_datasets_imports_nothing_heavy() -> None:
    code = (
        "import sys; from cliqa_bench.benchmarks import suites; "
        "[suites.dataset_class(n) for n in suites.ORDERS['I']]; "
        "print([m for m in ('torch', 'scipy', 'pandas', 'openpyxl', 'PIL', 'avalanche') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
