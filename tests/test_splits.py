"""Seeded splits and published split files."""

from __future__ import annotations

import csv
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import layouts
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from cliqa_bench.benchmarks import splits, suites
from cliqa_bench.benchmarks.base import Dataset, content
from cliqa_bench.errors import UserError
from cliqa_bench.types import SUBSETS, Rating, Subset


def images(n: int) -> list[Rating]:
    return [Rating(f"{i}.png", float(i), 0.5, None, "authentic") for i in range(n)]


def of_groups(counts: Sequence[int]) -> list[Rating]:
    return [
        Rating(f"{g}_{i}.png", g + i / 100, 0.1, f"Ref{g}.BMP", "blur")
        for g, count in enumerate(counts)
        for i in range(count)
    ]


def sizes(split: splits.Split) -> tuple[int, ...]:
    return tuple(len(split.keys(subset)) for subset in SUBSETS)


def groups(split: splits.Split, ratings: Sequence[Rating]) -> dict[Subset, set[str]]:
    return {s: {content(r.group or "") for r in ratings if split.subset[r.key] == s} for s in SUBSETS}


# --- seeded


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (586, (410, 59, 117)),
        (1162, (813, 117, 232)),
        (10073, (7051, 1007, 2015)),
        (10, (7, 1, 2)),
        (3, (1, 1, 1)),
    ],
)
def test_images_are_split_70_10_20(n: int, expected: tuple[int, ...]) -> None:
    assert sizes(splits.seeded_split(images(n), "bid", 1)) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("live", (20, 3, 6)), ("csiq", (21, 3, 6)), ("kadid10k", (57, 8, 16))]
)
def test_references_of_the_real_datasets_are_split_as_in_the_published_files(
    shared: Path, name: str, expected: tuple[int, ...]
) -> None:
    ratings = suites.find_datasets(shared / "data/original_labels", [name])[name].ratings()
    for number in range(1, 6):
        split = splits.seeded_split(ratings, name, number)
        apart = groups(split, ratings)
        assert tuple(len(apart[s]) for s in SUBSETS) == expected
        assert not apart["train"] & apart["val"]
        assert not apart["train"] & apart["test"]
        assert not apart["val"] & apart["test"]


@given(st.lists(st.integers(1, 30), min_size=3, max_size=40), st.integers(1, 100))
def test_a_split_places_every_image_and_tears_no_reference_apart(counts: list[int], number: int) -> None:
    ratings = of_groups(counts)
    split = splits.seeded_split(ratings, "csiq", number)
    assert list(split.subset) == [r.key for r in ratings], "rating order"
    assert min(sizes(split)) >= 1
    assert sum(len(g) for g in groups(split, ratings).values()) == len(counts)


@given(st.lists(st.integers(6, 10), min_size=17, max_size=40), st.integers(1, 100))
def test_the_end_of_a_subset_is_at_most_half_a_reference_off(counts: list[int], number: int) -> None:
    ratings = of_groups(counts)
    assert max(counts) <= 0.1 * len(ratings), "no subset must end elsewhere to leave the others something"
    train, val, _ = sizes(splits.seeded_split(ratings, "csiq", number))
    assert abs(train - 0.7 * len(ratings)) <= max(counts) / 2 + 1e-9
    assert abs(train + val - 0.8 * len(ratings)) <= max(counts) + 1e-9


def test_a_split_is_a_function_of_names_alone() -> None:
    ratings = of_groups([3] * 12)
    one = splits.seeded_split(ratings, "live", 1)
    again = splits.seeded_split(ratings[::-1], "live", 1)
    assert one.subset == again.subset
    assert one.fingerprint == again.fingerprint
    assert one.name == "seeded-1"
    others = [splits.seeded_split(ratings, name, k) for name, k in (("live", 2), ("live", 3), ("csiq", 1))]
    assert len({tuple(sorted(s.subset.items())) for s in [one, *others]}) == 4


def test_reference_names_count_by_content() -> None:
    ratings = of_groups([4] * 6)
    mixed = [r._replace(group=f"refimgs/{r.group}".lower()) if i % 2 else r for i, r in enumerate(ratings)]
    assert splits.seeded_split(mixed, "x", 1).subset == splits.seeded_split(ratings, "x", 1).subset
    assert content("sunset.v2") == "sunset.v2"
    assert content("I01.png") == content("i01.BMP") == "i01"


