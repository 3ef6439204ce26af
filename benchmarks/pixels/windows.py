"""Windows: the squares in which LIQE looks at a picture, in training and in testing (published code)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Squares on a grid that begins in a picture's top left corner.

    Attributes:
        size: Side of a square, in pixels; in a picture with a shorter side, that side.
        stride: Distance of the grid's rows, and of its columns.
        wide_stride: The same in a picture one side of which is at least `wide`.
        wide: See `wide_stride`.
        tested: How many squares a picture is scored by; where it has fewer, all of them.
    """

    size: int = 224
    stride: int = 32
    wide_stride: int = 48
    wide: int = 1024
    tested: int = 15

    def side(self, height: int, width: int) -> int:
        """Returns the side of a picture's squares."""
        return min(self.size, height, width)

    def grid(self, height: int, width: int) -> Int64:
        """Returns top and left of all squares of a picture, (n, 2), row by row."""
        stride = self.wide_stride if max(height, width) >= self.wide else self.stride
        side = self.side(height, width)
        tops, lefts = (np.arange(0, length - side + 1, stride) for length in (height, width))
        return np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)

    def spread(self, height: int, width: int, wanted: int | None = None) -> Int64:
        """Returns top and left of the squares that a picture is scored by, (m, 2).

        Every k-th of all n counts, where k is n / wanted, rounded down: the last ones are never reached.

        Args:
            height: Of the picture.
            width: Of the picture.
            wanted: How many squares; None for `tested`.
        """
        grid, wanted = self.grid(height, width), wanted or self.tested
        return grid[:: max(1, len(grid) // wanted)][:wanted]

    def drawn(
        self, shapes: Int64, crops: int, rng: np.random.Generator
    ) -> tuple[Int64, Int64, NDArray[np.bool_]]:
        """Draws squares to train on: a picture is mirrored or not, and its grid then gives the squares.

        Args:
            shapes: (n, 2) height and width of the pictures.
            crops: How many squares of each picture; one may be drawn more than once.
            rng: Source of flips and squares.

        Returns:
            Tops, lefts and flips, (n * crops,), those of a picture side by side. A square lies in the picture
            as it is, and is to be mirrored where `flips` says so.
        """
        flips = rng.random(len(shapes)) < 0.5
        corners = []
        for (height, width), flip in zip(shapes.tolist(), flips, strict=True):
            grid = self.grid(height, width)
            chosen = grid[rng.integers(0, len(grid), crops)]
            if flip:  # the grid is that of the mirrored picture
                chosen = np.stack([chosen[:, 0], width - self.side(height, width) - chosen[:, 1]], axis=1)
            corners.append(chosen)
        tops, lefts = np.concatenate(corners).T
        return tops, lefts, np.repeat(flips, crops)
