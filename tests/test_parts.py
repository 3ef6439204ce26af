"""Parts of a dataset: by distortion, in blocks of contents, and without opinion scores."""

from __future__ import annotations

import csv
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from cliqa_bench.benchmarks.decoded import DecodedDataset, open_source
from cliqa_bench.benchmarks.labelled import LabelledDataset, load_materials
from cliqa_bench.benchmarks.pairs import n_pairs_for
from cliqa_bench.benchmarks.parts import hidden, part_class, part_split
from cliqa_bench.benchmarks.pixels.cache import ImageCache
from cliqa_bench.benchmarks.splits import make_split
from cliqa_bench.benchmarks.streams import quality_benchmark
from cliqa_bench.benchmarks.suites import dataset_class, dataset_name, parse_orders
from cliqa_bench.cli.parser import main
from cliqa_bench.errors import UserError
from cliqa_bench.execution.run import prepare
from cliqa_bench.part_names import PartName, base_of, in_path, read_part
from cliqa_bench.settings.choice import load_strategy
from cliqa_bench.settings.resolve import config_dict, resolve
from cliqa_bench.testing.tiny import TRAINING, learn, new_model, tiny_sources
from cliqa_bench.types import SUBSETS, Rating, Subset

# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("csiq:common", PartName("csiq", "common")),
        ("csiq@1/3", PartName("csiq", "", 1, 3)),
        ("csiq:common@2/3", PartName("csiq", "common", 2, 3)),
        ("csiq?unlabelled", PartName("csiq", unlabelled=True)),
        ("csiq:Jpeg 2000@3/3?unlabelled", PartName("csiq", "jpeg-2000", 3, 3, True)),
        ("csv:a@b/c.csv?score=x@1/2?unlabelled", PartName("csv:a@b/c.csv?score=x", "", 1, 2, True)),
        ("csv-my@1/2", PartName("csv-my", "", 1, 2)),
        ("/a@b/c:d/mine.py", None),
        ("/a@b/c:d/mine.py:blur@1/2", PartName("/a@b/c:d/mine.py", "blur", 1, 2)),
        ("csiq", None),
        ("csv:a@b/c.csv?score=x", None),
    ],
)
def test_names_are_read(word: str, part: PartName | None) -> None:
    assert read_part(word, ("csv",)) == part


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("csiq@4/3", "there is no block 4 of 3"),
        ("csiq@0/3", "there is no block 0 of 3"),
        ("csiq@x", "is not a block of a dataset"),
        ("csiq:", "the colon names no group"),
        ("@1/3", "is not a block of a dataset"),
    ],
)
def test_names_that_no_part_can_have_are_refused(word: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_part(word)


def test_the_whole_in_one_block_is_the_dataset_itself() -> None:
    assert dataset_name("CSIQ@1/1") == "csiq"
    assert dataset_class("csiq@1/1") is dataset_class("csiq")
    assert dataset_name("CSIQ:Blur@1/1") == "csiq:blur"


def test_titles_are_readable() -> None:
    names = ("csiq:blur", "csiq@1/3", "live:white-noise", "kadid10k:common@1/2?unlabelled")
    titles = [dataset_class(name).title for name in names]
    assert titles == ["CSIQ blur", "CSIQ 1/3", "LIVE white noise", "KADID-10K common 1/2 unlabelled"]


def test_an_unknown_group_is_answered_with_the_choices() -> None:
    with pytest.raises(UserError) as told:
        dataset_name("csiq:blrr")
    assert str(told.value) == (
        "CSIQ has no group 'blrr' (csiq:blrr); choose from: common, blur, contrast, fnoise, jpeg, jpeg-2000, "
        "noise"
    )


def test_a_part_of_an_unknown_dataset_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'csiq'"):
        dataset_name("csiqq:blur")


def test_names_become_pieces_of_file_names() -> None:
    assert in_path("csiq:common@1/3?unlabelled,live") == "csiq-common-1-3-unlabelled-live"
    assert base_of("csiq:common@1/3?unlabelled") == "csiq"


@pytest.mark.parametrize("name", ["live", "csiq", "tid2013", "kadid10k"])
def test_groups_name_distortions_that_there_are(name: str) -> None:
    cls = dataset_class(name)
    members = [one for group in cls.groups.values() for one in group]
    assert set(members) <= set(cls.distortions)
    assert len(set(cls.groups["common"])) == 4
    if name in ("tid2013", "kadid10k"):  # the seven share nothing and leave nothing out
        others = [one for group, some in cls.groups.items() if group != "common" for one in some]
        assert sorted(others) == sorted(cls.distortions)


# -- blocks --------------------------------------------------------------------------------------------------


def made_ratings(contents: int, distortions: Sequence[str] = ("blur", "jpeg")) -> list[Rating]:
    return [
        Rating(f"{c:02}-{d}", float(c * len(distortions) + i), 0.5, f"ref{c:02}.png", d)
        for c in range(contents)
        for i, d in enumerate(distortions)
    ]


def thirds(ratings: Sequence[Rating]) -> dict[str, Subset]:
    """By content: half for training, a fourth for validation, a fourth for the test."""
    cycle: tuple[Subset, ...] = ("train", "val", "train", "test")
    return {r.key: cycle[int(r.key[:2]) % 4] for r in ratings}


def part_of(name: str, ratings: Sequence[Rating]) -> dict[str, Subset]:
    split = make_split("here", ratings, thirds(ratings))
    dataset = dataset_class(name)(Path())
    return part_split(dataset, ratings, split).subset


@pytest.mark.parametrize("contents", [12, 28, 31])
@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_blocks_are_a_partition_of_the_contents(contents: int, blocks: int) -> None:
    ratings = made_ratings(contents)
    whole = thirds(ratings)
    for subset in ("train", "val") if contents >= 16 else ("train",):
        every = [key for key, where in whole.items() if where == subset]
        parts = [
            {
                key
                for key, where in part_of(f"csiq@{b}/{blocks}?unlabelled", ratings).items()
                if where == subset
            }
            for b in range(1, blocks + 1)
        ]
        assert sorted(key for part in parts for key in part) == sorted(every)
        shown = [{key[:2] for key in part} for part in parts]
        assert sum(map(len, shown)) == len(set().union(*shown))
        assert max(map(len, shown)) - min(map(len, shown)) <= 1


def test_blocks_share_the_test_images_and_too_few_validation_contents() -> None:
    ratings = made_ratings(12)  # three validation contents
    parts = [part_of(f"csiq@{b}/4", ratings) for b in range(1, 5)]
    tests = [{key for key, where in part.items() if where == "test"} for part in parts]
    assert tests[0] == {key for key, where in thirds(ratings).items() if where == "test"}
    assert all(test == tests[0] for test in tests)
    vals = [{key[:2] for key, where in part.items() if where == "val"} for part in parts]
    assert vals[3] == vals[0]
    assert len(vals[0] | vals[1] | vals[2]) == 3


def test_blocks_are_shuffled_and_depend_on_nothing_but_names() -> None:
    ratings = made_ratings(40)
    trains = [{k for k, where in part_of(f"csiq@{b}/2", ratings).items() if where == "train"} for b in (1, 2)]
    in_turn = {r.key for r in ratings if thirds(ratings)[r.key] == "train" and int(r.key[:2]) % 4 == 0}
    assert trains[0] not in (in_turn, trains[1])
    backwards = {k for k, w in part_of("csiq@1/2", ratings[::-1]).items() if w == "train"}
    assert backwards == trains[0]


def test_a_block_of_a_group_is_the_group_in_the_block() -> None:
    ratings = made_ratings(24)
    block, group = part_of("csiq@2/3", ratings), part_of("csiq:blur", ratings)
    both = part_of("csiq:blur@2/3", ratings)
    assert both == {key: where for key, where in block.items() if key in group}
    assert {key[3:] for key in group} == {"blur"}


def test_too_many_blocks_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"csiq@1/7: its training images in split here show 6 contents, too few"
    ):
        part_of("csiq@1/7", made_ratings(12))


