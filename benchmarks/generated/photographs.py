"""The layouts of BID, LIVE Challenge and KonIQ-10k: photographs with camera faults, no references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cliqa_bench.benchmarks.generated.layouts import Measures, cells, how_many, write_mat
from cliqa_bench.benchmarks.generated.raters import Panel, latent_quality, opinions, z_scores
from cliqa_bench.benchmarks.generated.scenes import Scene, SceneFile, photo_of
from cliqa_bench.seeds import rng_for, seed_for
from cliqa_bench.types import Json


def _scene(name: str, seed: int, index: int, size: tuple[int, int], path: str, turned: bool = False) -> Scene:
    """Returns the scene of one photograph."""
    picture = SceneFile(path, "camera", turned=turned)
    content = seed_for("scene", name, seed, index)
    return Scene(name, content, size, photo_of(name, index, size), None, (picture,))


class BidLayout:
    """BID: large JPEGs, 10 to 20 continuous grades of 0..5 in an Excel sheet, higher is better."""

    name, title, folder, readme = "bid", "BID", "BID", "README.txt"
    panel = Panel(weights=(0.6, 0.2, 1.2), raters=20, middle=0.5, slope=0.15, bias=0.08, noise=0.18)
    gaps = (2, 46, 113, 139)

    def scenes(self, scale: float, seed: int) -> list[Scene]:
        """Landscape photographs; one in eight upright, half of those by EXIF; two of odd shapes."""
        numbers = [n for n in range(1, how_many(160, scale, 10) + 5) if n not in self.gaps]
        found = []
        for index, number in enumerate(numbers[: how_many(160, scale, 10)]):
            upright = index % 8 == 5
            size = {3: (300, 200), 7: (250, 240)}.get(index, (240, 320) if upright else (320, 240))
            path = f"ImageDatabase/DatabaseImage{number:04d}.JPG"
            found.append(_scene(self.name, seed, index, size, path, turned=upright and index % 16 == 5))
        return found

    def write_labels(
        self, root: Path, scenes: Sequence[Scene], measures: Sequence[Measures], seed: int
    ) -> dict[str, Json]:
        """Writes DatabaseGrades.xls: number, average, number of grades, grades; a few rows inconsistent.

        In the authors' sheet a handful of averages do not agree with the listed grades: some grades are
        missing. Here it is one row in eighty.
        """
        import xlwt

        rng = rng_for("raters", self.name, seed)
        said = 5 * opinions(latent_quality(np.concatenate(measures), self.panel), self.panel, rng)
        book = xlwt.Workbook()
        sheet = book.add_sheet("Plan1")
        book.add_sheet("Plan2")
        heads = ["Image Number", "Average Subjective Grade", "Number of Grades"]
        for column, head in enumerate(heads + [f"Grade #{i}" for i in range(1, 21)]):
            sheet.write(0, column, head)
        for row, (scene, grades) in enumerate(zip(scenes, said, strict=True), 1):
            chosen = np.round(rng.permutation(grades)[: rng.integers(10, 21)], 3)
            listed = chosen[:-1] if row % 80 == 71 else chosen
            number = float(scene.pictures[0].path[-8:-4])
            values = [number, float(chosen.mean()), float(len(chosen)), *listed.tolist()]
            for column, value in enumerate(values):
                sheet.write(row, column, value)
        book.save(str(root / "DatabaseGrades.xls"))
        return {"n_images": len(scenes), "n_groups": None}


class CliveLayout:
    """LIVE Challenge: BMP and JPG; MOS of 0..100 in MATLAB files that begin with seven practice entries."""

    name, title, folder, readme = "clive", "CLIVE", "ChallengeDB_release", "README.txt"
    panel = Panel(
        weights=(1.0, 1.0, 0.4), raters=40, middle=0.55, slope=0.19, bias=0.1, use=0.2, noise=0.2, taste=0.03
    )
    practice = 7

    def scenes(self, scale: float, seed: int) -> list[Scene]:
        """Seven practice photographs, then ids from 3 on in the order of the release."""
        count = how_many(220, scale, 10)
        ids = range(3, 3 + count)
        # BMP first, JPG after them, and a few BMP at the very end, as the real ids have it
        bitmap = [i < 3 + 0.46 * count or i > count - 3 for i in ids]
        names = [f"{i}.{'bmp' if bmp else 'JPG'}" for i, bmp in zip(ids, bitmap, strict=True)]
        names.sort(key=lambda n: n.split(".")[0] + "~")  # 100 .. 109, 10, 110: "10" after all that begin so
        odd = {f"{3 + count - k}": size for k, size in ((2, (160, 120)), (3, (120, 160)), (9, (144, 96)))}
        paths = [f"Images/trainingImages/t{i}.bmp" for i in range(1, self.practice + 1)]
        paths += [f"Images/{n}" for n in names]
        sizes = [odd.get(Path(p).stem, (112, 112)) for p in paths]
        return [
            # a photograph's content belongs to its name, so that practice does not use up the crops
            _scene(self.name, seed, (i - self.practice) % len(paths), size, path)
            for i, (path, size) in enumerate(zip(paths, sizes, strict=True))
        ]

    def write_labels(
        self, root: Path, scenes: Sequence[Scene], measures: Sequence[Measures], seed: int
    ) -> dict[str, Json]:
        """Writes Data/AllImages_release.mat, AllMOS_release.mat and AllStdDev_release.mat."""
        quality = latent_quality(np.concatenate(measures), self.panel)
        said = 100 * opinions(quality, self.panel, rng_for("raters", self.name, seed))
        names = [Path(s.pictures[0].path).name for s in scenes]
        data = root / "Data"
        data.mkdir(parents=True, exist_ok=True)
        write_mat(data / "AllImages_release.mat", AllImages_release=cells(names, (len(names), 1)))
        write_mat(data / "AllMOS_release.mat", AllMOS_release=said.mean(1)[None])
        write_mat(data / "AllStdDev_release.mat", AllStdDev_release=said.std(1, ddof=1)[None])
        return {"n_images": len(scenes) - self.practice, "n_groups": None, "n_practice": self.practice}


class KoniqLayout:
    """KonIQ-10k: small JPEGs and the official csv with counts of votes 1..5, MOS, SD and MOS_zscore."""

    name, title, folder, readme = "koniq10k", "KonIQ-10K", "koniq-10k", "README.txt"
    panel = Panel(
        weights=(0.7, 1.0, 0.5), colour=0.07, raters=160, middle=0.5, slope=0.2, bias=0.1, use=0.2,
        noise=0.18, taste=0.03,
    )  # fmt: skip
    size = (128, 96)

    def scenes(self, scale: float, seed: int) -> list[Scene]:
        """Photographs named by numbers of 6 to 11 digits, in the order of the numbers as text."""
        count = how_many(320, scale, 10)
        digits = rng_for("koniq names", seed)
        numbers: set[int] = set()
        while len(numbers) < count:
            numbers.add(int(10 ** digits.uniform(5.0, 11.0)))
        names = sorted(str(n) for n in numbers)
        return [_scene(self.name, seed, i, self.size, f"1024x768/{n}.jpg") for i, n in enumerate(names)]

    def write_labels(
        self, root: Path, scenes: Sequence[Scene], measures: Sequence[Measures], seed: int
    ) -> dict[str, Json]:
        """Writes koniq10k_scores_and_distributions.csv."""
        rng = rng_for("raters", self.name, seed)
        said = opinions(latent_quality(np.concatenate(measures), self.panel), self.panel, rng)
        votes = np.clip(np.rint(0.9 + 3.8 * said), 1, 5)
        total = rng.integers(93, 158, len(scenes))
        asked = rng.permuted(np.arange(self.panel.raters)[None] < total[:, None], axis=1)
        counts = np.stack([((votes == grade) & asked).sum(1) for grade in range(1, 6)], 1)
        grades = np.arange(1, 6)
        mos = counts @ grades / total
        sd = np.sqrt((counts * (grades - mos[:, None]) ** 2).sum(1) / (total - 1))
        z = np.where(asked, z_scores(votes), 0).sum(1) / total
        z_mos = np.clip(50 + 20 * z, 0, 100)
        lines = ["image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,MOS_zscore\n"]
        for index, scene in enumerate(scenes):
            row = [Path(scene.pictures[0].path).name, *counts[index].tolist(), int(total[index])]
            row += [f"{v:.15g}" for v in (mos[index], sd[index], z_mos[index])]
            lines.append(",".join(str(v) for v in row) + "\n")
        (root / "koniq10k_scores_and_distributions.csv").write_text("".join(lines), newline="\n")
        return {"n_images": len(scenes), "n_groups": None}
