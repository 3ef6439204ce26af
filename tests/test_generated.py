"""Generated pictures, distortions, raters and the six layouts, against formulas and libraries of others."""

from __future__ import annotations

import colorsys
import csv
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import recorded_pictures
import scipy.io
import scipy.stats
import xlrd
from PIL import Image, ImageOps

from cliqa_bench.benchmarks.generated import (
    colour,
    distortions,
    filters,
    make,
    raters,
    references,
)
from cliqa_bench.benchmarks.generated.camera import SHOTS, Shot, shoot
from cliqa_bench.benchmarks.generated.contact import contact_sheet
from cliqa_bench.benchmarks.generated.distortions import DISTORTIONS, KADID_TYPES, PRETRAIN_CLASSES, distort
from cliqa_bench.benchmarks.generated.layouts import MAT_HEADER
from cliqa_bench.benchmarks.generated.make import VERSION
from cliqa_bench.benchmarks.generated.photographs import CliveLayout
from cliqa_bench.benchmarks.generated.synthetic import KadidLayout
from cliqa_bench.benchmarks.suites import find_datasets
from cliqa_bench.errors import UserError
from cliqa_bench.seeds import rng_for
from cliqa_bench.system import disk

SIX = ["live", "csiq", "bid", "clive", "koniq10k", "kadid10k"]


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [references.reference(seed, (128, 96)) for seed in range(4)]


def mse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a.astype(float) - b.astype(float)) ** 2))


# ------------------------------------------------------------------ references


def test_a_reference_depends_on_its_seed_alone_and_has_the_size_asked_for(scenes):
    assert np.array_equal(references.reference(2, (128, 96)), scenes[2])
    assert scenes[0].shape == (96, 128, 3) and scenes[0].dtype == np.uint8
    assert references.reference(1, (97, 133)).shape == (133, 97, 3)
    assert all(mse(a, b) > 300 for i, a in enumerate(scenes) for b in scenes[:i])


def test_other_miniatures_need_another_version(miniatures):
    advice = "raise VERSION in generated/make.py, and run tests/recorded_pictures.py"
    found = recorded_pictures.look_at_miniatures(miniatures)
    # numpy 1.26 with scipy 1.11 and Pillow 10.1 differ by 0.009, other processors not at all
    recorded_pictures.assert_alike(recorded_pictures.MINIATURES, VERSION, found, 0.027, advice)


def test_references_have_natural_statistics():
    window = np.outer(np.hanning(128), np.hanning(128))
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    slopes, kurtoses = [], []
    for seed in range(12):
        gray = references.reference(seed, (128, 128)).mean(2)
        spectrum = np.abs(np.fft.fft2((gray - gray.mean()) * window))
        bands = 0.03 * 1.4 ** np.arange(8)
        heights = [spectrum[(radius >= b) & (radius < 1.4 * b)].mean() for b in bands]
        slopes.append(np.polyfit(np.log(bands), np.log(heights), 1)[0])
        kurtoses.append(scipy.stats.kurtosis(np.diff(gray, axis=1).ravel()))
    # photographs: amplitude falls like 1/f**(0.8..1.5), differences of neighbours have heavy tails
    assert -1.6 < np.median(slopes) < -0.8
    assert np.median(kurtoses) > 2


def test_photo_crops_are_cut_from_regions_that_belong_to_one_dataset_each():
    regions = list(references.PHOTO_REGIONS.values())
    for i, (photo, left, right) in enumerate(regions):
        for other, left2, right2 in regions[:i]:
            assert photo != other or right <= left2 or right2 <= left
    crops = references.photo_crops("koniq10k", (128, 96), limit=4)
    assert len(crops) == 4 and all(c.shape == (96, 128, 3) for c in crops)
    assert all(mse(a, b) > 0 for i, a in enumerate(crops) for b in crops[:i])
    assert references.photo_crops("live", (320, 240)) == []


# ------------------------------------------------------------------ colour


