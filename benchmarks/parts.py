"""Parts of a dataset, which are datasets: some distortions, some blocks of contents, images without labels.

A part has the pictures and labels of the whole dataset, and of its split those images that are in the part.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from cliqa_bench.benchmarks.base import Dataset
from cliqa_bench.benchmarks.splits import Split, make_split, resolve_split, unit_of
from cliqa_bench.benchmarks.suites import dataset_class
from cliqa_bench.errors import UserError, join_names
from cliqa_bench.part_names import PartName, base_of, plain
from cliqa_bench.seeds import rng_for
from cliqa_bench.terminal import plural
from cliqa_bench.types import SUBSETS, Rating, Subset


@functools.cache
def part_class(whole: type[Dataset], part: PartName) -> type[Dataset]:
    """Makes the class of a part; the class of the whole where the part is the whole.

    Raises:
        UserError: If the dataset states its distortions, and the group is none of them.
    """
    part = part._replace(base=whole.name)
    if part.name == whole.name:
        return whole
    if whole.part is not None:
        raise UserError(f"{part.name}: {whole.name} is a part already; name a part of {whole.part.base}")
    facts: dict[str, Any] = {
        "part": part,
        "labelled": not part.unlabelled,
        "title": _title(whole, part),
        "__module__": whole.__module__,
        "__doc__": f"A part of {whole.title}.",
    }
    made = cast("type[Dataset]", type("Part", (whole,), facts))
    made.name = part.name  # after `type`, which names a class after its module
    return made


def _title(whole: type[Dataset], part: PartName) -> str:
    group = part.group.replace("-", " ")
    if part.group and whole.distortions:
        members = _members(part, whole.title, whole.distortions, whole.groups)
        group = members[0] if part.group not in whole.groups else group
    block = f"{part.block}/{part.blocks}" if part.blocks > 1 else ""
    words = (whole.title, group, block, "unlabelled" if part.unlabelled else "")
    return " ".join(filter(None, words))


def _members(
    part: PartName, title: str, distortions: Iterable[str], groups: Mapping[str, Sequence[str]]
) -> Sequence[str]:
    """Returns the distortions of a part's group.

    Raises:
        UserError: If there is no such group; lists the choices.
    """
    if part.group in groups:
        return groups[part.group]
    names = {plain(name): name for name in distortions if plain(name)}
    if part.group not in names:
        there = join_names([*groups, *sorted(names.keys() - groups.keys())])
        choose = f"choose from: {there}" if there else "its images have no distortions to choose from"
        raise UserError(f"{title} has no group {part.group!r} ({part.name}); {choose}")
    return [names[part.group]]


def in_group(dataset: type[Dataset] | Dataset, ratings: Sequence[Rating]) -> list[Rating]:
    """Returns the ratings whose distortion is in the group of a part, in their order.

    Raises:
        UserError: If there is no such group, or no image of it.
    """
    part = dataset.part
    if part is None or not part.group:
        return list(ratings)
    distortions = dataset.distortions or list(dict.fromkeys(rating.distortion for rating in ratings))
    title = dataset_class(part.base).title
    members = {plain(m) for m in _members(part, title, distortions, dataset.groups)}
    chosen = [rating for rating in ratings if plain(rating.distortion) in members]
    if not chosen:
        raise UserError(f"{part.name}: no image of {part.base} has the distortion {part.group}")
    return chosen


def split_of(spec: str, dataset: Dataset, ratings: Sequence[Rating]) -> Split:
    """Returns the split that `--split` names, of a dataset or of a part; see `resolve_split`.

    Args:
        spec: What `--split` says.
        dataset: The dataset.
        ratings: All its ratings; of a part, those of the whole.

    Raises:
        UserError: As `resolve_split` and `part_split`.
    """
    if dataset.part is None:
        return resolve_split(spec, dataset, ratings)
    files = dataset_class(dataset.part.base)(dataset.root)
    return part_split(dataset, ratings, resolve_split(spec, files, ratings))


def part_split(dataset: Dataset, ratings: Sequence[Rating], split: Split) -> Split:
    """Returns the share of a part in the split of the whole dataset.

    Training contents are dealt to the blocks in turn, in a shuffled order that depends on the dataset alone,
    and so are the validation contents: no content is in two blocks, and blocks differ by at most one content.
    Only where there are fewer validation contents than blocks, several blocks validate on the same one. Test
    images are those of all blocks.

    Args:
        dataset: The part.
        ratings: All ratings of the whole dataset; those of an unlabelled part, see `hidden`.
        split: The split of the whole.

    Raises:
        UserError: If there is no such group, a subset has no image of it, or there are too many blocks.
    """
    part = dataset.part
    assert part is not None
    chosen = in_group(dataset, ratings)
    dealt = {subset: _shuffled(part, chosen, ratings, split, subset) for subset in SUBSETS}
    for subset, contents in dealt.items():
        if not contents:
            raise UserError(f"{part.name}: split {split.name} has no {subset} image of it; use another split")
    if len(dealt["train"]) < part.blocks:
        shown = plural(len(dealt["train"]), "content")
        raise UserError(
            f"{part.name}: its training images in split {split.name} show {shown}, "
            f"too few for {part.blocks} blocks; use fewer"
        )
    first = part.block - 1
    shared = dealt["val"][first % len(dealt["val"])]  # of the block itself, unless there are too few
    kept = {*dealt["train"][first :: part.blocks], *dealt["val"][first :: part.blocks], shared}
    mine = [r for r in chosen if split.subset[r.key] == "test" or unit_of(r) in kept]
    return replace(make_split(split.name, mine, split.subset), aspects=split.aspects)


def _shuffled(
    part: PartName, chosen: Sequence[Rating], ratings: Sequence[Rating], split: Split, subset: Subset
) -> list[str]:
    """Returns the contents of a subset that have images in a part's group, shuffled as those of the whole."""
    contents = sorted({unit_of(r) for r in ratings if split.subset[r.key] == subset})
    order = rng_for("blocks", part.base, subset).permutation(len(contents))
    present = {unit_of(r) for r in chosen if split.subset[r.key] == subset}
    return [contents[i] for i in order if contents[i] in present]


