"""Scenes and distortions: read from LIQE's split files and miniatures, the fault of the published files."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import layouts
import numpy as np
import pytest

from cliqa_bench.aspects import COARSE, DISTORTIONS, SCENES
from cliqa_bench.benchmarks import aspect_labels, check, splits, suites
from cliqa_bench.benchmarks.aspect_labels import Aspects, aspects_of, mislabelled, repaired
from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.decoded import open_source
from cliqa_bench.benchmarks.generated.camera import Shot
from cliqa_bench.benchmarks.generated.dominant import FINE, dominant_fault
from cliqa_bench.benchmarks.generated.make import make_miniatures
from cliqa_bench.benchmarks.labelled import load_materials
from cliqa_bench.errors import UserError
from cliqa_bench.seeds import Rng
from cliqa_bench.types import SUBSETS

SIX = ("live", "csiq", "bid", "clive", "koniq10k", "kadid10k")


def publish(folder: Path, dataset: Dataset, words: dict[str, str]) -> Path:
    """Writes the seeded split 1 as LIQE does, with the cells of `words` after each score."""
    ratings = dataset.ratings()
    split = splits.seeded_split(ratings, dataset.name, 1)
    folder.mkdir(parents=True)
    for subset in SUBSETS:
        rows = [f"{r.key}\t{r.score}\t{words[r.key]}\n" for r in ratings if split.subset[r.key] == subset]
        (folder / f"{dataset.name}_{subset}_clip.txt").write_text("".join(rows))
    return folder


@pytest.fixture
def live(tmp_path: Path) -> Dataset:
    layouts.write_live(tmp_path / "databaserelease2", images=False)
    return suites.find_datasets(tmp_path, ["live"])["live"]


def published_words(dataset: Dataset) -> dict[str, str]:
    """LIVE's words with the published fault: fast fading has those of the white-noise image of its number."""
    right = {
        "jp2k": "jpeg2000 compression",
        "jpeg": "jpeg compression",
        "wn": "white noise",
        "gblur": "gaussian blur",
    }
    scenes = {"Ref0": "human\tinvalid\tinvalid", "Ref1": "plant\tstill_life\tinvalid"}
    alone = "landscape\tinvalid\tinvalid"
    rows = [(r.key, r.key.split("/")[0], scenes.get(str(r.group)[:4], alone)) for r in dataset.ratings()]
    words = {key: f"{right[folder]}\t{shown}" for key, folder, shown in rows if folder in right}
    for key, folder, _ in rows:
        if folder == "fastfading":  # some white-noise images of the number are copies without a rating
            words[key] = words.get(key.replace("fastfading", "wn"), f"white noise\t{alone}")
    return words


# -- LIQE's split files --------------------------------------------------------------------------------------


def test_the_published_kadid_files_give_every_image_its_words(shared: Path) -> None:
    dataset = suites.find_datasets(shared / "data/original_labels", ["kadid10k"])["kadid10k"]
    ratings = dataset.ratings()
    split = splits.resolve_split(str(shared / "data/splits/kadid10k_liqe/1"), dataset, ratings)
    found = aspects_of(dataset, split, ratings)
    assert found.keys() == {r.key for r in ratings}
    # counted in the published files with awk, see the protocol of facts
    assert Counter(a.distortion for a in found.values()) == {
        "noise": 2025, "blur": 1620, "spatial": 1620, "color": 1215, "contrast": 810, "quantization": 810,
        "jpeg2000 compression": 405, "jpeg compression": 405, "overexposure": 405, "underexposure": 405,
        "other": 405,
    }  # fmt: skip
    assert Counter(len(a.scenes) for a in found.values()) == {1: 7625, 2: 2375, 3: 125}
    scenes = Counter(scene for a in found.values() for scene in a.scenes)
    assert scenes == {
        "still_life": 3750, "landscape": 2875, "animal": 2125, "plant": 1875, "human": 1375, "cityscape": 625,
        "indoor": 125,
    }  # fmt: skip
    assert found["images/I71_01_01.png"] == Aspects("blur", ("landscape",))