def test_lab_agrees_with_scikit_image():
    from skimage.color import lab2rgb, rgb2lab

    x = np.random.default_rng(0).random((16, 17, 3)).astype(np.float32)
    x[0, :3] = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.01, 0.02, 0.03]])
    assert np.allclose(colour.to_lab(x), rgb2lab(x), atol=2e-2)
    assert np.allclose(colour.from_lab(colour.to_lab(x)), x, atol=1e-4)
    lab = rgb2lab(x).astype(np.float32) * np.float32(0.7)
    assert np.allclose(colour.from_lab(lab), lab2rgb(lab), atol=1e-3)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 3.0])
def test_saturation_agrees_with_colorsys(factor):
    x = np.random.default_rng(1).random((40, 3)).astype(np.float32)
    x[0] = 0.0
    expected = []
    for r, g, b in x.tolist():
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        expected.append(colorsys.hsv_to_rgb(h, min(1.0, s * factor), v))
    assert np.allclose(colour.hsv_saturation(x, factor), expected, atol=1e-5)


# ------------------------------------------------------------------ distortions


def test_names_and_numbers_are_those_of_the_datasets():
    assert len(KADID_TYPES) == 25 and len(set(KADID_TYPES)) == 25
    assert KADID_TYPES[0] == "kadid:gaussian_blur" and KADID_TYPES[24] == "kadid:contrast_change"
    assert KADID_TYPES[8:11] == ("kadid:jpeg2000", "kadid:jpeg", "kadid:white_noise")
    assert len(PRETRAIN_CLASSES) == 39 and len(set(PRETRAIN_CLASSES)) == 39
    assert len(distortions.LIVE) == 5 and len(distortions.CSIQ) == 6


@pytest.mark.parametrize("name", list(DISTORTIONS))
def test_a_distortion_grows_with_its_level_and_repeats_for_a_seed(name, scenes):
    levels = range(1, len(DISTORTIONS[name].strengths) + 1)
    made = {k: [distort(s, name, k, rng_for(name, i)) for i, s in enumerate(scenes)] for k in levels}
    errors = [np.mean([mse(a, s) for a, s in zip(made[k], scenes, strict=True)]) for k in levels]
    assert errors[0] > 0 and all(np.diff(errors) > 0), errors
    assert all(m.dtype == np.uint8 and m.shape == scenes[0].shape for images in made.values() for m in images)
    assert np.array_equal(distort(scenes[1], name, 1, rng_for(name, 1)), made[1][1])


def test_a_level_between_two_lies_between_them(scenes):
    errors = [mse(distort(scenes[0], "csiq:blur", k, rng_for("x")), scenes[0]) for k in (2, 2.5, 3)]
    assert errors[0] < errors[1] < errors[2]
    assert DISTORTIONS["kadid:jpeg"].strength(1.5) == pytest.approx((45 + 28) / 2)


def test_the_strengths_of_a_name_are_those_of_its_source():
    tables = {"kadid": distortions.KADID, "live": distortions.LIVE, "csiq": distortions.CSIQ,
              "tid2013": distortions.TID2013, "generator": distortions.GENERATOR,
              "pretrain": distortions.PRETRAIN}  # fmt: skip
    for name, distortion in DISTORTIONS.items():
        source, kind = name.split(":")
        assert distortion is tables[source][kind], name
    assert len(DISTORTIONS) == sum(map(len, tables.values()))


def test_lengths_grow_with_the_picture():
    edge = np.zeros((96, 128, 3), np.uint8)
    edge[:, 64:] = 255
    small = distort(edge, "kadid:gaussian_blur", 3, rng_for("x")).astype(float)
    large = distort(edge.repeat(2, 0).repeat(2, 1), "kadid:gaussian_blur", 3, rng_for("x")).astype(float)
    widths = [np.sqrt(np.average((np.arange(len(e)) - len(e) / 2) ** 2, weights=e))
              for e in (np.pad(np.diff(x[0, :, 0]), (1, 0)) for x in (small, large))]  # fmt: skip
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.05)


def test_an_unknown_distortion_is_named(scenes):
    with pytest.raises(UserError, match="did you mean 'kadid:jitter'"):
        distort(scenes[0], "kadid:jiter", 1, rng_for("x"))


