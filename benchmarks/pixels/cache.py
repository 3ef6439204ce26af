"""Images decoded once: all pixels of a dataset in one memory-mapped file.

A cache file holds the images as uint8 RGB rows one after the other, then an index as JSON, then 16 bytes: the
length of the index and a mark. It appears under its name when it is whole (it is written beside and renamed),
so it needs no second file to agree with, and a half-written one does not count. The index states of every
image the size and time of its file: an image whose file has changed is decoded again, the others are copied.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import mmap
import os
import shutil
import struct
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliqa_bench.benchmarks.pixels.decode import (
    Reading,
    adaptive_resize,
    adaptive_size,
    decode_bytes,
    decoder_version,
    image_size,
    read_bytes,
    reading_changes,
)
from cliqa_bench.benchmarks.pixels.hashes import remember
from cliqa_bench.config import MAX_MEGAPIXELS
from cliqa_bench.errors import UserError
from cliqa_bench.paths import cache_root
from cliqa_bench.progress import bar, say
from cliqa_bench.results.nodes import atomic_path, digest
from cliqa_bench.system.locks import locked, sweep_lock
from cliqa_bench.terminal import noted

if TYPE_CHECKING:
    import torch

    from cliqa_bench.benchmarks.base import Dataset

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in [0, 1], per channel: what every backbone was trained with."""

_VERSION = 1
_MARK = b"cliqa\x00\x00\x01"
_TAIL = struct.Struct("<Q8s")
_RELEASE_BYTES = 1 << 26
_SAMPLED_SIZES = 64


class CachedImage(NamedTuple):
    """One image in a cache: where it is, and the file that it was decoded from.

    Attributes:
        key: The image's key.
        offset: Of its first byte in the cache file.
        height: In pixels.
        width: In pixels.
        bytes: Size of the image file.
        mtime_ns: Time of the image file's last change.
        hash: BLAKE2b of the image file's bytes, 16 bytes in hex.
    """

    key: str
    offset: int
    height: int
    width: int
    bytes: int
    mtime_ns: int
    hash: str

    @property
    def n_bytes(self) -> int:
        """Number of its bytes in the cache file."""
        return self.height * self.width * 3


