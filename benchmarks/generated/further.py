"""The layouts of TID2013, SPAQ, AGIQA-3K and FLIVE: datasets that no order of the paper learns."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cliqa_bench.benchmarks.generated.distortions import TID2013_TYPES
from cliqa_bench.benchmarks.generated.layouts import Measures, how_many, write_xlsx
from cliqa_bench.benchmarks.generated.raters import Panel, latent_quality, opinions
from cliqa_bench.benchmarks.generated.scenes import Scene, SceneFile
from cliqa_bench.seeds import rng_for, seed_for
from cliqa_bench.types import Json


class TidLayout:
    """TID2013: BMP of 24 types, MOS of pair comparisons on 0..9, and the deviation of the MOS itself."""

    name, title, folder, readme = "tid2013", "TID2013", "tid2013", "readme"
    panel = Panel(weights=(1.0, 0.8, 0.6), raters=33, middle=0.5, slope=0.18, bias=0.04, noise=0.14)
    size = (128, 96)
    capital = ("01", "11", "13")
    """Types whose first level has a capital I in the authors' archive, the last two with .BMP."""

    def scenes(self, scale: float, seed: int) -> list[Scene]:
        """All 24 types of every reference, each at one of its five levels; levels go round."""
        found = []
        for index in range(how_many(6, scale, 3)):
            files = []
            for number, kind in enumerate(TID2013_TYPES, 1):
                level = 1 + (index + number) % 5
                path = f"distorted_images/{self._name(index + 1, number, level)}"
                files.append(SceneFile(path, kind, level))
            content = seed_for("scene", self.name, seed, index)
            reference = f"reference_images/I{index + 1:02d}.BMP"
            found.append(Scene(self.name, content, self.size, None, reference, tuple(files)))
        return found

    def _name(self, reference: int, number: int, level: int) -> str:
        kind = f"{number:02d}"
        odd = level == 1 and kind in self.capital
        suffix = "BMP" if odd and kind != "01" else "bmp"
        return f"{'I' if odd else 'i'}{reference:02d}_{kind}_{level}.{suffix}"

    def write_labels(
        self, root: Path, scenes: Sequence[Scene], measures: Sequence[Measures], seed: int
    ) -> dict[str, Json]:
        """Writes mos_with_names.txt, mos.txt and mos_std.txt."""
        quality = latent_quality(np.concatenate(measures), self.panel)
        said = 0.3 + 7.2 * opinions(quality, self.panel, rng_for("raters", self.name, seed))
        mos, std = said.mean(1), said.std(1, ddof=1) / np.sqrt(self.panel.raters)
        names = [Path(picture.path).name for scene in scenes for picture in scene.pictures]
        lines = {
            "mos_with_names.txt": [f"{m:.5f} {name}" for m, name in zip(mos, names, strict=True)],
            "mos.txt": [f"{m:.5f}" for m in mos],
            "mos_std.txt": [f"{s:.5f}" for s in std],
        }
        for file, rows in lines.items():
            (root / file).write_text("\n".join(rows) + "\n", newline="\n")
        return {"n_images": len(names), "n_groups": len(scenes)}


class SpaqLayout:
    """SPAQ: photographs larger than those of the other sets, MOS and attributes in a workbook, no std."""

    name, title, folder, readme = "spaq", "SPAQ", "SPAQ", "README.txt"
    panel = Panel(weights=(0.6, 0.6, 1.0), colour=0.04, raters=17, middle=0.42, slope=0.18, noise=0.15)
    size = (384, 288)
    attributes = ("Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")

    def scenes(self, scale: float, seed: int) -> list[Scene]:
        """Photographs 00001.jpg, 00002.jpg, ...; one in seven is on its side, as a phone's EXIF says."""
        found = []
        for i in range(how_many(80, scale, 10)):
            picture = SceneFile(f"TestImage/{i + 1:05d}.jpg", "camera", turned=i % 7 == 3)
            content = seed_for("scene", self.name, seed, i)
            found.append(Scene(self.name, content, self.size, None, None, (picture,)))
        return found

    def write_labels(
        self, root: Path, scenes: Sequence[Scene], measures: Sequence[Measures], seed: int
    ) -> dict[str, Json]:
        """Writes the workbook; attributes follow the quality, each with an error of its own."""
        from openpyxl import Workbook

        rng = rng_for("raters", self.name, seed)
        quality = latent_quality(np.concatenate(measures), self.panel)
        mos = 100 * opinions(quality, self.panel, rng).mean(1)
        felt = np.clip(mos[:, None] + rng.normal(0, 10, (len(mos), len(self.attributes))), 0, 100)
        book = Workbook()
        sheet = book.active
        sheet.title = "Sheet1"
        sheet.append(["Image name", "MOS", *self.attributes])
        for scene, score, row in zip(scenes, mos, felt, strict=True):
            name = Path(scene.pictures[0].path).name
            sheet.append([name, round(float(score), 2), *(round(float(v), 2) for v in row)])
        (root / "Annotations").mkdir(exist_ok=True)
        write_xlsx(root / "Annotations" / "MOS and Image attribute scores.xlsx", book)
        return {"n_images": len(scenes), "n_groups": None}