def test_jpeg_is_libjpeg_and_noise_has_its_variance():
    gray = np.full((96, 128, 3), 128, np.uint8)
    noisy = distort(gray, "kadid:white_noise", 3, rng_for("noise")) / 255.0
    assert noisy.var() == pytest.approx(DISTORTIONS["kadid:white_noise"].strength(3), rel=0.05)
    scene = references.reference(3, (128, 96))
    buffer = io.BytesIO()
    Image.fromarray(scene).save(buffer, "JPEG", quality=9)
    assert np.array_equal(distort(scene, "kadid:jpeg", 4, rng_for("x")), np.asarray(Image.open(buffer)))


def test_pink_noise_falls_as_one_over_f():
    x = filters.pink_noise(np.zeros((128, 128, 3), np.float32), 0.1, 1.0, rng_for("pink"))
    assert x.std() == pytest.approx(0.1, rel=1e-3)
    spectrum = np.abs(np.fft.fft2(x, axes=(0, 1))).mean(2)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    bands = np.array([0.03, 0.06, 0.12, 0.24])
    heights = [spectrum[(radius >= b) & (radius < 1.3 * b)].mean() for b in bands]
    assert np.polyfit(np.log(bands), np.log(heights), 1)[0] == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize("name", ["gaussian_blur", "lens_blur", "motion_blur"])
def test_blurs_keep_light_and_spread_a_point(name):
    x = np.zeros((61, 61, 3), np.float32)
    x[30, 30] = 1
    out = getattr(filters, name)(x, 4.0, 1.0, rng_for("blur"))
    assert out.sum() == pytest.approx(3, rel=1e-3) and out.max() < 0.3
    flat = np.full((20, 30, 3), 0.4, np.float32)
    assert np.allclose(getattr(filters, name)(flat, 4.0, 1.0, rng_for("blur")), 0.4, atol=1e-5)


def test_fast_fading_comes_near_the_error_asked_for(scenes):
    for scene in scenes[:2]:
        received = distort(scene, "live:fastfading", 4, rng_for("fading", 1))
        psnr = 10 * np.log10(255**2 / mse(received, scene))
        assert psnr == pytest.approx(DISTORTIONS["live:fastfading"].strength(4), abs=5)


# ------------------------------------------------------------------ camera


def test_a_faultless_shot_changes_nothing(scenes):
    assert np.array_equal(shoot(scenes[0], Shot(), rng_for("x")), scenes[0])


@pytest.mark.parametrize(
    "fault",
    [
        {"defocus": 2.0}, {"motion": 5.0}, {"shake": 6.0}, {"soft": 1.0}, {"stops": -1.5}, {"noise": 0.2},
        {"cast": 0.3}, {"contrast": 0.5}, {"haze": 0.4}, {"colour": 0.2}, {"sharpening": 2.0},
    ],
)  # fmt: skip
def test_every_fault_of_a_camera_is_seen(fault, scenes):
    assert mse(shoot(scenes[0], Shot(**fault), rng_for("x")), scenes[0]) > 20


def test_the_three_sets_are_photographed_differently():
    shots = {name: [take(rng_for(name, i)) for i in range(400)] for name, take in SHOTS.items()}
    blurred = {n: np.mean([s.defocus + s.motion + s.shake > 0 for s in all_]) for n, all_ in shots.items()}
    exposure = {n: np.std([s.stops for s in all_]) for n, all_ in shots.items()}
    quality = {n: np.mean([s.quality for s in all_]) for n, all_ in shots.items()}
    assert blurred["bid"] > 0.7 > 0.5 > blurred["clive"] > blurred["koniq10k"]
    assert exposure["clive"] > 1.5 * max(exposure["bid"], exposure["koniq10k"])
    assert quality["koniq10k"] < min(quality["bid"], quality["clive"]) - 10


# ------------------------------------------------------------------ raters


def test_colourfulness_is_hasler_and_suesstrunks():
    image = np.random.default_rng(2).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    rg = [float(r) - g for r, g, b in image.reshape(-1, 3).tolist()]
    yb = [(r + g) / 2 - b for r, g, b in image.reshape(-1, 3).tolist()]
    expected = np.hypot(np.std(rg), np.std(yb)) + 0.3 * np.hypot(np.mean(rg), np.mean(yb))
    gray = np.full_like(image, 77)
    assert raters.colourfulness(np.stack([image, gray])) == pytest.approx([expected, 0])


