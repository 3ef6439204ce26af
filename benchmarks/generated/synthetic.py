"""The layouts of LIVE, CSIQ and KADID-10k: references, distorted versions, labels by studio or crowd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cliqa_bench.benchmarks.generated.distortions import CSIQ, DISTORTIONS, KADID_TYPES, LIVE
from cliqa_bench.benchmarks.generated.layouts import Measures, cells, how_many, write_mat, write_xlsx
from cliqa_bench.benchmarks.generated.raters import Panel, latent_quality, opinions, z_scores
from cliqa_bench.benchmarks.generated.scenes import Scene, SceneFile, photo_of
from cliqa_bench.seeds import rng_for, seed_for
from cliqa_bench.types import Json

# name: size of the miniature; the real ones are 768x512, 480x720 (portraits), 640x512, 634x438 and a few more
LIVE_REFERENCES: dict[str, tuple[int, int]] = {
    "bikes": (144, 96), "buildings": (144, 96), "lighthouse": (96, 144), "building2": (120, 96),
    "churchandcapitol": (121, 97), "caps": (144, 96), "woman": (96, 144), "manfishing": (139, 97),
    "dancers": (131, 96), "carnivaldolls": (121, 96), "cemetry": (125, 97), "house": (144, 96),
    "coinsinfountain": (120, 96), "lighthouse2": (144, 96), "sailing2": (96, 144), "monarch": (144, 96),
    "flowersonih35": (120, 96), "ocean": (144, 96), "sailing3": (96, 144), "paintedhouse": (144, 96),
    "studentsculpture": (120, 97), "parrots": (144, 96), "statue": (96, 144), "plane": (144, 96),
    "rapids": (144, 96), "sailing1": (144, 96), "womanhat": (96, 144), "sailing4": (144, 96),
    "stream": (144, 96),
}  # fmt: skip
LIVE_COPIES = {"jp2k": 2, "jpeg": 2, "wn": 1, "gblur": 1, "fastfading": 1}
"""Plain copies of each reference among the files of a folder, as in the real set (58, 58, 29, 29, 29)."""

CSIQ_REFERENCES = (
    "1600", "aerial_city", "boston", "bridge", "cactus", "elk", "foxy", "sunsetcolor", "turtle", "woman",
    "butter_flower", "child_swimming", "couple", "family", "fisher", "geckos", "lady_liberty", "lake",
    "log_seaside", "monument", "native_american", "redwood", "roping", "rushmore", "shroom", "snow_leaves",
    "sunset_sparrow", "swarm", "trolley", "veggies",
)  # fmt: skip
CSIQ_THREE_CONTRASTS = ("elk", "geckos", "lady_liberty", "swarm")
# folder: (token in the file name, dst_type in the workbook); the order is that of dst_idx
CSIQ_TYPES = {
    "awgn": ("AWGN", "noise"),
    "jpeg": ("JPEG", "jpeg"),
    "jpeg2000": ("jpeg2000", "jpeg 2000"),
    "fnoise": ("fnoise", "fnoise"),
    "blur": ("BLUR", "blur"),
    "contrast": ("contrast", "contrast"),
}


def numbered(names: Sequence[str], count: int) -> list[str]:
    """Returns `count` names, going round with a number where there are more than names."""
    return [n if not turn else f"{n}_{turn + 1}" for turn in range(count) for n in names][:count]


class LiveLayout:
    """LIVE release 2: five folders of BMP with copies of the references among them; DMOS, lower is better."""

    name, title, folder, readme = "live", "LIVE", "databaserelease2", "README.txt"
    panel = Panel(weights=(1.0, 0.4, 1.0), middle=0.5, raters=23, taste=0.025)

    def scenes(self, scale: float, seed: int) -> list[Scene]:
        """Four versions of every reference in each of the five folders, at irregular levels."""
        count = how_many(10, scale, 3)
        references = numbered(list(LIVE_REFERENCES), count)
        sizes = [LIVE_REFERENCES[n.rsplit("_", 1)[0]] for n in references]
        files: list[list[SceneFile]] = [[] for _ in references]
        for kind in LIVE:
            entries = []
            for index in range(count):
                rng = rng_for("live levels", kind, index, seed)
                levels = 1 + (np.arange(4) + rng.uniform(0.05, 0.95, 4)) * (4 / 4)
                entries += [(index, f"live:{kind}", float(level)) for level in levels]
            copies = [(index, "", 0.0) for index in range(count) for _ in range(LIVE_COPIES[kind])]
            rng = rng_for("live order", kind, seed)
            if kind in ("jp2k", "jpeg"):  # copies are anywhere between the others
                entries = [(entries + copies)[i] for i in rng.permutation(len(entries) + len(copies))]
            else:  # copies come last
                entries = [entries[i] for i in rng.permutation(len(entries))] + copies
            for number, (index, fault, level) in enumerate(entries, 1):
                files[index].append(SceneFile(f"{kind}/img{number}.bmp", fault, level))
        return [
            Scene(
                self.name,
                seed_for("scene", self.name, seed, index),
                sizes[index],
                photo_of(self.name, index, sizes[index]),
                f"refimgs/{references[index]}.bmp",
                tuple(files[index]),
            )
            for index in range(count)
        ]

    def write_labels(
        self, root: Path, scenes: Sequence[Scene], measures: Sequence[Measures], seed: int
    ) -> dict[str, Json]:
        """Writes dmos.mat, dmos_realigned.mat, refnames_all.mat and an info.txt per folder."""
        rows = [
            (p, s, m)
            for s, ms in zip(scenes, measures, strict=True)
            for p, m in zip(s.pictures, ms, strict=True)
        ]
        rows.sort(
            key=lambda r: (list(LIVE).index(r[0].path.split("/")[0]), int(r[0].path.split("img")[1][:-4]))
        )
        copy = np.array([p.fault == "" for p, _, _ in rows])
        quality = np.where(copy, 1.0, latent_quality(np.array([m for _, _, m in rows]), self.panel))
        said = opinions(quality, self.panel, rng_for("raters", self.name, seed))
        # the difference to the same rater's opinion of the hidden reference
        owner = np.array([scenes.index(s) for _, s, _ in rows])
        hidden = np.stack([said[copy & (owner == i)].mean(0) for i in range(len(scenes))])
        z = z_scores((hidden[owner] - said)[~copy])
        dmos, std = np.zeros(len(rows)), np.zeros(len(rows))
        dmos[~copy] = 50 + 28 * z.mean(1)
        std[~copy] = 28 * z.std(1, ddof=1) / np.sqrt(self.panel.raters)
        orgs = copy.astype(np.uint8)[None]
        write_mat(root / "dmos_realigned.mat", dmos_new=dmos[None], dmos_std=std[None], orgs=orgs)
        # the first release of the scores was neither re-aligned between sessions nor given with deviations
        raw = np.where(copy, 0.0, 100 * (hidden[owner] - said).mean(1).clip(0.001))
        write_mat(root / "dmos.mat", dmos=raw[None], orgs=orgs)
        names = [str(s.reference).split("/")[1] for _, s, _ in rows]
        write_mat(root / "refnames_all.mat", refnames_all=cells(names, (1, len(names))))
        blocks = {}
        for kind in LIVE:
            block = [
                (p, n) for (p, _, _), n in zip(rows, names, strict=True) if p.path.startswith(f"{kind}/")
            ]
            blocks[kind] = len(block)
            lines = [f"{n} {p.path.split('/')[1]} {_parameter(p):.6f}\n" for p, n in block]
            (root / kind / "info.txt").write_text("".join(lines), newline="\n")
        return {"n_images": int((~copy).sum()), "n_groups": len(scenes), "blocks": blocks}


def _parameter(picture: SceneFile) -> float:
    """Returns the strength of a picture's distortion; 0 for a copy."""
    return DISTORTIONS[picture.fault].strength(picture.level) if picture.fault else 0.0