def test_words_of_a_split_file_reach_the_images_and_parts(tmp_path: Path, live: Dataset) -> None:
    words = published_words(live)
    folder = publish(tmp_path / "splits" / "1", live, words)
    split = splits.resolve_split(str(folder), live, live.ratings())
    found = aspects_of(live, split, live.ratings())
    for key, aspects in found.items():
        fine, *scenes = words[key].split("\t")
        assert aspects == Aspects(COARSE[fine], tuple(s for s in scenes if s != "invalid"))
    # words change no fingerprint: what is finished keeps its name
    assert split.fingerprint == splits.seeded_split(live.ratings(), "live", 1).fingerprint


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ("fog\thuman\tinvalid\tinvalid", r"row 1: 'fog' is not one of LIQE's words for distortions"),
        ("blur\thuman\tinvalid\tinvalid", r"row 1: 'blur' is not one of LIQE's words for distortions"),
        ("white noise\thuman\tbeach\tinvalid", r"row 1: 'beach' is not a scene; choose from animal, "),
        ("white noise\tinvalid\tinvalid\tinvalid", r"row 1: it names no scene"),
        ("white noise", r"row 1: it names no scene"),
    ],
)
def test_a_word_that_no_table_knows_is_told_with_file_and_row(
    tmp_path: Path, live: Dataset, cells: str, complaint: str
) -> None:
    words = published_words(live)
    ratings = live.ratings()
    folder = publish(tmp_path / "1", live, words)
    path = folder / "live_val_clip.txt"
    first, rest = path.read_text().split("\n", 1)
    path.write_text("\t".join([*first.split("\t")[:2], cells]) + "\n" + rest)
    split = splits.read_split(folder, live, ratings)  # other strategies are not bothered
    with pytest.raises(UserError, match=complaint) as told:
        aspects_of(live, split, ratings)
    assert str(path) in str(told.value) and "\n" not in str(told.value)


def test_other_split_files_and_seeded_splits_of_real_data_say_nothing(shared: Path) -> None:
    data = shared / "data"
    csiq = suites.find_datasets(data / "original_labels", ["csiq"])["csiq"]
    for spec in ("1", str(data / "splits/csiq_tsn/1")):
        assert aspects_of(csiq, splits.resolve_split(spec, csiq, csiq.ratings()), csiq.ratings()) == {}


# -- the fault of the published files ------------------------------------------------------------------------


def test_fast_fading_is_mended_from_folder_and_reference(tmp_path: Path, live: Dataset) -> None:
    ratings = live.ratings()
    split = splits.read_split(publish(tmp_path / "1", live, published_words(live)), live, ratings)
    found = aspects_of(live, split, ratings)
    mended = repaired(live, found, ratings)
    assert mended.keys() == found.keys()
    fading = [r for r in ratings if r.key.startswith("fastfading/")]
    assert fading and mislabelled(live, mended) == []
    scenes = {r.group: found[r.key].scenes for r in ratings if r not in fading}
    for r in ratings:
        expected = Aspects("jpeg2000 compression", scenes[r.group]) if r in fading else found[r.key]
        assert mended[r.key] == expected
    twins = [r.key for r in fading if "wn/" + r.key[11:] in found]
    assert twins and mislabelled(live, found) == twins
    other = suites.find_datasets(tmp_path, ["live"])["live"]
    other.name = "csiq"  # type: ignore[misc]  # of other datasets nothing is known to be wrong
    assert repaired(other, found, ratings) == found and mislabelled(other, found) == []


def test_data_check_says_so(tmp_path: Path, live: Dataset) -> None:
    files = [f"{f}/img{i}.bmp" for f, n in layouts.LIVE_TINY.items() for i in range(1, n + 1)]
    layouts.write_images(live.root, files)
    words = published_words(live)
    folder = publish(tmp_path / "s" / "1", live, words)
    found = aspects_of(live, splits.read_split(folder, live, live.ratings()), live.ratings())
    n = len(mislabelled(live, found))
    report = check.check_data(tmp_path, ["live"], str(folder))
    (note,) = [note for note in report.rows[0].notes if "LIQE" in note]
    assert report.ok and note.startswith(f"{n} images of fastfading/ have the scene and distortion") and n > 9
    assert "labels=repaired" in note
    right = {
        k: w if not k.startswith("fastfading") else "fastfading\tnight\tinvalid\tinvalid"
        for k, w in words.items()
    }
    report = check.check_data(tmp_path, ["live"], str(publish(tmp_path / "s" / "2", live, right)))
    assert report.ok and not [note for note in report.rows[0].notes if "LIQE" in note]
    wrong = {k: w.replace("gaussian blur", "fog") for k, w in words.items()}
    report = check.check_data(tmp_path, ["live"], str(publish(tmp_path / "s" / "3", live, wrong)))
    assert not report.ok and "'fog' is not one of LIQE's words for distortions" in report.rows[0].problems[0]