def test_quality_is_one_for_a_perfect_picture_and_falls_with_every_measure():
    panel = raters.Panel((1.0, 1.0, 1.0))
    perfect = np.array([[1.0, 0.0, 1.0, 45.0]])
    assert raters.latent_quality(perfect, panel) == pytest.approx([1.0])
    for column, worse in ((0, 0.6), (1, 0.3), (2, 0.5)):
        less = perfect.copy()
        less[0, column] = worse
        assert raters.latent_quality(less, panel)[0] < 0.97
    ruined = np.array([[0.1, 0.7, 0.0, 45.0]])
    assert raters.latent_quality(ruined, panel)[0] < 0.05


def test_measures_put_a_copy_first_and_do_not_depend_on_the_batch(scenes):
    blurred = [distort(scenes[0], "csiq:blur", k, rng_for("x")) for k in (1, 3, 5)]
    pictures = np.stack([scenes[0], *blurred])
    clean = np.broadcast_to(scenes[0], pictures.shape).copy()
    measured = raters.measure(clean, pictures)
    quality = raters.latent_quality(measured, raters.Panel((1.0, 1.0, 1.0)))
    assert quality[0] > 0.999 and all(np.diff(quality) < 0)
    assert raters.measure(clean[2:3], pictures[2:3]) == pytest.approx(measured[2:3], rel=1e-5)


def test_opinions_follow_quality_and_differ_between_raters():
    quality = np.linspace(0.02, 0.98, 60)
    said = raters.opinions(quality, raters.Panel((1, 1, 1), raters=30), rng_for("o"))
    assert said.shape == (60, 30) and said.min() >= 0 and said.max() <= 1
    assert scipy.stats.spearmanr(said.mean(1), quality)[0] > 0.98
    assert said.mean(0).std() > 0.02
    assert np.allclose(raters.z_scores(said), scipy.stats.zscore(said, axis=0, ddof=1))
    assert np.isfinite(raters.z_scores(said[:1])).all()


def test_colourful_pictures_are_preferred_by_those_who_were_asked():
    measures = np.array([[0.8, 0.2, 0.6, colour] for colour in (5.0, 45.0, 90.0)])
    same = raters.latent_quality(measures, raters.Panel((1, 1, 1)))
    assert same == pytest.approx([same[0]] * 3)
    asked = raters.latent_quality(measures, raters.Panel((1, 1, 1), colour=0.1))
    assert asked[0] < same[0] < asked[2] and asked[1] == pytest.approx(same[1])


ALIKE = {"bias": 0.0, "use": 0.0, "noise": 0.0, "taste": 0.0}
"""A panel whose people do not differ; a test lets them differ in one thing."""


def said(quality: list[float], **what: float) -> np.ndarray:
    panel = raters.Panel((1, 1, 1), raters=4000, **{**ALIKE, **what})
    return raters.opinions(np.array(quality), panel, rng_for("raters"))


def test_raters_agree_more_at_the_ends_of_the_scale():
    middle, upper, end = said([0.5, 0.8, 1.0], noise=0.02).std(axis=1)
    # half the doubt at the ends and all of it in the middle; of what passes the end, half is cut
    assert middle == pytest.approx(0.02, rel=0.05)
    assert upper == pytest.approx(0.02 * (0.5 + 2 * 0.8 * 0.2), rel=0.05)
    assert end < 0.01


def test_raters_share_what_no_measure_knows():
    quality = np.full(400, 0.5)
    panel = raters.Panel((1, 1, 1), raters=3, **{**ALIKE, "taste": 0.05})
    opinions = raters.opinions(quality, panel, rng_for("taste"))
    assert opinions[:, 0].std() == pytest.approx(0.05, rel=0.1)
    assert np.allclose(opinions, opinions[:, :1]), "all people share it"


def test_raters_use_the_scale_each_in_their_own_way():
    low, high = said([0.4, 0.6], use=0.15)
    used = (high - low) / 0.2
    assert np.log(used).std() == pytest.approx(0.15, rel=0.1) and np.allclose(low + high, 1)
    biased = said([0.5], bias=0.06)[0]
    assert biased.std() == pytest.approx(0.06, rel=0.1) and np.allclose(said([0.5]), 0.5)