# -- a part as a dataset -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kadid(miniatures: Path) -> dict[str, LabelledDataset]:
    names = ["kadid10k", "kadid10k:blur", "kadid10k:common", "kadid10k@2/2", "kadid10k?unlabelled"]
    return load_materials(names, miniatures)


def test_a_part_takes_its_images_from_the_split_of_the_whole(kadid: dict[str, LabelledDataset]) -> None:
    whole, blur = kadid["kadid10k"], kadid["kadid10k:blur"]
    distortion = {r.key: r.distortion for r in whole.ratings}
    expected = {k: s for k, s in whole.split.subset.items() if distortion[k].endswith("blur")}
    assert blur.split.subset == expected
    assert blur.split.name == whole.split.name
    common = Counter(distortion[key] for key in kadid["kadid10k:common"].split.subset)
    assert set(common) == {"gaussian blur", "JPEG", "JPEG2000", "white noise"}


def test_parts_are_decoded_once_and_named_apart(kadid: dict[str, LabelledDataset], tmp_path: Path) -> None:
    sources = [open_source(material, 64, tmp_path) for material in kadid.values()]
    assert len(list(tmp_path.glob("*.images"))) == 1
    assert len({source.cache.path for source in sources}) == 1
    prints = [material.fingerprint for material in kadid.values()]
    assert len(set(prints)) == len(prints)
    again = load_materials(["kadid10k:blur"], kadid["kadid10k"].dataset.root.parent)
    assert again["kadid10k:blur"].fingerprint == kadid["kadid10k:blur"].fingerprint
    one = sources[1]
    places = one.indices("train")
    assert [one.ratings[i].key for i in places] == one.keys("train")
    key = one.keys("train")[0]
    pixels = np.asarray(Image.open(kadid["kadid10k"].dataset.path(key)))
    assert one.cache.image(int(places[0])).shape[2] == pixels.shape[2] == 3