# -- miniatures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIX)
def test_a_miniature_says_what_its_pictures_show(miniatures: Path, name: str) -> None:
    dataset = suites.find_datasets(miniatures, [name])[name]
    ratings = dataset.ratings()
    split = splits.seeded_split(ratings, name, 1)
    found = aspects_of(dataset, split, ratings)
    assert found.keys() == {r.key for r in ratings}
    of_reference: dict[str, set[tuple[str, ...]]] = {}
    for r in ratings:
        if r.group is not None:
            of_reference.setdefault(r.group, set()).add(repaired(dataset, found, ratings)[r.key].scenes)
    assert all(len(scenes) == 1 for scenes in of_reference.values())
    own = {r.distortion: {a.distortion for k, a in found.items() if k == r.key} for r in ratings}
    if name == "live":  # the fault of the published files is there on purpose
        assert own["fast fading"] == {"noise"} and len(mislabelled(dataset, found)) > 0
        mended = repaired(dataset, found, ratings)
        assert {mended[r.key].distortion for r in ratings if r.distortion == "fast fading"} == {
            "jpeg2000 compression"
        }
    if name in ("live", "csiq"):
        coarse = Counter(a.distortion for a in found.values())
        assert set(coarse) <= {"jpeg2000 compression", "jpeg compression", "noise", "blur", "contrast"}
    if name == "kadid10k":
        assert len({a.distortion for a in found.values()}) == len(DISTORTIONS)
    if name in ("bid", "clive", "koniq10k"):
        assert len({a.distortion for a in found.values()}) >= 3
    assert {s for a in found.values() for s in a.scenes} <= set(SCENES)


def test_every_word_of_the_miniatures_is_one_of_liqe_s() -> None:
    assert set(FINE.values()) <= COARSE.keys()
    some = ("kadid:jitter", "kadid:color_shift", "live:fastfading", "csiq:fnoise")
    assert [COARSE[FINE[k]] for k in some] == ["spatial", "blur", "jpeg2000 compression", "noise"]


@pytest.mark.parametrize(
    ("shot", "word"),
    [
        (Shot(), "other realistic"),
        (Shot(defocus=3.0, noise=0.05), "realistic blur"),
        (Shot(motion=8.0, stops=0.5), "realistic blur"),
        (Shot(shake=9.0), "realistic blur"),
        (Shot(soft=1.2), "realistic blur"),
        (Shot(noise=0.2, defocus=1.0), "realistic noise"),
        (Shot(stops=1.5, noise=0.05), "overexposure"),
        (Shot(stops=-1.5, noise=0.05), "underexposure"),
        (Shot(haze=0.5), "realistic contrast change"),
        (Shot(contrast=0.5), "realistic contrast change"),
        (Shot(quality=10, soft=0.5), "other realistic"),
        (Shot(cast=0.4, soft=0.5), "other realistic"),
        (Shot(colour=0.2), "other realistic"),
        (Shot(sharpening=3.0), "other realistic"),
    ],
)
def test_the_dominant_fault_of_a_shot(shot: Shot, word: str) -> None:
    assert dominant_fault(shot) == word