def test_measures_are_those_of_piq_with_the_reference_as_such(scenes):
    import piq
    import torch

    picture = distort(scenes[0], "kadid:contrast_change", 4, rng_for("x"))
    x, y = (torch.from_numpy(a).permute(2, 0, 1)[None].float() / 255 for a in (picture, scenes[0]))
    expected = [piq.haarpsi(x, y, subsample=False), piq.mdsi(x, y), piq.vif_p(x, y)]
    assert abs(float(piq.vif_p(y, x)) - float(expected[2])) > 0.05, "the reference is not just any of the two"
    got = raters.measure(scenes[0][None], picture[None])[0, :3]
    # the largest difference seen is 4.6e-6: sums in float32 over another layout in memory
    assert got == pytest.approx([float(e) for e in expected], abs=1.3e-5)


# ------------------------------------------------------------------ the six folders


def test_loaders_find_what_the_folders_claim(miniatures):
    for name, dataset in find_datasets(miniatures, SIX).items():
        facts = json.loads((dataset.root / "generated.json").read_text())
        ratings = dataset.ratings()
        assert len(ratings) == facts["n_images"] == dataset.expected_images, name
        groups = {r.group for r in ratings if r.group}
        assert len(groups) == (facts["n_groups"] or 0), name
        assert np.isfinite([r.score for r in ratings]).all() and np.std([r.score for r in ratings]) > 0, name
        assert facts["generator"] == "cliqa_bench" and facts["seed"] == 0
        readme = (dataset.root / make.LAYOUTS[name].readme).read_text()
        assert "GENERATED" in readme and "No number made with them is comparable" in readme


def test_no_picture_occurs_twice_and_none_is_too_small(miniatures):
    for name, dataset in find_datasets(miniatures, SIX).items():
        seen = set()
        for rating in dataset.ratings():
            with Image.open(dataset.path(rating.key)) as image:
                assert min(image.size) >= 96, (name, rating.key)
                seen.add((image.size, image.convert("RGB").tobytes()))
        assert len(seen) == dataset.expected_images, name


def test_scales_and_directions_are_the_authors(miniatures):
    range_of = {}
    for name, dataset in find_datasets(miniatures, SIX).items():
        scores = [r.score for r in dataset.ratings()]
        range_of[name] = (min(scores), max(scores))
    assert range_of["csiq"] == pytest.approx((0, 1))
    assert 0 <= range_of["bid"][0] < range_of["bid"][1] <= 5
    assert 1 <= range_of["koniq10k"][0] < range_of["koniq10k"][1] <= 5
    assert 1 <= range_of["kadid10k"][0] < range_of["kadid10k"][1] <= 5
    assert range_of["clive"][1] > 50 and range_of["live"][1] > 50


def falling(runs: dict[tuple[str | None, str], list[tuple[int, float]]]) -> float:
    """Returns the mean over runs of minus Spearman's correlation of level and score."""
    found = []
    for run in runs.values():
        levels, scores = np.array(run).T
        found.append(-scipy.stats.spearmanr(levels, scores)[0])
    return float(np.nanmean(found))


def test_people_follow_the_level(miniatures):
    within: dict = defaultdict(list)
    for r in find_datasets(miniatures, ["csiq"])["csiq"].ratings():
        within[r.group, r.distortion].append((int(r.key[-5]), r.score))
    assert falling(within) >= 0.9
    across: dict = defaultdict(list)
    for r in find_datasets(miniatures, ["kadid10k"])["kadid10k"].ratings():
        across[None, r.distortion].append((int(r.key[-6:-4]), r.score))
    assert all({level for level, _ in run} == {1, 2, 3, 4, 5} for run in across.values())
    assert falling(across) >= 0.8