def test_the_fingerprint_notices_everything_that_changes_numbers() -> None:
    ratings = of_groups([2] * 5)
    subset = splits.seeded_split(ratings, "x", 1).subset
    first = ratings[0]
    changed = [
        [first._replace(score=first.score + 1e-12), *ratings[1:]],
        [first._replace(std=0.2), *ratings[1:]],
        [*ratings[:1], ratings[1]._replace(group="other"), *ratings[2:]],
    ]
    moved: dict[str, Subset] = subset | {first.key: "val" if subset[first.key] != "val" else "test"}
    prints = [splits.make_split("a", r, subset).fingerprint for r in (ratings, *changed)]
    prints.append(splits.make_split("a", ratings, moved).fingerprint)
    assert len(set(prints)) == 5
    assert splits.make_split("b", ratings[::-1], subset).fingerprint == prints[0]
    assert all(len(p) == 64 for p in prints)


def test_too_few_contents_and_wrong_numbers_are_told() -> None:
    with pytest.raises(UserError, match="x has 2 separate contents"):
        splits.seeded_split(of_groups([50, 50]), "x", 1)
    with pytest.raises(UserError, match="split 0 does not exist"):
        splits.seeded_split(images(9), "x", 0)


# --- the published files


@pytest.mark.parametrize(
    ("folder", "name", "spec", "expected"),
    [
        ("live_tsn", "live", "live_tsn/1", (538, 81, 160)),
        ("csiq_tsn", "csiq", "csiq_tsn", (607, 87, 172)),
        ("kadid10k_liqe", "kadid10k", "kadid10k_liqe/1", (7125, 1000, 2000)),
        ("kadid10k_liqe", "kadid10k", "kadid10k_liqe#2", (7125, 1000, 2000)),
    ],
)
def test_published_splits_are_read_whole(
    shared: Path, folder: str, name: str, spec: str, expected: tuple[int, ...]
) -> None:
    dataset = suites.find_datasets(shared / "data/original_labels", [name])[name]
    ratings = dataset.ratings()
    split = splits.resolve_split(str(shared / "data/splits" / spec), dataset, ratings)
    assert sizes(split) == expected and not split.note
    number = "2" if spec.endswith("2") else "1"
    assert split.name == f"{folder.split('_')[1]}-{number}"
    if number == "1":
        with (shared / "data/labels" / f"{name}.tsv").open() as file:
            truth = {row["path"]: row["split"] for row in csv.DictReader(file, delimiter="\t")}
        assert split.subset == truth


@pytest.fixture
def kadid(tmp_path: Path) -> Dataset:
    layouts.write_kadid10k(tmp_path / "kadid10k", images=False)
    return suites.find_datasets(tmp_path, ["kadid10k"])["kadid10k"]


def publish(folder: Path, dataset: Dataset, kind: str = "tsn") -> Path:
    """Writes the seeded split 7 as published files."""
    ratings = dataset.ratings()
    split = splits.seeded_split(ratings, dataset.name, 7)
    folder.mkdir(parents=True)
    for subset in SUBSETS:
        rows = [r for r in ratings if split.subset[r.key] == subset]
        if kind == "tsn":
            name = f"{dataset.name}_{'train_score' if subset == 'train' else subset}.txt"
            text = "".join(f"{r.key}\t{r.score:f}\t{r.std:f}\r" for r in rows)
        else:
            name = f"{dataset.name}_{subset}_clip.txt"
            text = "".join(f"{r.key}\t{r.score}\tblur\thuman\tinvalid\tinvalid\n" for r in rows)
        (folder / name).write_bytes(text.encode())
    (folder / f"{dataset.name}_train.txt").write_bytes(b"a\tb\t0.5\t1\t1\t1\r")  # pairs: not for us
    return folder


@pytest.mark.parametrize("kind", ["tsn", "liqe"])
@pytest.mark.parametrize(
    ("place", "spec"),
    [
        ("files", "files"),
        ("1", ""),
        ("3", "#3"),
        ("kadid10k/splits2/1", ""),
        ("kadid10k/splits2/2", "#2"),
        ("kadid10k/splits2/2", "kadid10k/splits2/2"),
        ("kadid10k/splits2/1", "kadid10k"),
        ("IQA_Database/kadid10k/splits2/1", ""),
        ("KADID-10K/splits2/1", ""),
    ],
)
def test_published_trees(tmp_path: Path, kadid: Dataset, kind: str, place: str, spec: str) -> None:
    tree = tmp_path / "published"
    folder = publish(tree / place, kadid, kind)
    (tree / "kadid10k").mkdir(exist_ok=True)
    (tree / "kadid10k" / "kadid10k_val_clip.txt").write_text("stray\t1\tx\n")
    ratings = kadid.ratings()
    root = f"{tree}{spec}" if spec.startswith("#") else str(tree / spec)
    split = splits.resolve_split(root, kadid, ratings)
    assert split.subset == splits.seeded_split(ratings, "kadid10k", 7).subset
    assert split.fingerprint == splits.seeded_split(ratings, "kadid10k", 7).fingerprint
    assert split.name == f"{kind}-{folder.name}"


