"""Which files `score` scores: those that are named, and every file in a folder whose content is a picture."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cliqa_bench.benchmarks.pixels.decode import FORMAT_OF, FORMATS, RAW, format_of
from cliqa_bench.errors import UserError

_IGNORED = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini"))
"""What systems leave in folders, in lower case; hidden files are ignored, too."""

_APPLE = (b"\x00\x05\x16\x00", b"\x00\x05\x16\x07")
"""How AppleSingle and AppleDouble files start: what macOS knows of a file, under that file's name."""


_PLURAL = ("broken link", "special file", "unreadable folder")

_KINDS = 10
"""Most kinds that are named among what is left out."""


class FoundFiles(NamedTuple):
    """Files to score.

    Attributes:
        files: In the order in which they are scored, each once.
        left_out: What else is in the folders: kind, such as ".txt" -> number.
    """

    files: list[Path]
    left_out: dict[str, int]

    def left_out_text(self) -> str:
        """Returns what is left out, in words; "" for nothing."""
        kinds = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        named = [f"{n:,} {kind}{'s' if n > 1 and kind in _PLURAL else ''}" for kind, n in kinds[:_KINDS]]
        if more := sum(n for _, n in kinds[_KINDS:]):
            named.append(f"{more:,} of other kinds")
        return f"left out: {', '.join(named)}" if named else ""


def find_pictures(named: Sequence[Path]) -> FoundFiles:
    """Finds files to score.

    Each named file is one of them, whatever it holds. Of a folder, and of the folders in it, all pictures
    are, by their content, sorted by name, and also files that have a picture's name alone: their rows say
    what is wrong. Links are followed. A file that is reached several times comes once, under a name that is
    no link if there is one.

    Raises:
        UserError: If one is missing, or there is nothing to score at all.
    """
    looked = _Looked()
    files: list[Path] = []
    for path in named:
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            files += sorted(looked.folder(path))
        elif not stat.S_ISREG(mode):
            raise UserError(f"no file or folder {path}")
        elif looked.is_new(os.path.realpath(path)):
            files.append(path)
    found = FoundFiles(files, dict(looked.left_out))
    if not files:
        text = f" ({found.left_out_text()})" if found.left_out else ""
        raise UserError(f"no images in {', '.join(map(str, named))}{text}")
    return found


class _Looked:
    """What was looked at so far."""

    def __init__(self) -> None:
        self._reached: set[str] = set()
        self.left_out: Counter[str] = Counter()

    def is_new(self, real: str) -> bool:
        """Tells whether a file or folder, named without links, is reached for the first time."""
        new = real not in self._reached
        self._reached.add(real)
        return new

    def folder(self, top: Path) -> Iterator[Path]:
        """Gives the pictures in a folder and below; links come last, so that real names are first."""
        links = [top]
        while links:
            link = links.pop(0)
            mode, real = _mode(link), os.path.realpath(link)
            if stat.S_ISDIR(mode):
                for path, is_link in self._walk(link, real):
                    if is_link:
                        links.append(path)
                    else:
                        yield path
            elif not mode:
                self.left_out["broken link"] += 1
            elif self.is_new(real) and self._is_picture(link):
                yield link

    def _walk(self, top: Path, real_top: str) -> Iterator[tuple[Path, bool]]:
        """Gives pictures below a folder, and all links, which are not followed."""
        folders = [(top, real_top)]
        while folders:
            folder, real = folders.pop()
            if not self.is_new(real):
                continue
            for entry in self._entries(folder):
                path, real_path = folder / entry.name, f"{real.rstrip(os.sep)}{os.sep}{entry.name}"
                if entry.is_symlink():
                    yield path, True
                elif entry.is_dir(follow_symlinks=False):
                    folders.append((path, real_path))
                elif self.is_new(real_path) and self._is_picture(path):
                    yield path, False

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                shown = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:
            self.left_out["unreadable folder"] += 1
            return []
        return sorted(shown, key=lambda entry: entry.name)

    def _is_picture(self, path: Path) -> bool:
        """Tells whether a file is to be scored; counts it if it is left out."""
        if path.name.lower() in _IGNORED:
            return False
        suffix, mode = path.suffix.lower(), _mode(path)
        named_so = suffix in FORMAT_OF
        try:
            if mode and not stat.S_ISREG(mode):
                kind = "special file"
            elif suffix in RAW:
                kind = f"{suffix} (raw; export as JPEG, PNG or TIFF)"
            elif format_of(path):
                return True
            elif named_so and _starts_so(path, _APPLE):
                return False
            elif suffix in FORMATS["HEIF"] and not _reads_heif():
                kind = f"{suffix} (needs the extra heif)"
            elif named_so:  # its row will say what is wrong
                return True
            else:
                kind = suffix or "without a suffix"
        except OSError:
            if named_so:
                return True
            kind = suffix or "without a suffix"
        self.left_out[kind] += 1
        return False


def _mode(path: Path) -> int:
    """Returns what a path stands for, see the module `stat`; 0 if nothing can be reached there."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _starts_so(path: Path, starts: tuple[bytes, ...]) -> bool:
    with path.open("rb") as file:
        return file.read(4) in starts


def _reads_heif() -> bool:
    from PIL import Image

    return "HEIF" in Image.OPEN  # `format_of` has had all readers told