def test_a_part_has_its_share_of_the_pairs_of_the_whole(kadid: dict[str, LabelledDataset]) -> None:
    whole, part = kadid["kadid10k"].dataset, kadid["kadid10k:blur"].dataset
    assert (
        n_pairs_for(part, "paper", 60)
        == round(140071 * 60 / (0.7 * 10125))
        == n_pairs_for(whole, "paper", 60)
    )


# -- without labels ------------------------------------------------------------------------------------------


def test_hidden_labels_are_nan_and_those_of_the_test_set_are_there(
    kadid: dict[str, LabelledDataset], tmp_path: Path
) -> None:
    source = open_source(kadid["kadid10k?unlabelled"], 64, tmp_path)
    whole = open_source(kadid["kadid10k"], 64, tmp_path)
    assert (source.labelled, whole.labelled) == (False, True)
    for subset in ("train", "val"):
        assert np.isnan(source.mos[source.indices(subset)]).all()
        assert np.isnan(source.std[source.indices(subset)]).all()
        assert sorted(source.keys(subset)) == sorted(whole.keys(subset))
    scores = dict(zip(whole.keys("test"), whole.mos[whole.indices("test")], strict=True))
    assert [scores[key] for key in source.keys("test")] == source.mos[source.indices("test")].tolist()
    with pytest.raises(UserError, match="has no opinion score"):
        source.check_labels()


def copy_of_kadid(miniatures: Path, root: Path) -> Path:
    folder = root / "kadid10k"
    shutil.copytree(miniatures / "kadid10k", folder)
    return folder


def rows_of(folder: Path) -> tuple[list[str], list[list[str]]]:
    header, *rows = list(csv.reader((folder / "dmos.csv").read_text().splitlines()))
    return header, rows


def write_rows(folder: Path, header: list[str], rows: list[list[str]]) -> None:
    (folder / "dmos.csv").write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")


UNLABELLED = "kadid10k?unlabelled"