def test_quality_follows_the_level_of_every_type_of_kadid(scenes):
    pictures = [distort(s, n, k, rng_for(n)) for s in scenes[:2] for n in KADID_TYPES for k in (1, 3, 5)]
    clean = np.repeat(np.stack(scenes[:2]), len(pictures) // 2, axis=0)
    quality = raters.latent_quality(raters.measure(clean, np.stack(pictures)), KadidLayout.panel)
    levels = np.diff(quality.reshape(2, 25, 3).mean(0))
    assert (levels < 0).mean() > 0.95 and levels.max() < 0.05


def test_live_keeps_copies_apart(miniatures):
    root = miniatures / "databaserelease2"
    new = scipy.io.loadmat(root / "dmos_realigned.mat")
    orgs = new["orgs"].ravel() == 1
    counts = json.loads((root / "generated.json").read_text())["blocks"]
    blocks = {kind: counts[kind] for kind in ("jp2k", "jpeg", "wn", "gblur", "fastfading")}
    assert new["dmos_new"].shape == (1, sum(blocks.values()))
    assert np.array_equal(new["dmos_new"].ravel() == 0, orgs) and np.array_equal(
        new["dmos_std"].ravel() == 0, orgs
    )
    names = [str(n[0]) for n in scipy.io.loadmat(root / "refnames_all.mat")["refnames_all"].ravel()]
    files = [root / kind / f"img{i}.bmp" for kind, n in blocks.items() for i in range(1, n + 1)]
    for is_copy, name, file in list(zip(orgs, names, files, strict=True))[::7]:
        same = np.array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(root / "refimgs" / name)))
        assert same == is_copy, file
    last = 2 * len(set(names))  # copies lie anywhere in jp2k, at the end of fastfading
    assert not orgs[blocks["jp2k"] - last : blocks["jp2k"]].all() and orgs[-last // 2 :].all()
    info = [line.split() for line in (root / "wn" / "info.txt").read_text().splitlines()]
    start = blocks["jp2k"] + blocks["jpeg"]
    assert [line[0] for line in info] == names[start : start + blocks["wn"]]


def test_csiq_workbook_is_laid_out_as_the_authors(miniatures, shared):
    ours = openpyxl.load_workbook(miniatures / "CSIQ" / "csiq.DMOS.xlsx")["all_by_image"]
    real = openpyxl.load_workbook(
        shared / "data/original_labels/CSIQ/csiq.DMOS.xlsx", data_only=True, read_only=True
    )["all_by_image"]
    theirs = list(real.iter_rows(min_row=4, max_row=5, min_col=4, max_col=9, values_only=True))
    rows = list(ours.iter_rows(min_row=4, min_col=4, max_col=9, values_only=True))
    assert rows[0] == theirs[0] and [type(v) for v in rows[1][:4]] == [type(v) for v in theirs[1][:4]]
    assert rows[1][:4] == theirs[1][:4] == (1600, 1, "noise", 1)
    assert {r[2] for r in rows[1:]} == {"noise", "jpeg", "jpeg 2000", "fnoise", "blur", "contrast"}


def test_bid_grades_make_its_averages(miniatures):
    book = xlrd.open_workbook(miniatures / "BID" / "DatabaseGrades.xls")
    assert book.sheet_names() == ["Plan1", "Plan2"] and book.sheet_by_name("Plan2").nrows == 0
    sheet = book.sheet_by_name("Plan1")
    assert sheet.ncols == 23 and sheet.row_values(0)[:4] == [
        "Image Number", "Average Subjective Grade", "Number of Grades", "Grade #1",
    ]  # fmt: skip
    for row in range(1, min(sheet.nrows, 71)):
        number, average, count, *grades = sheet.row_values(row)
        grades = [g for g in grades if g != ""]
        assert 10 <= len(grades) == count <= 20 and average == pytest.approx(np.mean(grades))
        assert (miniatures / f"BID/ImageDatabase/DatabaseImage{int(number):04d}.JPG").is_file()


def test_bid_has_upright_photographs_by_exif_and_by_pixels(miniatures):
    shapes = set()
    for path in (miniatures / "BID" / "ImageDatabase").iterdir():
        with Image.open(path) as image:
            shapes.add((image.size, ImageOps.exif_transpose(image).size))
    assert {((320, 240), (320, 240)), ((320, 240), (240, 320)), ((240, 320), (240, 320))} <= shapes


def test_clive_comes_in_the_order_of_its_release(miniatures):
    data = miniatures / "ChallengeDB_release" / "Data"
    cells = scipy.io.loadmat(data / "AllImages_release.mat")["AllImages_release"]
    names = [str(cells[i][0][0]) for i in range(len(cells))]
    assert names[:7] == [f"t{i}.bmp" for i in range(1, 8)]
    release = [s.pictures[0].path.rsplit("/")[-1] for s in CliveLayout().scenes(1.0, 0)][7:]
    first = [n.split(".")[0] for n in release]
    assert first[:11] == [*(str(i) for i in range(100, 110)), "10"] and first[11] == "110"
    assert any(n.endswith(".JPG") for n in names) and any(n.endswith(".bmp") for n in names[7:])
    for key in ("AllMOS_release", "AllStdDev_release"):
        assert scipy.io.loadmat(data / f"{key}.mat")[key].shape == (1, len(names))


def test_koniq_counts_make_its_scores(miniatures):
    with (miniatures / "koniq-10k" / "koniq10k_scores_and_distributions.csv").open() as file:
        rows = list(csv.DictReader(file))
    z = []
    for row in rows:
        votes = np.repeat(np.arange(1, 6), [int(row[f"c{i}"]) for i in range(1, 6)])
        assert len(votes) == int(row["c_total"]) and 93 <= len(votes) <= 157
        assert float(row["MOS"]) == pytest.approx(votes.mean())
        assert float(row["SD"]) == pytest.approx(votes.std(ddof=1))
        assert row["image_name"][:-4].isdigit() and 6 <= len(row["image_name"][:-4]) <= 11
        z.append(float(row["MOS_zscore"]))
    assert 0 <= min(z) < max(z) <= 100
    assert scipy.stats.spearmanr(z, [float(r["MOS"]) for r in rows])[0] > 0.97


def test_kadid_labels_come_from_thirty_whole_votes(miniatures):
    with (miniatures / "kadid10k" / "dmos.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["dist_img", "ref_img", "dmos", "var"]
    assert {r[0].split("_")[1] for r in rows[1:]} == {f"{t:02d}" for t in range(1, 26)}
    for _, _, mean, std in rows[1:]:
        total = round(30 * float(mean))
        # `var` is a population deviation: with whole votes, their squares sum to a whole number
        squares = 30 * float(std) ** 2 + total**2 / 30
        assert abs(squares - round(squares)) < 30 * 2 * float(std) * 0.0005 + 0.01
        assert abs(total / 30 - float(mean)) < 0.005001


# ------------------------------------------------------------------ making


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_same_seed_same_bytes_whatever_the_number_of_processes(tmp_path):
    names = ["clive", "koniq10k"]
    make.make_miniatures(tmp_path / "one", 0.01, 5, names, processes=1)
    make.make_miniatures(tmp_path / "two", 0.01, 5, names, processes=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    make.make_miniatures(tmp_path / "three", 0.01, 6, ["clive"], processes=1)
    first, other = (tree(tmp_path / folder / "ChallengeDB_release") for folder in ("one", "three"))
    assert first.keys() == other.keys()
    assert [name for name in first if first[name] == other[name]] == [
        "Data/AllImages_release.mat",
        "README.txt",
    ]


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_and_does_not_wait_for_itself(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from cliqa_bench.benchmarks.generated.make import make_miniatures\n"
        f"make_miniatures(Path({str(tmp_path / 'data')!r}), 0.1, names=['csiq'], processes=2)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "put what it does under if __name__ == '__main__':" in done.stderr


@pytest.mark.parametrize("name", SIX)
def test_label_files_do_not_depend_on_the_clock(name, tmp_path):
    layout = make.LAYOUTS[name]
    scenes = layout.scenes(0.01, 3)
    rng = rng_for("measures", name)
    measures = [
        np.column_stack([rng.random((len(s.pictures), 3)), rng.random(len(s.pictures)) * 90]) for s in scenes
    ]
    for number in range(2):
        root = tmp_path / str(number)
        for kind in ("jp2k", "jpeg", "wn", "gblur", "fastfading"):
            (root / kind).mkdir(parents=True)
        layout.write_labels(root, scenes, measures, 3)
    assert tree(tmp_path / "0") == tree(tmp_path / "1")
    written = sorted((tmp_path / "0").rglob("*"))
    assert all(p.read_bytes()[:116].rstrip() == MAT_HEADER for p in written if p.suffix == ".mat")
    for path in (p for p in written if p.suffix == ".xlsx"):
        with zipfile.ZipFile(path) as archive:
            assert {item.date_time[0] for item in archive.infolist()} == {1980}
            stamps = re.findall(r">(\d{4})-\d\d-\d\dT", archive.read("docProps/core.xml").decode())
        assert stamps == ["1980", "1980"]


def test_a_finished_dataset_is_kept_and_a_half_made_one_made_again(tmp_path, monkeypatch):
    make.make_miniatures(tmp_path, 0.01, 0, ["bid"], processes=1)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "BID").rglob("*")}
    calls = []

    def killed(folder, scene):
        calls.append(scene)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return np.zeros((len(scene.pictures), 4))

    with monkeypatch.context() as patch:
        patch.setattr(make, "make_scene", killed)
        with pytest.raises(KeyboardInterrupt):
            make.make_miniatures(tmp_path, 0.01, 0, ["bid", "clive"], processes=1)
    assert [p.name for p in tmp_path.iterdir()] == ["BID"]
    make.make_miniatures(tmp_path, 0.01, 0, ["bid", "clive"], processes=1)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "BID").rglob("*")} == before
    assert len(find_datasets(tmp_path, ["clive"])["clive"].ratings()) == 10