class CsiqLayout:
    """CSIQ: folders of PNG by type and a workbook; DMOS in 0..1, lower is better."""

    name, title, folder, readme = "csiq", "CSIQ", "CSIQ", "README.txt"
    panel = Panel(weights=(1.0, 1.0, 0.3), middle=0.5, slope=0.17, raters=35)
    size = (112, 112)

    def scenes(self, scale: float, seed: int) -> list[Scene]:
        """Every reference in six types, five levels each, contrast in three or four."""
        references = numbered(CSIQ_REFERENCES, how_many(10, scale, 3))
        found = []
        for index, name in enumerate(references):
            files = []
            for kind, (token, _) in CSIQ_TYPES.items():
                top = len(CSIQ[kind].strengths) - (kind == "contrast" and name in CSIQ_THREE_CONTRASTS)
                files += [
                    SceneFile(f"dst_imgs/{kind}/{name}.{token}.{level}.png", f"csiq:{kind}", level)
                    for level in range(1, top + 1)
                ]
            photo = photo_of(self.name, index, self.size)
            content = seed_for("scene", self.name, seed, index)
            found.append(Scene(self.name, content, self.size, photo, f"src_imgs/{name}.png", tuple(files)))
        return found

    def write_labels(
        self, root: Path, scenes: Sequence[Scene], measures: Sequence[Measures], seed: int
    ) -> dict[str, Json]:
        """Writes csiq.DMOS.xlsx: sheet all_by_image, table at D4; the first reference is the integer 1600."""
        from openpyxl import Workbook

        said = opinions(
            latent_quality(np.concatenate(measures), self.panel),
            self.panel,
            rng_for("raters", self.name, seed),
        )
        bad = -z_scores(said)
        low, high = bad.mean(1).min(), bad.mean(1).max()
        dmos, std = (bad.mean(1) - low) / (high - low), bad.std(1, ddof=1) / (high - low)
        book = Workbook()
        sheet, other = book.active, book.create_sheet("all_by_distortion")
        sheet.title = "all_by_image"
        for column, head in enumerate(("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"), 4):
            sheet.cell(4, column, head)
            other.cell(4, column, head)
        kinds = list(CSIQ_TYPES)
        rows = []
        for index, path in enumerate(p.path for s in scenes for p in s.pictures):
            _, kind, file = path.split("/")
            name, _, level, _ = file.split(".")
            image: str | int = int(name) if name.isdigit() else name
            rows.append(
                (
                    image,
                    kinds.index(kind) + 1,
                    CSIQ_TYPES[kind][1],
                    int(level),
                    float(std[index]),
                    float(dmos[index]),
                )
            )
        for target, ordered in ((sheet, rows), (other, sorted(rows, key=lambda r: r[1]))):
            for line, row in enumerate(ordered, 5):
                for column, value in enumerate(row, 4):
                    target.cell(line, column, value)
        write_xlsx(root / "csiq.DMOS.xlsx", book)
        return {"n_images": len(rows), "n_groups": len(scenes)}


