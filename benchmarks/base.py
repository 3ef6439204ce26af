"""What a dataset is: a folder in its authors' own layout, and the ratings read from their own files."""

from __future__ import annotations

import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from cliqa_bench.benchmarks.pixels.decode import RELEASED, Reading
from cliqa_bench.errors import UserError, join_names, refuse
from cliqa_bench.part_names import PartName
from cliqa_bench.results.nodes import read_json
from cliqa_bench.types import Rating, Subset

IMAGE_SUFFIXES = frozenset({".bmp", ".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".webp"})

_FACTS = ("title", "folders", "label_files", "image_folders", "homepage", "n_images", "direction")
"""What a class must state."""


class ScoreFacts(NamedTuple):
    """What is known of the scores of a release, over all its rated images.

    Attributes:
        low: The least `Rating.score`.
        high: The greatest.
        mean: Their mean.
    """

    low: float
    high: float
    mean: float


SCORE_TOLERANCE = 2e-3
"""How far scores may be from `ScoreFacts`, as a share of their range: the facts are rounded."""


class Entry(NamedTuple):
    """A rating and where it was read, for messages.

    Attributes:
        where: Label file and row.
        rating: What stands there.
    """

    where: str
    rating: Rating


class Dataset(ABC):
    """A dataset of rated images.

    A subclass states the facts below and reads its label files in `entries`. One module holds one subclass;
    the module's name is the dataset's name on the command line.

    Attributes:
        name: Name on the command line; the file's where none is given.
        title: Name in the paper's tables.
        folders: Names that its folder goes by, the authors' own first (case and punctuation do not matter).
        label_files: Label files relative to the root, any of which marks the dataset's root.
        image_folders: Folders relative to the root that hold images, with all below them; "" stands for the
            files of the root itself.
        citation: Whom to cite, `A. Author, B. Author: Title. Venue, 2026`, or several; `cite` prints it.
        licence: Terms of its authors, if they name them: an SPDX name or an address; "" sends readers
            to the download page.
        homepage: Its download page.
        n_images: Number of rated images of the real dataset.
        n_groups: Number of reference images; None if there are none.
        direction: Which values of the AUTHORS' label are better. `Rating.score` is always higher-better.
        rule: How the score is made from the authors' label.
        n_pairs_paper: Training pairs in Table II of the TSN-IQA paper; None where it does not learn the set.
        n_pairs_files: Training pairs in the published pair lists; None where none is published.
        labels_digest: `digest_of` the ratings of the release, where they are known; tells a digit that was
            changed and scores that were shuffled, which nothing else in a label file tells.
        score_facts: Range and mean of the release's scores, in our direction; None where they are not known.
        official_counts: Images for train, val and test in the authors' split; None if they published none.
        distortions: `Rating.distortion` of its images, in the authors' order; () where it does not say.
        groups: Names for several of them (`common`), for parts such as `csiq:common`.
        stream: Groups that `distortions:NAME` learns one after the other; () for every distortion.
        part: Which part of another dataset it is; None for a whole one.
        labelled: Whether its training and validation images have opinion scores.
        home: The folder in which it is looked for; None for the folder that holds all datasets.
        reading: How its pictures are read where there is a choice.
        root: The dataset's own folder.

    Example:
        >>> from cliqa_bench.benchmarks.live import Live
        >>> live = Live(Path("IQA/databaserelease2"))
        >>> live.direction, live.n_images
        ('lower', 779)
        >>> len(live.ratings()) == live.expected_images  # a miniature has fewer
        True
    """

    name: ClassVar[str]
    title: ClassVar[str]
    folders: ClassVar[tuple[str, ...]]
    label_files: ClassVar[tuple[str, ...]]
    image_folders: ClassVar[tuple[str, ...]]
    citation: ClassVar[str | tuple[str, ...]] = ""
    licence: ClassVar[str] = ""
    homepage: ClassVar[str]
    n_images: ClassVar[int]
    n_groups: ClassVar[int | None] = None
    direction: ClassVar[Literal["higher", "lower"]]
    rule: ClassVar[str]
    n_pairs_paper: ClassVar[int | None] = None
    n_pairs_files: ClassVar[int | None] = None
    labels_digest: ClassVar[str | None] = None
    score_facts: ClassVar[ScoreFacts | None] = None
    official_counts: ClassVar[tuple[int, int, int] | None] = None
    distortions: ClassVar[tuple[str, ...]] = ()
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    stream: ClassVar[tuple[str, ...]] = ()
    part: ClassVar[PartName | None] = None
    labelled: ClassVar[bool] = True
    home: ClassVar[Path | None] = None
    reading: Reading = RELEASED

    def __init_subclass__(cls) -> None:
        """Names the dataset after its file, unless it sets a name."""
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__module__.rpartition(".")[2]

    @classmethod
    def check_declared(cls) -> None:
        """Refuses a class that lacks a fact which every dataset must state.

        Raises:
            UserError: Names all facts that are missing.
        """
        lacking = [fact for fact in _FACTS if not hasattr(cls, fact)]
        if lacking:
            raise UserError(
                f"the dataset {cls.name} ({cls.__qualname__}) does not state {join_names(lacking)}; see "
                "docs/adding_a_dataset.md"
            )
        if cls.direction not in ("higher", "lower"):
            raise UserError(
                f"the dataset {cls.name}: direction must be higher or lower, not {cls.direction!r}"
            )

    def __init__(self, root: Path) -> None:
        """Opens a dataset; nothing but folder names is read before it is needed.

        Args:
            root: The dataset's folder; some archives nest it in a folder of the same name.
        """
        self.root = self._unnested(Path(root))
        self.stray_links: list[Path] = []
        self.may_lack_scores = False  # for an unlabelled part: an image without a score has nan
        self.twins: dict[str, list[str]] = {}  # lower-case path -> files that differ from it only in case

    @classmethod
    def _unnested(cls, root: Path) -> Path:
        names = {folded(name) for name in cls.folders}
        for _ in range(2):  # unpacked into a folder of its own, the archive may nest it twice
            if any(find_file(root, name) for name in cls.label_files):
                return root
            children = [root / name for name in next(os.walk(root), (root, [], []))[1]]
            nested = sorted(child for child in children if folded(child.name) in names)
            if not nested:
                return root
            root = nested[0]
        return root

    @cached_property
    def generated(self) -> dict[str, Any] | None:
        """The content of `generated.json` where the dataset is a generated miniature, else None.

        Raises:
            UserError: If the file is broken.
        """
        path = self.root / "generated.json"
        if not path.is_file():
            return None
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("n_images"), int):
            raise UserError(f"{path} does not describe generated data (no n_images); make the data again")
        return content

    @property
    def expected_images(self) -> int:
        """Number of rated images that must be there."""
        return self.n_images if self.generated is None else int(self.generated["n_images"])

    @property
    def expected_groups(self) -> int | None:
        """Number of reference images that the ratings must name; None if there are none."""
        return self.n_groups if self.generated is None else self.generated.get("n_groups", self.n_groups)

    @property
    def variant(self) -> str:
        """What distinguishes this copy from others of the same dataset ("512x384"); "" for nothing."""
        return ""

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Reads the authors' label files, in the order in which they list the images.

        Raises:
            UserError: If a file is missing or anything in it is not as the authors' release has it.
        """

    def ratings(self) -> list[Rating]:
        """Returns the ratings in the order of the authors' label file.

        Raises:
            UserError: If label files are missing, broken, or do not hold the number of images they should.
        """
        return list(self._ratings)

    @cached_property
    def _ratings(self) -> list[Rating]:
        if not self.root.is_dir():
            raise UserError(
                f"{self.title}: there is no folder {self.root}; get the dataset from {self.homepage}"
            )
        faults: list[UserError] = []
        try:
            entries = self.entries()
        except UserError as error:
            entries, faults = [row for row in error.whole if isinstance(row, Entry)], [*error.each]
        else:
            if self.may_lack_scores:
                entries = [*entries, *self._left_out(entries)]
            faults += self._miscounted(entries)
        faults += self._rated_twice(entries)
        refuse(faults)
        return [rating for _, rating in entries]

    def unrated(self, relative: str) -> Rating | None:
        """Reads reference and distortion from the name of a picture that the label files leave out.

        An unlabelled part of a dataset can do without the rows of the images that it learns from.

        Args:
            relative: Path of the picture, relative to the root.

        Returns:
            Key, reference and distortion, with the score and the deviation nan; None where it does not tell.
        """
        return None

    def _left_out(self, entries: Sequence[Entry]) -> list[Entry]:
        named = {c.lower() for _, rating in entries for c in self.candidates(rating.key)}
        files = [p for low, p in self.files.items() if low not in named and not self.is_extra(low)]
        found = ((path, self.unrated(path)) for path in files)
        return [Entry(f"the picture {path}", rating) for path, rating in found if rating is not None]

    def _rated_twice(self, entries: Sequence[Entry]) -> list[UserError]:
        """Returns a fault for every image that is rated again."""
        return find_repeated(entries, str.lower, "download it again")

    def _miscounted(self, entries: Sequence[Entry]) -> list[UserError]:
        """Returns a fault for a number of images or of references that is not the release's."""
        files = {where.rsplit(" ", 2)[0] for where, rating in entries if not math.isnan(rating.score)}
        source = os.path.commonpath(files) if files else str(self.root)  # a folder, where there are several
        groups = {content(r.group) for _, r in entries if r.group is not None}
        told = []
        if len(entries) != self.expected_images:
            told.append(f"rates {len(entries)} images, expected {self.expected_images}; download it again")
        if self.expected_groups is not None and len(groups) != self.expected_groups:
            shown = f"{len(groups)} references, expected {self.expected_groups}"
            told.append(f"rates images of {shown}; download it again")
        return [UserError(f"{source} {line}") for line in told]

    def own_split(self, number: int = 1) -> dict[str, Subset] | None:
        """Returns the split that the labels themselves state: key of every image -> subset; None for none.

        It is used whatever split is asked for; without validation images, some training images are drawn.

        Args:
            number: Which one, if the labels state several.

        Raises:
            UserError: If it is broken, or the labels state several but none of that number.
        """
        return None

    def notes(self) -> list[str]:
        """Returns notes for the user on how labels and pictures were read, one line each."""
        return []

    def official_split(self) -> dict[str, Subset]:
        """Returns the split that the authors published with the labels: key of every image -> subset.

        Raises:
            UserError: If they published none that is read here, or its files are missing or broken.
        """
        raise UserError(f"{self.title}: there is no official split; use a seeded one (--split 1)")

    def label_file(self, *names: str) -> Path:
        """Finds a label file, whatever the case of its name.

        Args:
            names: Paths relative to the root, the preferred first.

        Raises:
            UserError: If none exists.
        """
        for name in names:
            path = find_file(self.root, name)
            if path is not None and self._leaves(path):
                raise UserError(f"{path} {self._elsewhere(path)}")
            if path is not None:
                return path
        raise UserError(
            f"{self.title}: no {' or '.join(names)} in {self.root}; get the label file from {self.homepage}"
        )

    def candidates(self, key: str) -> Sequence[str]:
        """Returns the relative paths under which releases keep an image, the authors' own first."""
        return (key,)

    def is_extra(self, relative: str) -> bool:
        """Whether an image file belongs to the release without being rated (a reference, say).

        Args:
            relative: Path relative to the root, lower-case, with "/".
        """
        return False

    @cached_property
    def files(self) -> dict[str, str]:
        """Image files: lower-case path relative to the root -> the path as it is on the disk, relative.

        Every folder is listed once, and no file is opened. Links that lead out of the dataset's folder are
        left out; `stray_links` has them.
        """
        found: dict[str, str] = {}
        for folder in self.image_folders:
            start = self.root if not folder else find_file(self.root, folder, directory=True)
            if start is not None and self._leaves(start):
                self.stray_links.append(start)
            elif start is not None:
                self._list(start, deep=bool(folder), found=found)
        return found

    def _list(self, folder: Path, deep: bool, found: dict[str, str]) -> None:
        """Adds the image files of a folder, sorted, those of its sub-folders after its own."""
        prefix = "" if folder == self.root else folder.relative_to(self.root).as_posix() + "/"
        folders = []
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"cannot read the folder {folder}: {error.strerror or error}") from error
        for entry in entries:
            is_image = os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - 10,000 names
            if entry.is_dir(follow_symlinks=False):
                folders.append(folder / entry.name)
            elif entry.is_symlink() and (is_image or entry.is_dir()) and self._leaves(folder / entry.name):
                self.stray_links.append(folder / entry.name)
            elif is_image:
                relative = prefix + entry.name
                first = found.setdefault(relative.lower(), relative)
                if first != relative:
                    self.twins.setdefault(relative.lower(), [first]).append(relative)
        for sub in folders if deep else ():
            self._list(sub, deep, found)

    def _leaves(self, path: Path) -> bool:
        """Whether a path below the root leads, through links, outside it."""
        return not path.resolve().is_relative_to(self.root.resolve())

    def _elsewhere(self, path: Path) -> str:
        return (
            f"points outside the dataset, to {path.resolve()}: move the files into it, or make the whole "
            f"folder {self.root.name} a link"
        )

    def link_faults(self) -> list[str]:
        """Returns a fault for every link among the images that points outside the dataset, and what to do."""
        _ = self.files  # lists the folders
        return [f"the link {path} {self._elsewhere(path)}" for path in self.stray_links]

    def path(self, key: str) -> Path:
        """Returns the file of an image, whatever the case of its name.

        Args:
            key: `Rating.key`.

        Raises:
            UserError: If there is no such file.
        """
        relative = self._locate(key)
        if relative is None:
            if key in (unclear := self._unclear([key])):
                raise UserError(f"{self.title}: {unclear[key]}")
            raise UserError(f"{self.title}: image {key} is missing in {self.root}; {self.advice([key])}")
        return self.root / relative

    def _locate(self, key: str) -> str | None:
        """Returns the file of an image; of files that differ only in case, the one with exactly this name."""
        files = self.files
        for candidate in self.candidates(key):
            twins = self.twins.get(candidate.lower())
            if twins:
                return candidate if candidate in twins else None
            relative = files.get(candidate.lower())
            if relative is not None:
                return relative
        return None

    def _unclear(self, keys: Iterable[str]) -> dict[str, str]:
        """Returns a fault for every image that several files could be, and what to do."""
        _ = self.files  # lists the folders
        found = {}
        for key in keys if self.twins else ():
            for candidate in self.candidates(key):
                twins = self.twins.get(candidate.lower())
                if twins and self._locate(key) is None:
                    found[key] = (
                        f"image {key} could be {' or '.join(twins)}, which differ only in case; rename the "
                        f"right one to {candidate}"
                    )
        return found

    def twin_faults(self) -> list[str]:
        """Returns a fault for every rated image that several files could be which differ only in case."""
        return list(self._unclear(rating.key for rating in self._ratings).values())

    def twin_notes(self) -> list[str]:
        """Returns a note for every rated image beside which there are files that differ only in case."""
        _ = self.files  # lists the folders
        if not self.twins:
            return []
        read = {relative for r in self._ratings if (relative := self._locate(r.key)) is not None}
        return [
            f"reading {name}, not {' or '.join(t for t in twins if t != name)}, which differs only in case"
            for twins in self.twins.values()
            for name in twins
            if name in read
        ]

    def advice(self, missing: Sequence[str]) -> str:
        """Says what to do about images that are missing.

        Args:
            missing: Their keys.
        """
        return "unpack the release again"

    def missing_files(self, ratings: Sequence[Rating] | None = None) -> list[str]:
        """Returns the keys of rated images that are not on the disk, in rating order.

        Args:
            ratings: Those to look for; None for all.
        """
        rated = self._ratings if ratings is None else ratings
        return [rating.key for rating in rated if self._locate(rating.key) is None]

    def files_without_labels(self) -> list[str]:
        """Returns the images to decode if the labels are broken, relative to the root."""
        return list(self.files.values())

    def unlabelled_files(self) -> list[str]:
        """Returns the image files that no label names and that are not known extras, relative to the root."""
        named = {c.lower() for rating in self._ratings for c in self.candidates(rating.key)}
        return [p for low, p in self.files.items() if low not in named and not self.is_extra(low)]

    def verify_files(self, ratings: Sequence[Rating] | None = None) -> None:
        """Checks that every rated image exists; lists each folder once and opens no file.

        Args:
            ratings: Those to look for; None for all.

        Raises:
            UserError: If images are missing: how many, and the first of them.
        """
        missing = self.missing_files(ratings)
        if unclear := self._unclear(missing):
            raise UserError(f"{self.title}: {next(iter(unclear.values()))}")
        if missing and (strays := self.link_faults()):
            raise UserError(f"{self.title}: {strays[0]}")
        if missing:
            raise UserError(
                f"{self.title}: {len(missing)} of {self.expected_images} rated images are missing in "
                f"{self.root}, first {missing[0]}; {self.advice(missing)} ({self.homepage})"
            )

    def as_released(self, ratings: Sequence[Rating]) -> bool:
        """Tells whether these are the labels of the release, as far as that is known.

        Args:
            ratings: What `ratings` returned.
        """
        lacking = any(math.isnan(rating.score) for rating in ratings)
        known = None if self.generated or lacking else self.labels_digest
        return known is None or digest_of(ratings) == known

    def score_faults(self, ratings: Sequence[Rating]) -> list[str]:
        """Compares range, mean and direction of the scores with those of the release, where they are known.

        Args:
            ratings: What `ratings` returned.

        Returns:
            What is wrong, in one line; nothing for generated data.
        """
        lacking = not ratings or any(math.isnan(rating.score) for rating in ratings)
        facts = None if self.generated or lacking else self.score_facts
        if facts is None:
            return []
        scores = [rating.score for rating in ratings]
        found = ScoreFacts(min(scores), max(scores), math.fsum(scores) / len(scores))
        margin = SCORE_TOLERANCE * (facts.high - facts.low)
        if all(abs(ours - theirs) <= margin for ours, theirs in zip(found, facts, strict=True)):
            return []
        turned = abs(_place_of_mean(found) + _place_of_mean(facts) - 1) <= SCORE_TOLERANCE
        return [
            f"scores range from {found.low:.5g} to {found.high:.5g}, mean {found.mean:.5g}; those of the "
            f"release from {facts.low:.5g} to {facts.high:.5g}, mean {facts.mean:.5g}"
            + (": they run the wrong way" if turned else "")
            + f"; get the label files again from {self.homepage}"
        ]