def test_an_unlabelled_part_does_not_depend_on_the_labels_that_are_hidden(
    miniatures: Path, tmp_path: Path
) -> None:
    """Noise in the place of the hidden labels, or no such rows at all, changes no bit of what is learned."""
    (whole,) = load_materials([dataset_name(UNLABELLED)], miniatures).values()
    tested = {Path(key).name for key in whole.split.keys("test")}
    noisy, absent = (copy_of_kadid(miniatures, tmp_path / name) for name in ("noisy", "absent"))
    header, rows = rows_of(noisy)
    rng = np.random.default_rng(0)
    noise = [row if row[0] in tested else [*row[:2], f"{rng.uniform(1, 5):.2f}", row[3]] for row in rows]
    write_rows(noisy, header, noise)
    write_rows(absent, header, [row for row in rows[::-1] if row[0] in tested])
    assert 0 < len(tested) < len(rows)
    for folder in (noisy, absent):
        (other,) = load_materials([whole.name], folder.parent).values()
        assert other.fingerprint == whole.fingerprint
        assert repr(other.ratings) == repr(whole.ratings), "the order of images is another"
        assert other.split == whole.split
    with pytest.raises(UserError, match="rates 25 images, expected 125"):
        load_materials(["kadid10k"], absent.parent)
    with pytest.raises(
        UserError, match=r"train image .* has no score; add it, or write kadid10k@1/2.unlabelled"
    ):
        load_materials(["kadid10k@1/2", "kadid10k@2/2?unlabelled"], absent.parent)


def test_tid2013_may_leave_out_what_is_hidden(miniatures: Path, tmp_path: Path) -> None:
    (whole,) = load_materials(["tid2013:noise?unlabelled"], miniatures).values()
    tested = {Path(key).name for key in whole.split.keys("test")}
    shutil.copytree(miniatures / "tid2013", tmp_path / "tid2013")
    files = [tmp_path / "tid2013" / name for name in ("mos_with_names.txt", "mos_std.txt")]
    rows = list(zip(*(file.read_text().splitlines() for file in files), strict=True))
    every_test = load_materials(["tid2013"], miniatures)["tid2013"].split.keys("test")
    names = {Path(key).name for key in every_test}
    kept = [row for row in rows if row[0].split()[1] in names]
    assert len(tested) < len(kept) < len(rows)
    for file, lines in zip(files, zip(*kept, strict=True), strict=True):
        file.write_text("\n".join(lines) + "\n")
    (other,) = load_materials([whole.name], tmp_path).values()
    assert other.fingerprint == whole.fingerprint
    assert repr(other.ratings) == repr(whole.ratings)


def test_a_label_of_the_test_set_counts(miniatures: Path, tmp_path: Path) -> None:
    (whole,) = load_materials([dataset_name(UNLABELLED)], miniatures).values()
    folder = copy_of_kadid(miniatures, tmp_path)
    header, rows = rows_of(folder)
    tested = Path(whole.split.keys("test")[0]).name
    write_rows(folder, header, [[*r[:2], "2.22", r[3]] if r[0] == tested else r for r in rows])
    (other,) = load_materials([whole.name], folder.parent).values()
    assert other.fingerprint != whole.fingerprint


