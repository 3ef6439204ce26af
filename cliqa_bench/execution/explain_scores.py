"""Scores explained to people: each head's score, neighbours on the scale, the worst pictures."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from cliqa_bench.execution.score_table import FileRow, Lines, written_name
from cliqa_bench.models.reading_scale import ReadingScale


class Explainer:
    """Prints in a few lines what a row of the table means.

    Args:
        lines: How rows are written.
        tasks: A name for each head, where there are several.
        titles: Name of a dataset -> how people call it.
        scale: On which scores are read; None for none.
    """

    def __init__(
        self, lines: Lines, tasks: Sequence[str], titles: Mapping[str, str], scale: ReadingScale | None
    ) -> None:
        self._lines, self._tasks, self._titles, self._scale = lines, tasks, titles, scale

    def text(self, row: FileRow) -> str:
        """Returns the lines on a picture."""
        name = written_name(row.image)
        if row.score is None:
            return f"{name}: no score: {row.error}"
        cells = self._lines.cells(row.line)
        return "\n".join([self._read(name, row.score, cells), *self._heads(cells), *self._nearest(row.score)])

    def _read(self, name: str, score: float, cells: Mapping[str, str]) -> str:
        if self._scale is None:
            return f"{name}: {score:.3f}"
        unlike = ""
        if novelty := cells.get("novelty"):
            flag = " (unlike anything seen)" if float(novelty) > 1 else ""
            unlike = f"; novelty {float(novelty):.2f}{flag}"
        place = f"above {float(cells['percentile']):.1f} % of {self._scale.population}"
        return f"{name}: {score:.3f}, {cells['word']}: {place}{unlike}"

    def _heads(self, cells: Mapping[str, str]) -> list[str]:
        said = []
        for task in self._tasks:
            weight, head = float(cells[f"weight:{task}"]), cells[f"head:{task}"]
            told = f"said {float(head):.3f}" if head else "was left out"
            said.append(f"  head {self._titles.get(task, task)} {told}, weight {weight:.3f}")
        return said

    def _nearest(self, score: float) -> list[str]:
        if self._scale is None:
            return []
        below, above = self._scale.neighbours(score)
        found = (("next below", below), ("next above", above))
        return [f"  {where} on the scale: {one[0]}, {one[1]:.3f}" for where, one in found if one is not None]


class Worst:
    """Keeps the pictures with the lowest scores; among equal ones, the first.

    Args:
        number: How many.
    """

    def __init__(self, number: int) -> None:
        self._number, self._seen = number, 0
        self._kept: list[tuple[float, int, FileRow]] = []

    def add(self, row: FileRow) -> None:
        """Takes note of a row; one without a score is not among the worst."""
        if row.score is not None:
            self._seen += 1
            push = heapq.heappush if len(self._kept) < self._number else heapq.heappushpop
            push(self._kept, (-row.score, -self._seen, row))

    def rows(self) -> list[FileRow]:
        """Returns them, the worst first."""
        return [row for *_, row in sorted(self._kept, reverse=True)]

    def text(self, explain: Callable[[FileRow], str] | None) -> str:
        """Returns them as a list for people.

        Args:
            explain: Says what a row means; None for a line with score and name.
        """
        rows = self.rows()
        of = f"of {self._seen:,}" if self._seen != 1 else "of 1"
        head = f"the worst {len(rows):,} {of}, lowest score first:"
        told = explain or (lambda row: f"{row.score:.3f}  {written_name(row.image)}")
        return "\n".join([head, *map(told, rows)])