class ImageCache:
    """The decoded images of one dataset, read from a memory-mapped file.

    Images are named by their position in `keys`. Reading is safe from several threads. Pages that were read
    are given back to the system after every 64 MB, so the resident memory does not grow with the dataset.

    Attributes:
        keys: The images' keys, in the order in which they were asked for.
        shapes: (n, 2) int64, height and width of each image after resizing.
        digest: Fingerprint of the files' contents, the decoding rule and the resizing rule.
        path: The cache file.
    """

    def __init__(self, path: Path, index: dict[str, Any], keys: Sequence[str], pixels: mmap.mmap) -> None:
        by_key = {entry[0]: CachedImage(*entry) for entry in index["images"]}
        entries = [by_key[key] for key in keys]
        self.path = path
        self.keys = list(keys)
        self.shapes = np.array([(e.height, e.width) for e in entries], np.int64).reshape(-1, 2)
        self.digest = digest([index["made_by"], [[e.key, e.hash] for e in entries]], length=16)
        self._entries = entries
        self._map = pixels
        self._bytes = np.frombuffer(pixels, np.uint8)
        self._read_bytes = 0

    @property
    def made_ahead(self) -> bool:
        """Whether batches are worth making in a thread of their own, one ahead."""
        return True

    @property
    def n_bytes(self) -> int:
        """Number of bytes in the file up to the end of the last of these images."""
        return max((e.offset + e.n_bytes for e in self._entries), default=0)

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        keys: Sequence[str],
        resize: int,
        folder: Path | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> ImageCache:
        """Opens the cache of a dataset; decodes first what is not in it or has changed.

        Args:
            dataset: Where the images are.
            keys: The images wanted, each once.
            resize: As in `pixels.decode.adaptive_size`; caches of different sizes are kept side by side.
            folder: Where caches are kept, by default `<cache folder>/decoded`.
            max_megapixels: As in `pixels.decode.decode`; changes no pixel.

        Raises:
            UserError: If an image is missing or refused, or the cache does not fit on the disk.
        """
        build = _Build(dataset, keys, resize, folder, max_megapixels)
        cache, lock = build.current(), build.path.with_suffix(".lock")
        if cache is not None:
            sweep_lock(lock)
        else:
            what = f"that decodes {dataset.title} to {build.path.parent}"
            with locked(lock, what) as alone:
                if alone:
                    build.sweep()
                # another process may have made it while this one waited for the lock
                cache = build.current() or build.run()
        return cache

    @staticmethod
    def missing_bytes(dataset: Dataset, keys: Sequence[str], resize: int) -> int:
        """Estimates the disk space that `open` would take; 0 where all is decoded already."""
        build = _Build(dataset, keys, resize)
        return 0 if build.current() else build.estimated_bytes()

    def __len__(self) -> int:
        return len(self.keys)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Returns one image, (H, W, 3) uint8: a read-only view of the file."""
        entry = self._entries[index]
        self._release(entry.n_bytes)
        flat = self._bytes[entry.offset : entry.offset + entry.n_bytes]
        return flat.reshape(entry.height, entry.width, 3)

    def read(self, start: int, end: int) -> NDArray[np.uint8]:
        """Returns a copy of bytes of the file."""
        self._release(end - start)
        return self._bytes[start:end].copy()

    def images(self, indices: NDArray[np.int64]) -> torch.Tensor:
        """Returns images of one shape, (B, 3, H, W) uint8, channels last in memory."""
        import torch

        height, width = self.shapes[indices[0]]
        out = np.empty((len(indices), height, width, 3), np.uint8)
        for row, index in enumerate(indices):
            out[row] = self.image(index)
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def crops(
        self,
        indices: NDArray[np.int64],
        tops: NDArray[np.int64],
        lefts: NDArray[np.int64],
        size: int,
        flips: NDArray[np.bool_] | None = None,
    ) -> torch.Tensor:
        """Cuts a square out of each of several images.

        Args:
            indices: (B,) positions of the images.
            tops: (B,) first row of each square; the square must be inside the image.
            lefts: (B,) first column.
            size: Side of the squares.
            flips: (B,) whether to mirror a square left to right.

        Returns:
            (B, 3, size, size) uint8, channels last in memory.

        Raises:
            ValueError: If a square is not inside its image.
        """
        import torch

        check_inside(self.shapes[indices], tops, lefts, size)
        out = np.empty((len(indices), size, size, 3), np.uint8)
        mirrored = np.zeros(len(indices), bool) if flips is None else flips
        # numpy, because a thread does this beside the training: PyTorch's operations would start a second
        # pool of threads there, which takes the cores from the first
        for row, (index, top, left) in enumerate(zip(indices, tops, lefts, strict=True)):
            square = self.image(index)[top : top + size, left : left + size]
            if mirrored[row]:
                for channel in range(3):  # four times as quick as copying three bytes at a time
                    out[row, :, :, channel] = square[:, ::-1, channel]
            else:
                out[row] = square
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def _release(self, n_bytes: int) -> None:
        self._read_bytes += n_bytes
        if self._read_bytes > _RELEASE_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._read_bytes = 0
            self._map.madvise(mmap.MADV_DONTNEED)


def check_inside(
    shapes: NDArray[np.int64], tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
) -> None:
    """Refuses squares that are not inside their images.

    Raises:
        ValueError: If one does not.
    """
    room = shapes - size
    if ((tops < 0) | (lefts < 0) | (tops > room[:, 0]) | (lefts > room[:, 1])).any():
        raise ValueError("a crop is not inside its image")


class _Build:
    """The making of one cache file: what exists already, and how to get the rest."""

    def __init__(
        self,
        dataset: Dataset,
        keys: Sequence[str],
        resize: int,
        folder: Path | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        self.reading = reading_changes(dataset.reading)
        # one dataset in two places has two caches: they must not keep overwriting each other
        place = digest([str(dataset.root.resolve()), resize, *([self.reading] if self.reading else [])])
        self.path = (folder or cache_root() / "decoded") / f"{dataset.name}-{resize}-{place}.images"
        self.dataset = dataset
        self.keys = keys
        self.resize = resize
        self.max_megapixels = max_megapixels
        self.files = {key: dataset.path(key) for key in keys}

    @functools.cached_property
    def made_by(self) -> dict[str, Any]:
        return _made_by(self.resize, self.reading)

    def current(self) -> ImageCache | None:
        """Returns the finished cache if it has every image in its present state."""
        index, pixels = self._existing()
        if pixels is None or set(self._fresh(index)) != set(self.keys):
            return None
        return ImageCache(self.path, index, self.keys, pixels)

    def sweep(self) -> None:
        """Removes what a killed builder left, on any machine: a living one would have the lock."""
        for leftover in self.path.parent.glob(f".{self.path.stem}~*{self.path.suffix}"):
            leftover.unlink(missing_ok=True)

    def run(self) -> ImageCache:
        """Writes the cache, taking from the old one what is unchanged."""
        index, pixels = self._existing()
        old = {} if pixels is None else self._fresh(index)
        missing = [key for key in self.keys if key not in old]
        self._check_space()
        notes: list[tuple[Path, str]] = []
        offset, images = 0, []
        with (
            atomic_path(self.path) as temporary,
            temporary.open("wb") as file,
            bar(len(self.keys), f"decode {self.dataset.title}", "image") as shown,
            contextlib.closing(
                _decoded(
                    [self.files[k] for k in missing],
                    self.resize,
                    self.max_megapixels,
                    self.dataset.reading,
                    notes,
                )
            ) as new,
        ):
            for key in self.keys:
                if key in old and pixels is not None:
                    entry = old[key]
                    file.write(memoryview(pixels)[entry.offset : entry.offset + entry.n_bytes])
                    entry = entry._replace(offset=offset)
                else:
                    content, facts = next(new)
                    file.write(content.data)
                    entry = CachedImage(key, offset, content.shape[0], content.shape[1], *facts)
                offset += entry.n_bytes
                images.append(entry)
                shown.update()
            body = json.dumps({"made_by": self.made_by, "images": images}).encode()
            file.write(body + _TAIL.pack(len(body), _MARK))
        if self.reading:  # `data check` reports them for the published sets
            _say_noted(self.dataset.title, notes)
        remember(self.dataset.root, {self.files[i.key]: (i.bytes, i.mtime_ns, i.hash) for i in images})
        cache = self.current()
        if cache is None:
            raise UserError(f"images in {self.dataset.root} changed while they were read; run again")
        return cache

    def _existing(self) -> tuple[dict[str, Any], mmap.mmap | None]:
        index, pixels = _read_file(self.path)
        return (index, pixels) if index.get("made_by") == self.made_by else ({}, None)

    def _fresh(self, index: dict[str, Any]) -> dict[str, CachedImage]:
        """Returns the entries whose files are those that they were decoded from."""
        entries = {entry[0]: CachedImage(*entry) for entry in index["images"]}
        fresh = {}
        for key, path in self.files.items():
            entry = entries.get(key)
            if entry is not None and (entry.bytes, entry.mtime_ns) == _file_facts(path):
                fresh[key] = entry
        return fresh

    def estimated_bytes(self) -> int:
        """Estimates the size of the file from the headers of some images."""
        sizes = []
        for key in self.keys[:: max(1, len(self.keys) // _SAMPLED_SIZES)]:
            with contextlib.suppress(UserError):  # decoding has a better message
                sizes.append(adaptive_size(*image_size(self.files[key], self.dataset.reading), self.resize))
        return int(np.mean([w * h * 3 for w, h in sizes]) * len(self.keys)) if sizes else 0

    def _check_space(self) -> None:
        needed = self.estimated_bytes()
        folder = next(p for p in self.path.parents if p.exists())
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"{self.path.parent}: the decoded images of {self.dataset.title} need {needed / 1e9:.1f} GB, "
                f"but only {free / 1e9:.1f} GB are free; make room or set CLIQA_CACHE to a folder on "
                "another disk"
            )


def _say_noted(title: str, notes: Sequence[tuple[Path, str]]) -> None:
    """Prints the notes on pictures: a line for each kind, with the first picture."""
    counts = Counter(text for _, text in notes)
    for text, n in counts.items():
        first = min(path.name for path, other in notes if other == text)
        say(f"{title}: {noted(first, text, n)}")


def _made_by(resize: Any, reading: Any) -> dict[str, Any]:
    """Returns what the pixels of a cache file depend on beside the images."""
    import PIL

    made = {"format": _VERSION, "decoder": decoder_version(), "pillow": PIL.__version__, "resize": resize}
    return {**made, "reading": reading} if reading else made


def outdated(path: Path) -> str:
    """Returns why a cache file is not read but made again; "" if it is read, or is something else."""
    index, pixels = _read_file(path)
    made = index.get("made_by") if isinstance(index, dict) else None
    if pixels is None or not isinstance(made, dict):
        return ""
    today = _made_by(made.get("resize"), made.get("reading"))
    other = [f"{name} {made.get(name)} (now {now})" for name, now in today.items() if made.get(name) != now]
    return f"decoded with {', '.join(other)}" if other else ""


def _decoded(
    paths: list[Path], resize: int, max_megapixels: float, reading: Reading, notes: list[tuple[Path, str]]
) -> Generator[tuple[NDArray[np.uint8], tuple[int, int, str]], None, None]:
    """Decodes images in parallel and gives them in order, with few of them in memory at a time.

    Threads do: Pillow's decoders let go of the interpreter lock. Notes on files are added to `notes`.
    """

    def decode_one(path: Path) -> tuple[NDArray[np.uint8], tuple[int, int, str]]:
        size, mtime = _file_facts(path)
        data = read_bytes(path)
        hashed = hashlib.blake2b(data, digest_size=16).hexdigest()
        decoded = decode_bytes(data, path, max_megapixels, reading, lambda text: notes.append((path, text)))
        pixels = adaptive_resize(decoded, resize)
        return np.ascontiguousarray(pixels), (size, mtime, hashed)

    workers = min(8, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    waiting = []
    try:
        for path in paths:
            waiting.append(pool.submit(decode_one, path))
            if len(waiting) > 2 * workers:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _file_facts(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror or error}") from error
    return facts.st_size, facts.st_mtime_ns


def _read_file(path: Path) -> tuple[dict[str, Any], mmap.mmap | None]:
    """Maps a cache file; one that is missing, cut off or of another kind gives nothing."""
    try:
        with path.open("rb") as file:
            pixels = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length, mark = _TAIL.unpack(pixels[-_TAIL.size :])
        if mark != _MARK or length > len(pixels) - _TAIL.size:
            return {}, None
        index: dict[str, Any] = json.loads(pixels[-_TAIL.size - length : -_TAIL.size])
        return index, pixels
    except (OSError, ValueError, struct.error):
        return {}, None


@functools.lru_cache(maxsize=64)
def _normalising(width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (3 * width,) float32 to add and to multiply with; sending them again would wait for a GPU."""
    import torch

    with torch.inference_mode(False):
        mean, std = (torch.tensor(v, device=device).mul(255).repeat(width) for v in (MEAN, STD))
        return -mean / std, 1 / std


def to_float(batch: torch.Tensor) -> torch.Tensor:
    """Turns pixels into what a network takes: scaled to [0, 1], then normalised by ImageNet's mean and std.

    Args:
        batch: (B, 3, H, W) uint8; quickest when channels last in memory, as crops are. Move it to the device
            before: pixels travel faster as uint8.

    Returns:
        (B, 3, H, W) float32, channels last in memory.
    """
    import torch

    n, _, height, width = batch.shape
    # rows of (red, green, blue, red, ...): broadcasting over 3 * W values is five times faster than over 3
    rows = batch.permute(0, 2, 3, 1).reshape(n, height, 3 * width).float()
    offset, factor = _normalising(width, batch.device)
    torch.addcmul(offset, rows, factor, out=rows)
    return rows.view(n, height, width, 3).permute(0, 3, 1, 2)