def test_keys_are_matched_whatever_case_and_layout(tmp_path: Path) -> None:
    layouts.write_csiq(tmp_path / "CSIQ", images=False)
    csiq = suites.find_datasets(tmp_path, ["csiq"])["csiq"]
    folder = publish(tmp_path / "s", csiq)
    for path in folder.glob("csiq_*"):
        text = (
            path.read_bytes()
            .decode()
            .replace("dst_imgs/awgn/", "dst_imgs/AWGN/")
            .replace("dst_imgs/blur/", "dst_imgs_all/")
        )
        path.write_bytes(text.encode())
    assert (
        splits.read_split(folder, csiq, csiq.ratings()).subset
        == splits.seeded_split(csiq.ratings(), "csiq", 7).subset
    )


def test_specs_that_lead_nowhere(tmp_path: Path, kadid: Dataset) -> None:
    ratings = kadid.ratings()
    with pytest.raises(UserError, match="'nowhere' is neither a number"):
        splits.resolve_split("nowhere", kadid, ratings)
    with pytest.raises(UserError, match="split -1 does not exist"):
        splits.resolve_split("-1", kadid, ratings)
    with pytest.raises(UserError, match=r"no split files of KADID-10K in .*kadid10k_train_score"):
        splits.resolve_split(str(tmp_path), kadid, ratings)
    with pytest.raises(UserError, match="no split files of KADID-10K"):
        splits.resolve_split(f"{publish(tmp_path / 'p', kadid)}#4", kadid, ratings)
    assert splits.resolve_split("7", kadid, ratings).name == "seeded-7"


def lines_of(path: Path) -> list[str]:
    return path.read_bytes().decode().split("\r")[:-1]


def test_faults_of_split_files_name_what_is_wrong(tmp_path: Path, kadid: Dataset) -> None:
    ratings = kadid.ratings()
    good = publish(tmp_path / "good", kadid)
    train, val, test = (f"kadid10k_{part}.txt" for part in ("train_score", "val", "test"))
    first, second, *_ = lines_of(good / train)
    key = first.split("\t")[0]
    in_test = lines_of(good / test)[0]
    cases: list[tuple[str, str, str, str]] = [
        (train, first, first.replace("images/", "pictures/"), f"{train} row 1 names 'pictures/"),
        (train, second, first, f"{key} appears twice: {train} row 1 and {train} row 2"),
        (test, in_test, first, f"{key} appears in two subsets: {train} row 1 and {test} row 1"),
        (train, first + "\r", "", f"1 images are in no subset, first {key}"),
        (train, first, first.replace("\t", " "), f"{train} row 1 has 1 tab-separated cells, expected 3"),
        (train, first, f"{key}\tgood\t0.1", f"{train} row 1 holds 'good' where the score should be"),
        (train, first, f"{key}\tnan\t0.1", "where the score should be"),
    ]
    for number, (name, old, new, words) in enumerate(cases):
        bad = Path(shutil.copytree(good, tmp_path / f"bad{number}"))
        text = (bad / name).read_bytes().decode()
        assert old in text
        (bad / name).write_bytes(text.replace(old, new, 1).encode())
        with pytest.raises(UserError) as caught:
            splits.read_split(bad, kadid, ratings)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "\r" not in str(caught.value)
    (good / val).unlink()
    with pytest.raises(UserError, match="does not hold the three split files of KADID-10K"):
        splits.read_split(good, kadid, ratings)