class KadidLayout:
    """KADID-10k: PNG beside their references; a mean of 30 votes of 1..5, called DMOS, higher is better."""

    name, title, folder, readme = "kadid10k", "KADID-10K", "kadid10k", "readme.txt"
    panel = Panel(
        weights=(1.0, 1.0, 0.3), raters=30, middle=0.5, slope=0.17, bias=0.09, noise=0.16, taste=0.03
    )
    size = (128, 96)

    def scenes(self, scale: float, seed: int) -> list[Scene]:
        """All 25 types of every reference, each at one of its five levels; levels go round.

        Five references together show all levels of all types, and every reference has five types at each
        level. With so few pictures, more contents teach more than more levels of one content.
        """
        found = []
        for index in range(how_many(20, scale, 3)):
            name = f"I{index + 1:02d}"
            files = []
            for number, kind in enumerate(KADID_TYPES, 1):
                level = 1 + (index + number) % 5
                files.append(SceneFile(f"images/{name}_{number:02d}_{level:02d}.png", kind, level))
            photo = photo_of(self.name, index, self.size)
            content = seed_for("scene", self.name, seed, index)
            found.append(Scene(self.name, content, self.size, photo, f"images/{name}.png", tuple(files)))
        return found

    def write_labels(
        self, root: Path, scenes: Sequence[Scene], measures: Sequence[Measures], seed: int
    ) -> dict[str, Json]:
        """Writes dmos.csv: mean with two decimals, `var` (a standard deviation) with three."""
        quality = latent_quality(np.concatenate(measures), self.panel)
        said = opinions(quality, self.panel, rng_for("raters", self.name, seed))
        votes = np.clip(np.rint(1 + 4 * said), 1, 5)
        lines = ["dist_img,ref_img,dmos,var\n"]
        pictures = [
            (p.path.split("/")[1], str(s.reference).split("/")[1]) for s in scenes for p in s.pictures
        ]
        for (file, ref), mean, std in zip(pictures, votes.mean(1), votes.std(1), strict=True):
            lines.append(f"{file},{ref},{mean:.2f},{std:.3f}\n")
        (root / "dmos.csv").write_text("".join(lines), newline="\n")
        return {"n_images": len(pictures), "n_groups": len(scenes)}