def a_table(folder: Path, scores: Sequence[str]) -> str:
    """A table of ten pictures: six for training, two for validation, two for the test."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    subsets = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    lines = ["image,mos,split"]
    for i, (subset, score) in enumerate(zip(subsets, scores, strict=True)):
        pixels: NDArray[np.uint8] = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{score},{subset}")
    (folder / "mine.csv").write_text("\n".join(lines) + "\n")
    return f"csv:{folder / 'mine.csv'}"


def test_a_table_may_leave_the_scores_of_unlabelled_images_empty(tmp_path: Path) -> None:
    word = a_table(tmp_path / "a", [""] * 8 + ["1", "2"])
    name = dataset_name(f"{word}@2/3?unlabelled")
    assert name == "csv-mine@2/3?unlabelled"
    (material,) = load_materials([name]).values()
    assert len(material.split.keys("train")) == 2
    assert {r.score for r in material.ratings if not math.isnan(r.score)} == {1.0, 2.0}
    with pytest.raises(UserError, match=r"row 2"):
        load_materials([dataset_name(word)])
    lacking = a_table(tmp_path / "b", [""] * 8 + ["1", ""])
    with pytest.raises(UserError, match=r"the test image 9.png has no score; add it"):
        load_materials([dataset_name(f"{lacking}&name=other?unlabelled".replace("csv&", "csv?"))])


# -- commands ------------------------------------------------------------------------------------------------


def ratings_of(name: str, miniatures: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    assert main(["data", "ratings", name, "--data", str(miniatures), "--split", "1"]) == 0
    return list(csv.DictReader(capsys.readouterr().out.splitlines()))


def test_the_ratings_of_a_part_are_written_out(miniatures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {row["key"]: row for row in ratings_of("kadid10k", miniatures, capsys)}
    blur = ratings_of("kadid10k:blur", miniatures, capsys)
    assert blur == [row for row in whole.values() if row["distortion"].endswith("blur")]
    rows = ratings_of("kadid10k:blur@1/2?unlabelled", miniatures, capsys)
    assert {row["key"] for row in rows} < {row["key"] for row in blur}
    for row in rows:
        assert row["subset"] == whole[row["key"]]["subset"]
        hidden_one = {**whole[row["key"]], "score": "", "std": ""}
        assert row == (whole[row["key"]] if row["subset"] == "test" else hidden_one)
    assert main(["data", "ratings", "kadid10k@1/2", "--data", str(miniatures)]) == 2
    assert "which images are in a block depends on the split" in capsys.readouterr().err


def test_the_whole_of_a_part_is_checked(miniatures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(miniatures), "--datasets", "kadid10k:blur,kadid10k?unlabelled"]) == 0
    lines = capsys.readouterr().out.splitlines()
    blur, unlabelled = (next(line for line in lines if line.startswith(f"KADID-10K {w}")) for w in ("b", "u"))
    assert blur.split()[4:6] == ["125", "125"]
    parts = load_materials(["kadid10k:blur"], miniatures)["kadid10k:blur"].split
    assert "/".join(str(len(parts.keys(s))) for s in SUBSETS) in blur.split()
    assert unlabelled.split()[4:6] == ["125", "125"]


def test_a_test_image_without_a_score_is_found_by_the_check(
    miniatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of_kadid(miniatures, tmp_path / "data")
    split = load_materials([UNLABELLED], miniatures)[UNLABELLED].split
    lost = split.keys("test")[0]
    header, rows = rows_of(folder)
    write_rows(folder, header, [row for row in rows if row[0] != Path(lost).name])
    assert main(["data", "check", str(folder.parent), "--datasets", UNLABELLED]) == 2
    assert f"the test image {lost} has no score; add it" in capsys.readouterr().out


OWN_DATASET = '''
"""Cats."""
import math
from cliqa_bench.benchmarks.base import Dataset, Entry
from cliqa_bench.types import Rating


class Cats(Dataset):
    """Cats."""

    title, folders, label_files, image_folders = "Cats", ("cats",), ("scores.txt",), ("",)
    homepage, n_images, direction, rule = "nowhere", 20, "higher", "as is"

    def entries(self):
        kinds = ("Motion blur", "noise")
        return [
            Entry(f"row {i}", Rating(f"{i:02}.png", float(i), math.nan, f"cat{i // 2}", kinds[i % 2]))
            for i in range(20)
        ]
'''


def test_parts_of_a_dataset_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "cats.py").write_text(OWN_DATASET)
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "scores.txt").touch()
    for i in range(20):
        Image.new("RGB", (32, 32), (i, i, i)).save(tmp_path / "cats" / f"{i:02}.png")
    config = resolve(settled(tmp_path, orders=f"{tmp_path}/cats.py:Motion blur@1/2", data=str(tmp_path)))
    (name,) = (name for order in config.orders.values() for name in order)
    assert name == "cats:motion-blur@1/2"
    (material,) = load_materials([name], tmp_path).values()
    assert {int(key[:2]) % 2 for key in material.split.subset} == {0}
    assert material.dataset.title == "Cats motion blur 1/2"
    with pytest.raises(UserError, match=r"Cats has no group 'fog' .*; choose from: motion-blur, noise"):
        load_materials([dataset_name("cats:fog")], tmp_path)


# -- orders --------------------------------------------------------------------------------------------------


def test_a_transfer_is_a_dataset_and_unlabelled_blocks_of_another() -> None:
    blocks = [f"csiq@{b}/3?unlabelled" for b in (1, 2, 3)]
    assert parse_orders("transfer:LIVE,csiq") == {"transfer:live,csiq": ["live", *blocks]}
    one = {"transfer@1:live,csiq:common": ["live", "csiq:common?unlabelled"]}
    assert parse_orders("transfer@1:live,csiq:common") == one
    eight = parse_orders("transfers")
    assert len(eight) == 8
    assert eight["transfer:flive,spaq"] == ["flive", *(f"spaq@{b}/3?unlabelled" for b in (1, 2, 3))]
    pairs = {label.partition(":")[2] for label in eight}
    assert all(",".join(pair.split(",")[::-1]) in pairs for pair in pairs)


def test_distortions_are_learned_one_after_the_other() -> None:
    names = ["jpeg2000", "jpeg", "white-noise", "gaussian-blur", "fast-fading"]
    order = [f"live:{name}" for name in names]
    assert parse_orders("distortions:live") == {"distortions:live": order}
    assert parse_orders("Distortions-Reversed:LIVE") == {"distortions-reversed:live": order[::-1]}
    groups = ("blur", "colour", "compression", "noise", "brightness", "spatial", "sharpness")
    assert parse_orders("distortions:kadid10k")["distortions:kadid10k"] == [f"kadid10k:{g}" for g in groups]
    assert len(parse_orders("distortions:tid2013")["distortions:tid2013"]) == 24


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("distortions:", "name a dataset after the colon, as in distortions:csiq"),
        ("distortions:bid", "BID does not say which distortions it has"),
        ("distortions:csiq:blur", "name a whole dataset"),
        ("transfer:live", "name two datasets"),
        ("transfer:live,csiq@1/3", "the transfer itself makes blocks"),
        ("transfer:live,csiq?unlabelled", "the transfer itself makes blocks"),
        ("transfer@0:live,csiq", "at least one block"),
        ("transfer:live,csiqq", "did you mean 'csiq'"),
    ],
)
def test_orders_that_cannot_be_are_refused(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_orders(text)


def settled(tmp_path: Path, **more: object) -> dict[str, object]:
    return {"strategy": "naive", "out": str(tmp_path), **more}


def test_a_configuration_reads_back_as_it_was(tmp_path: Path) -> None:
    texts = (
        "distortions:csiq;distortions-reversed:csiq",
        "distortions:csiq",
        "transfer:live,csiq;I",
        "transfers",
    )
    for text in (*texts, "csiq:blur,live@1/2"):
        config = resolve(settled(tmp_path, orders=text))
        again = resolve(settled(tmp_path, orders=config_dict(config)["orders"]))
        assert again.orders == config.orders


@pytest.mark.parametrize(
    ("orders", "test_on", "told"),
    [
        ("csiq", "csiq:blur", "order csiq learns from csiq, which shares images with it"),
        ("csiq:blur,live", "csiq", "learns from csiq:blur"),
        ("live", "csiq@1/3", "blocks and .unlabelled mean nothing; write csiq"),
        ("live", "csiq:blur?unlabelled", "mean nothing; write csiq:blur"),
    ],
)
def test_test_sets_that_cannot_be_are_refused(tmp_path: Path, orders: str, test_on: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        resolve(settled(tmp_path, orders=orders, test_on=test_on))


def laid_out(miniatures: Path, tmp_path: Path, orders: str, strategy: str = "naive", **more: object):
    config = resolve(settled(tmp_path, orders=orders, data=str(miniatures), strategy=strategy, **more))
    return prepare(config, "")


def test_a_test_set_of_a_part_is_all_its_images(miniatures: Path, tmp_path: Path) -> None:
    plan = laid_out(miniatures, tmp_path, "live", test_on="csiq:blur")
    material = plan.materials["csiq:blur"]
    assert len(material.split.keys("test")) == sum(r.distortion == "blur" for r in material.ratings) > 0


def test_nodes_are_named_after_their_part(miniatures: Path, tmp_path: Path) -> None:
    plan = laid_out(miniatures, tmp_path, "live,kadid10k@1/2,kadid10k:blur@2/2")
    names = [node.node.id.rpartition("-")[0] for node in plan.train.values()]
    assert names == ["naive-scnn-live", "naive-scnn-2kadid10k-1-2", "naive-scnn-3kadid10k-blur-2-2"]
    nodes = [*plan.train.values(), *plan.gates.values(), *plan.answers.values(), *plan.pictures.values()]
    assert not any(set("/:@?") & set(work.node.id) for work in nodes)
    (record,) = plan.records
    assert not set("/:@?,") & set(record.id)
    assert record.titles["kadid10k:blur@2/2"] == "KADID-10K blur 2/2"


def test_no_image_is_learned_twice(miniatures: Path, tmp_path: Path) -> None:
    for orders in ("kadid10k,kadid10k:blur", "kadid10k,kadid10k?unlabelled", "kadid10k@1/2,kadid10k@1/3"):
        with pytest.raises(UserError, match=r"learns images/.* twice, in kadid10k"):
            laid_out(miniatures, tmp_path, orders)


def test_strategies_that_need_labels_are_refused_before_anything_is_trained(
    miniatures: Path, tmp_path: Path
) -> None:
    for strategy in ("lwf", "jl", "sl", "tsn", "ridge"):
        with pytest.raises(
            UserError, match=f"{strategy} learns from opinion scores, and kadid10k@1/2.unlabelled"
        ):
            laid_out(miniatures, tmp_path, "transfer@2:live,kadid10k", strategy)
    with pytest.raises(
        UserError, match=r"naive skips datasets without opinion scores, and .* begins with one"
    ):
        laid_out(miniatures, tmp_path, "live?unlabelled,kadid10k")


# -- experiences without labels ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> Iterator[list[DecodedDataset]]:
    """Two small datasets and the second without the labels of its training and validation images."""
    with tiny_sources(2) as sources:
        whole = sources[1]
        dataset = part_class(type(whole.dataset), PartName("tiny1", unlabelled=True))(whole.dataset.root)
        ratings = hidden(whole.ratings, whole.split)
        cache = ImageCache.open(whole.dataset, [r.key for r in ratings], 0, whole.dataset.root / "cache")
        yield [*sources, DecodedDataset(dataset, ratings, part_split(dataset, ratings, whole.split), cache)]


@pytest.mark.parametrize("heads", ["multi", "single"])
def test_naive_leaves_the_model_as_it_is(tiny: list[DecodedDataset], heads: str) -> None:
    first, _, unlabelled = tiny
    strategy = load_strategy("naive", {"heads": heads})
    learner = learn(strategy, new_model(strategy), [first])
    before = {name: tensor.clone() for name, tensor in learner.model.own_state().items()}
    learner = learn(strategy, learner.model, [unlabelled], seen=[first], learner=learner)
    after = learner.model.own_state()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    tasks = 1 if heads == "single" else 2
    assert learner.model.n_tasks == tasks
    images = torch.rand(2, 3, 40, 40)
    scores = learner.model.eval()(images)
    assert torch.equal(scores[:, 0], scores[:, tasks - 1])
    assert learner.history == [
        {"epoch": learner.epoch, "stage": "skipped", "lr": 0.0, "loss": None, "val_srcc": None}
    ]


def test_other_strategies_do_not_begin_without_labels(tiny: list[DecodedDataset]) -> None:
    strategy = load_strategy("lwf", {})
    with pytest.raises(UserError, match="has no opinion score"):
        learn(strategy, new_model(strategy), [tiny[2]])


def test_a_benchmark_says_what_is_unlabelled(tiny: list[DecodedDataset]) -> None:
    benchmark = quality_benchmark([tiny[0], tiny[2]], TRAINING)
    assert [experience.labelled for experience in benchmark.train_stream] == [True, False]
    targets = [list(experience.dataset.targets) for experience in benchmark.train_stream]
    assert np.isfinite(targets[0]).all()
    assert np.isnan(targets[1]).all()
    assert np.isfinite(list(benchmark.test_stream[1].dataset.targets)).all()


def test_where_validation_says_nothing_the_last_epoch_counts(tiny: list[DecodedDataset]) -> None:
    """One validation image has no rank correlation; the first epoch is no better than any."""
    whole = tiny[0]
    kept = whole.split.keys("val")[:1]
    subset = {k: s for k, s in whole.split.subset.items() if s != "val" or k in kept}
    source = replace(whole, split=make_split("one", [r for r in whole.ratings if r.key in subset], subset))
    strategy = load_strategy("naive", {})
    learner = learn(strategy, new_model(strategy), [source])
    assert learner.best_epoch == TRAINING.warmup_epochs + TRAINING.epochs
    assert all(torch.equal(learner.last_state[k], v) for k, v in learner.model.own_state().items())