def test_what_a_killed_run_left_is_swept_away_and_what_a_living_one_makes_stays(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    living = tmp_path / (disk.temporary_prefix("BID") + "x")
    child.wait()
    dead = tmp_path / living.name.replace(f"~{os.getpid()}~", f"~{child.pid}~")
    living.mkdir()
    dead.mkdir()
    lock = tmp_path / ".making.lock"
    lock.touch()
    make.make_miniatures(tmp_path, 0.01, 0, [], processes=1)
    assert living.exists() and not dead.exists() and not lock.exists()


def test_what_is_not_ours_is_not_overwritten(tmp_path):
    (tmp_path / "CSIQ").mkdir()
    with pytest.raises(UserError, match="is not a generated dataset; choose another folder"):
        make.make_miniatures(tmp_path, 0.01, 0, ["csiq"], processes=1)
    (tmp_path / "CSIQ" / "generated.json").write_text('{"generator": "cliqa_bench", "seed": 9}')
    with pytest.raises(UserError, match="another version, seed or scale"):
        make.make_miniatures(tmp_path, 0.01, 0, ["csiq"], processes=1)


def test_bad_requests_are_answered_in_one_line(tmp_path):
    with pytest.raises(UserError, match="did you mean 'clive'"):
        make.make_miniatures(tmp_path, 0.01, 0, ["clyve"])
    with pytest.raises(UserError, match="scale is 0"):
        make.make_miniatures(tmp_path, 0.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        make.make_miniatures(tmp_path / "file" / "below", 0.01)


def test_the_default_folder_follows_the_cache_seed_and_scale(monkeypatch, tmp_path):
    monkeypatch.setenv("CLIQA_CACHE", str(tmp_path))
    assert make.default_root().parent == tmp_path
    assert len({make.default_root(), make.default_root(1), make.default_root(0, 0.5)}) == 3


def test_contact_sheets_show_the_best_first(miniatures, tmp_path):
    sheets = contact_sheet(miniatures, tmp_path, pictures=15)
    assert sorted(p.stem for p in sheets) == sorted(make.LAYOUTS)
    dataset = find_datasets(miniatures, ["csiq"])["csiq"]
    best = max(dataset.ratings(), key=lambda r: r.score)
    with Image.open(tmp_path / "csiq.png") as sheet:
        assert sheet.size == (10 * 128, 2 * 124)
        shown = np.asarray(sheet)[:112, 8:120]
    assert np.array_equal(shown, np.asarray(Image.open(dataset.path(best.key)).convert("RGB")))
    with pytest.raises(UserError, match="no dataset in"):
        contact_sheet(tmp_path, tmp_path / "none")


def test_measuring_leaves_the_number_of_threads_alone():
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        raters.measure(*np.zeros((2, 1, 48, 48, 3), np.uint8))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