def hidden(ratings: Sequence[Rating], split: Split) -> list[Rating]:
    """Hides the opinions on all images but those of the test set.

    Returns:
        The ratings in the order of their keys: that of a label file may tell what is in it.
    """
    told = sorted(ratings, key=lambda rating: rating.key)
    return [r if split.subset[r.key] == "test" else r._replace(score=math.nan, std=math.nan) for r in told]


def in_part(dataset: Dataset, ratings: Sequence[Rating], split: Split | None) -> list[Rating]:
    """Returns the ratings of the images of a part, without the scores that it hides; of a whole dataset, all.

    Args:
        dataset: The dataset.
        ratings: All its ratings; of a part, those of the whole.
        split: Its own split, as `split_of` returns it; None for none.

    Raises:
        UserError: If the part depends on the split, and there is none.
    """
    part = dataset.part
    if part is None:
        return list(ratings)
    if split is None and (part.blocks > 1 or part.unlabelled):
        what = "images are in a block" if part.blocks > 1 else "scores are hidden"
        raise UserError(f"{part.name}: which {what} depends on the split; give one, such as --split 1")
    if split is None:
        return in_group(dataset, ratings)
    mine = [rating for rating in ratings if rating.key in split.subset]
    return hidden(mine, split) if part.unlabelled else mine


def check_scores(dataset: Dataset, ratings: Sequence[Rating], split: Split) -> None:
    """Refuses images without a score where one is needed.

    Raises:
        UserError: Names the first, and what to do.
    """
    score = {rating.key: rating.score for rating in ratings}
    needed: tuple[Subset, ...] = ("train", "val", "test") if dataset.labelled else ("test",)
    for subset in needed:
        without = [key for key in split.keys(subset) if math.isnan(score[key])]
        if without:
            advice = "add it" if subset == "test" else f"add it, or write {dataset.name}?unlabelled"
            raise UserError(f"{dataset.title}: the {subset} image {without[0]} has no score; {advice}")


def check_order(label: str, order: Sequence[str], splits: Mapping[str, Split]) -> None:
    """Refuses an order in which an image is trained on twice, with or without its label.

    Args:
        label: The order's label.
        order: The datasets' names.
        splits: Name -> split.

    Raises:
        UserError: Names the two parts and an image that both have.
    """
    first: dict[tuple[str, str], str] = {}
    for name in order:
        for key in splits[name].keys("train"):
            other = first.setdefault((base_of(name), key), name)
            if other != name:
                raise UserError(
                    f"the order {label} learns {key} twice, in {other} and in {name}; leave one of them out"
                )