class FliveLayout:
    """FLIVE: photographs from the web under their sources' names, MOS without std, the authors' split."""

    name, title, folder, readme = "flive", "FLIVE", "FLIVE", "README.txt"
    panel = Panel(weights=(0.7, 0.9, 0.6), colour=0.05, raters=35, middle=0.4, slope=0.2, noise=0.2)
    sizes = ((144, 108), (108, 144), (160, 120), (120, 112))
    sources = (
        "voc_emotic_ava/AVA__", "voc_emotic_ava/JPEGImages__", "voc_emotic_ava/EMOTIC__", "blur_dataset/",
    )  # fmt: skip
    """Folder and prefix of the pictures of each source; every tenth is for the test, every fifth of the rest
    for validation."""

    def scenes(self, scale: float, seed: int) -> list[Scene]:
        """Photographs of four shapes, the sources in turn."""
        found = []
        for i in range(how_many(80, scale, 10)):
            picture = SceneFile(f"database/{self.sources[i % 4]}{i + 1:05d}.jpg", "camera")
            content = seed_for("scene", self.name, seed, i)
            found.append(Scene(self.name, content, self.sizes[i % 4], None, None, (picture,)))
        return found

    def write_labels(
        self, root: Path, scenes: Sequence[Scene], measures: Sequence[Measures], seed: int
    ) -> dict[str, Json]:
        """Writes labels_image.csv, and the split: labels640.csv and labels=640_padded.csv."""
        quality = latent_quality(np.concatenate(measures), self.panel)
        mos = 35 + 58 * opinions(quality, self.panel, rng_for("raters", self.name, seed)).mean(1)
        names = [scene.pictures[0].path.removeprefix("database/") for scene in scenes]
        rated = [f"{name},{score:.6f}" for name, score in zip(names, mos, strict=True)]
        tests, others = names[9::10], [name for i, name in enumerate(names) if i % 10 != 9]
        lines = {
            "labels_image.csv": ["name,mos", *rated],
            "labels640.csv": ["name_image", *tests],
            "labels=640_padded.csv": [
                "name_image,is_valid",
                *(f"{name},{i % 5 == 4}" for i, name in enumerate(others)),
            ],
        }
        for file, rows in lines.items():
            (root / file).write_text("\n".join(rows) + "\n", newline="\n")
        return {"n_images": len(names), "n_groups": None}


class AgiqaLayout:
    """AGIQA-3K: pictures of the same prompts by several generators, each with the faults of its kind."""

    name, title, folder, readme = "agiqa3k", "AGIQA-3K", "AGIQA-3K", "README.txt"
    panel = Panel(weights=(1.0, 0.6, 0.8), raters=21, middle=0.62, slope=0.2, bias=0.08, noise=0.16)
    size = (112, 112)
    generators = (
        ("AttnGAN_normal", "melt", 4.6), ("glide_normal", "smear", 4.7), ("sd1.5_normal", "geometry", 1.8),
        ("sd1.5_highcorr", "overdone", 4.0), ("sd1.5_lowcorr", "geometry", 2.2),
        ("sd1.5_lowstep", "few_steps", 2.0), ("xl2.2_normal", "smear", 2.4),
        ("midjourney_normal", "overdone", 2.8), ("midjourney_lowstep", "few_steps", 2.6),
        ("DALLE2_normal", "scribble", 4.3),
    )  # fmt: skip
    """Generator and setting, what it gets wrong, and how much (a level, 1 to 5)."""
    adjectives = ("", "warm color", "cold color", "close-up", "hyper detail")
    styles = ("", "anime style", "baroque style", "realistic style")

    def scenes(self, scale: float, seed: int) -> list[Scene]:
        """A picture of every prompt by every generator; DALL-E 2 made none for every fifth prompt."""
        found = []
        for prompt in range(how_many(12, scale, 3)):
            rng = rng_for("generators", seed, prompt)
            files = []
            for generator, fault, level in self.generators:
                spoilt = float(np.clip(level + rng.normal(0, 0.6), 1, 5))
                if generator != "DALLE2_normal" or prompt % 5 != 4:
                    files.append(SceneFile(f"{generator}_{prompt:03d}.jpg", f"generator:{fault}", spoilt))
            content = seed_for("scene", self.name, seed, prompt)
            found.append(Scene(self.name, content, self.size, None, None, tuple(files)))
        return found

    def write_labels(
        self, root: Path, scenes: Sequence[Scene], measures: Sequence[Measures], seed: int
    ) -> dict[str, Json]:
        """Writes data.csv: prompts quoted where they hold commas, quality and alignment with deviations.

        How well a picture fits its prompt follows its quality in part, as in the real set (SRCC 0.74).
        """
        rng = rng_for("raters", self.name, seed)
        quality = latent_quality(np.concatenate(measures), self.panel)
        fit = np.clip(0.7 * quality + 0.3 * rng.random(len(quality)), 0, 1)
        said, aligned = (5 * opinions(latent, self.panel, rng) for latent in (quality, fit))
        both = said.mean(1), said.std(1, ddof=1), aligned.mean(1), aligned.std(1, ddof=1)
        names = [(p.path, n) for n, scene in enumerate(scenes) for p in scene.pictures]
        with (root / "data.csv").open("w", newline="", encoding="ascii") as file:
            writer = csv.writer(file)  # its lines end with CRLF
            numbers = ("mos_quality", "std_quality", "mos_align", "std_align")
            writer.writerow(("name", "prompt", "adj1", "adj2", "style", *numbers))
            for (name, number), values in zip(names, np.stack(both, 1), strict=True):
                adjective = self.adjectives[number % len(self.adjectives)]
                style = self.styles[number % len(self.styles)]
                prompt = ", ".join(filter(None, (f"scene number {number}", adjective, style)))
                writer.writerow([name, prompt, adjective, "", style, *(f"{v:.9f}" for v in values)])
        return {"n_images": len(names), "n_groups": len(scenes)}