def test_a_reference_across_subsets_is_named(tmp_path: Path, kadid: Dataset) -> None:
    good = publish(tmp_path / "good", kadid)
    train, test = good / "kadid10k_train_score.txt", good / "kadid10k_test.txt"
    moved = lines_of(train)[-1]
    train.write_bytes("".join(f"{line}\r" for line in lines_of(train)[:-1]).encode())
    test.write_bytes(test.read_bytes() + f"{moved}\r".encode())
    with pytest.raises(
        UserError, match=r"reference I\d\d.png is in two subsets: images/I.* in train, .* in test"
    ):
        splits.read_split(good, kadid, kadid.ratings())


def test_an_empty_subset_is_told(tmp_path: Path, kadid: Dataset) -> None:
    good = publish(tmp_path / "good", kadid)
    test, val = good / "kadid10k_test.txt", good / "kadid10k_val.txt"
    test.write_bytes(test.read_bytes() + val.read_bytes())
    val.write_bytes(b"")
    with pytest.raises(UserError, match="the subset val is empty"):
        splits.read_split(good, kadid, kadid.ratings())


def test_scores_must_rank_the_images_as_the_labels_do(tmp_path: Path, kadid: Dataset) -> None:
    good = publish(tmp_path / "good", kadid)
    ratings = kadid.ratings()

    def rescored(name: str, scores: Sequence[float]) -> Path:
        new = dict(zip((r.key for r in ratings), scores, strict=True))
        folder = Path(shutil.copytree(good, tmp_path / name))
        for part in ("train_score", "val", "test"):
            path = folder / f"kadid10k_{part}.txt"
            keys = [line.split("\t")[0] for line in lines_of(path)]
            path.write_bytes("".join(f"{key}\t{new[key]:.3f}\t0.1\r" for key in keys).encode())
        return folder

    own = [r.score for r in ratings]
    with pytest.raises(UserError, match=r"run the wrong way .SRCC -1\.000"):
        splits.read_split(rescored("down", [5 - s for s in own]), kadid, ratings)
    with pytest.raises(UserError, match="do not belong to these images"):
        splits.read_split(rescored("mixed", own[7:] + own[:7]), kadid, ratings)
    with pytest.raises(UserError, match="do not belong to these images"):
        splits.read_split(rescored("flat", [3.0] * len(own)), kadid, ratings)
    with warnings.catch_warnings(action="error"):
        split = splits.read_split(rescored("scaled", [25 * (s - 1) for s in own]), kadid, ratings)
    assert re.search(r"scores differ from the label file's \(SRCC 1\.0000\), .*'s are used$", split.note)
    assert split.fingerprint == splits.seeded_split(ratings, "kadid10k", 7).fingerprint


# --- CSV


def test_ratings_csv_reads_back_exactly(tmp_path: Path) -> None:
    layouts.write_live(tmp_path / "live", images=False)
    live = suites.find_datasets(tmp_path, ["live"])["live"]
    ratings = live.ratings()
    split = splits.seeded_split(ratings, "live", 1)
    text = splits.ratings_csv(live, ratings, split)
    assert text.startswith("key,score,std,group,distortion,subset\n")
    assert "\r" not in text
    rows = list(csv.DictReader(text.splitlines()))
    back = [Rating(r["key"], float(r["score"]), float(r["std"]), r["group"], r["distortion"]) for r in rows]
    assert back == ratings, "bit by bit"
    assert {r["key"]: r["subset"] for r in rows} == split.subset
    bare = list(csv.DictReader(splits.ratings_csv(live, ratings).splitlines()))
    assert Counter(r["subset"] for r in bare) == {"": len(ratings)}
    part = splits.make_split("part", ratings[1:], split.subset)
    with pytest.raises(UserError, match=f"leaves out {ratings[0].key}"):
        splits.ratings_csv(live, ratings, part)


@pytest.mark.parametrize(("srcc", "accepted"), [(0.94, False), (0.96, True)])
def test_scores_of_another_release_are_told_by_their_ranks(srcc: float, accepted: bool) -> None:
    ratings, rng = images(300), np.random.default_rng(0)
    noise = rng.normal(0, 300, 300)
    own = np.arange(300.0)
    shares = np.linspace(0, 1, 2001)
    found = [spearmanr(own, own + share * noise).statistic for share in shares]
    share = shares[int(np.argmin(np.abs(np.array(found) - srcc)))]
    theirs = {r.key: float(v) for r, v in zip(ratings, own + share * noise, strict=True)}
    if accepted:
        assert "scores differ" in splits._check_scores(Path("s"), ratings, theirs)
    else:
        with pytest.raises(UserError, match="do not belong to these images"):
            splits._check_scores(Path("s"), ratings, theirs)