def test_the_words_of_a_picture_are_those_of_its_own_shot(tmp_path: Path) -> None:
    """Drawn as the picture was: a shot of another seed would say something else of some pictures."""
    from cliqa_bench.benchmarks.generated.camera import SHOTS
    from cliqa_bench.benchmarks.generated.dominant import dominant_aspects
    from cliqa_bench.benchmarks.generated.make import LAYOUTS
    from cliqa_bench.benchmarks.generated.scenes import Scene, _render, pristine

    scenes = LAYOUTS["clive"].scenes(0.1, 0)
    words = dict(dominant_aspects(scenes))
    shots: dict[str, Shot] = {}

    def noted(scene: Scene) -> None:
        def shoot(rng: Rng) -> Shot:
            shots[scene.pictures[0].path] = original(rng)
            return shots[scene.pictures[0].path]

        original = SHOTS["clive"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(SHOTS, "clive", shoot)
            _render(scene, scene.pictures[0], pristine(scene))

    for scene in scenes[:12]:
        noted(scene)
    assert {path: words[path][0] for path in shots} == {p: dominant_fault(s) for p, s in shots.items()}
    assert len({words[path][0] for path in shots}) > 1


@pytest.mark.slow
def test_what_an_older_miniature_lacks_is_added(tmp_path: Path) -> None:
    make_miniatures(tmp_path, 0.1, names=["bid"])
    file = tmp_path / "BID" / "aspects.csv"
    before = {path: path.read_bytes() for path in (tmp_path / "BID").rglob("*") if path.is_file()}
    file.unlink()
    make_miniatures(tmp_path, 0.1, names=["bid"])
    assert {path: path.read_bytes() for path in (tmp_path / "BID").rglob("*") if path.is_file()} == before


def test_an_older_miniature_is_told_with_what_to_do(miniatures: Path, tmp_path: Path) -> None:
    shutil.copytree(miniatures / "CSIQ", tmp_path / "CSIQ", ignore=shutil.ignore_patterns("aspects.csv"))
    (material,) = load_materials(["csiq"], tmp_path).values()
    with pytest.raises(
        UserError, match=r"CSIQ: .* was made by an older version and lacks aspects.csv; to add it"
    ):
        _ = material.aspects_digest
    (whole,) = load_materials(["csiq"], miniatures).values()
    assert whole.fingerprint == material.fingerprint  # the file renames nothing
    assert check.check_data(tmp_path, ["csiq"]).ok


def test_a_broken_file_is_told_with_its_row(miniatures: Path, tmp_path: Path) -> None:
    shutil.copytree(miniatures / "CSIQ", tmp_path / "CSIQ")
    path = tmp_path / "CSIQ" / "aspects.csv"
    text = path.read_text()
    dataset = suites.find_datasets(tmp_path, ["csiq"])["csiq"]
    lines = text.splitlines()
    for broken, complaint in (
        ("", "row 1 does not have the columns key,distortion,scene_1"),
        ("a,b\n", "row 1 does not have the columns"),
        ("\n".join([*lines[:4], "x,y"]), "row 5 does not have the columns"),
        (
            text.replace("jpeg2000 compression", "jpeg2001", 1),
            "'jpeg2001' is not one of LIQE's words for distortions",
        ),
        ("\n".join(lines[:-1]), "has no row; add it"),
        ("\udcff", "cannot read .*aspects.csv"),
    ):
        path.write_bytes(broken.encode(errors="surrogateescape"))
        with pytest.raises(UserError, match=complaint):
            ratings = dataset.ratings()
            aspects_of(dataset, splits.seeded_split(ratings, "csiq", 1), ratings)


def test_a_decoded_dataset_and_a_part_of_it_have_them(miniatures: Path) -> None:
    materials = load_materials(["live", "live:fast-fading"], miniatures)
    whole, part = (open_source(m, 192) for m in materials.values())
    assert whole.aspects == part.aspects
    assert whole.aspects != whole.repaired_aspects == part.repaired_aspects
    digests = [m.aspects_digest for m in materials.values()]
    assert len({*digests}) == 2 and all(len(d) == 64 for d in digests)
    (again,) = load_materials(["live"], miniatures).values()
    other = {**whole.split.aspects, **aspect_labels.own_rows(whole.dataset)}
    key = next(iter(whole.aspects))
    changed = other[key]._replace(words=("lens", "night"))
    moved = replace(again, split=replace(again.split, aspects={**other, key: changed}))
    assert moved.aspects_digest != again.aspects_digest == digests[0]
    assert moved.fingerprint == again.fingerprint
    # whether an image of the part is mended depends on what is said of one outside of it
    of_part = materials["live:fast-fading"]
    night = {k: row._replace(words=("lens", "night")) for k, row in other.items() if "fastfading" not in k}
    apart = {**other, **night}
    same, elsewhere = (
        replace(of_part, split=replace(of_part.split, aspects=said)) for said in (other, apart)
    )
    assert same.aspects_digest == digests[1] != elsewhere.aspects_digest


def test_targets_are_many_hot_and_one_hot() -> None:
    some = [Aspects("noise", ("human", "night")), Aspects("other", ("others",))]
    scenes, distortions = aspect_labels.scene_targets(some), aspect_labels.distortion_targets(some)
    assert scenes.shape == (2, 9) and distortions.shape == (2, 11) and scenes.dtype == np.float32
    assert [np.flatnonzero(row).tolist() for row in scenes] == [[2, 5], [8]]
    assert [np.flatnonzero(row).tolist() for row in distortions] == [[2], [10]]