def find_repeated(entries: Iterable[Entry], same: Callable[[str], str], advice: str) -> list[UserError]:
    """Returns a fault for every image that is rated again.

    Args:
        entries: The ratings.
        same: Makes of a key what all keys of one image share.
        advice: What to do about it.
    """
    seen: dict[str, str] = {}
    faults = []
    for where, rating in entries:
        first = seen.setdefault(same(rating.key), where)
        if first != where:
            faults.append(
                UserError(f"{where} rates {rating.key} a second time, the first is {first}; {advice}")
            )
    return faults


def _place_of_mean(facts: ScoreFacts) -> float:
    """Returns where the mean lies between the least (0) and the greatest score (1)."""
    return (facts.mean - facts.low) / (facts.high - facts.low) if facts.high > facts.low else math.nan


def digest_of(ratings: Sequence[Rating]) -> str:
    """Returns a digest of the labels of a release: 16 hex digits of a SHA-256.

    Args:
        ratings: In any order; names and groups count whatever their case, numbers to three decimals.
    """
    lines = sorted(f"{r.key}\t{r.score:.3f}\t{r.std:.3f}\t{r.group}".lower() for r in ratings)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def folded(name: str) -> str:
    """Reduces a folder's name to lower-case letters and digits, for comparison."""
    return "".join(c for c in name.lower() if c.isalnum())


def content(group: str) -> str:
    """Reduces the name of a reference image to what it shows: lower-case, without folder and extension.

    Example:
        >>> content("refimgs/Sailing2.BMP")
        'sailing2'
    """
    stem = group.rsplit("/", 1)[-1].lower()
    head, dot, tail = stem.rpartition(".")
    return head if dot and f".{tail}" in IMAGE_SUFFIXES else stem


def find_file(root: Path, relative: str, *, directory: bool = False) -> Path | None:
    """Finds a file (or folder) below a folder, whatever the case of its name; an exact match comes first."""
    here = root
    for part in relative.split("/"):
        exact = here / part
        if exact.exists():
            here = exact
            continue
        try:
            same = sorted(p for p in here.iterdir() if p.name.lower() == part.lower())
        except OSError:
            return None
        if not same:
            return None
        here = same[0]
    return here if (here.is_dir() if directory else here.is_file()) else None
