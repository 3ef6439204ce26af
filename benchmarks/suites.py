"""What `--orders` says, and where a folder of data keeps the datasets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from cliqa_bench.benchmarks.base import Dataset, folded
from cliqa_bench.benchmarks.part_orders import PART_WORDS, is_part_order, part_orders
from cliqa_bench.errors import UserError
from cliqa_bench.extensions import registry, user_code
from cliqa_bench.order_designs import ORDERS as ORDERS  # also read from here
from cliqa_bench.order_designs import WORDS, design_orders, is_design, split_design
from cliqa_bench.paths import is_file


def parse_orders(text: str) -> dict[str, list[str]]:
    """Reads what `--orders` says.

    Args:
        text: "all"; labels ("I", "I,III", any case); one sequence of dataset names ("bid,live,kadid10k"); or
            a design ("every", "sample:24", "williams") of the paper's six datasets or of those named after a
            colon ("every:live,csiq,bid"); or orders of parts ("distortions:csiq"), see `part_orders`.

    Returns:
        Label (of an explicit sequence: the sequence itself, comma-separated; of a design's sequence that is
        one of the paper's: its number) -> dataset names.

    Raises:
        UserError: If a label or name does not exist, a dataset is named twice, both kinds are mixed, or a
            design has too few or too many orders.
    """
    if is_design(text):
        return _designed(text)
    if is_part_order(text):
        return part_orders(text, lambda word: dataset_class(dataset_name(word)))
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError(
            "no orders given; give 'all', 'every', labels such as I,III, or a sequence such as bid,live"
        )
    if [word.lower() for word in words] == ["all"]:
        return {label: list(order) for label, order in ORDERS.items()}
    labels = [word.upper() for word in words if word.upper() in ORDERS]
    if len(labels) == len(words):
        return {label: list(ORDERS[label]) for label in labels}
    sequence = [_spelt(word) for word in words]
    names = registry.names("datasets")
    for word, name in zip(words, sequence, strict=True):
        if name in names or registry.part_of("datasets", name):
            continue
        if word.upper() in ORDERS or word.lower() == "all":
            raise UserError(
                f"orders {text!r} mix {word!r} with other names; give labels (I,III), datasets, or 'all'"
            )
        raise registry.unknown_dataset(
            word, "order or dataset", ["all", *WORDS, *PART_WORDS, *ORDERS, *names]
        )
    _check_once(text, sequence)
    return {",".join(sequence): sequence}


def is_whole(text: str) -> bool:
    """Tells whether a piece of `--orders` is more than one name in a sequence of datasets."""
    return "," in text or is_design(text) or is_part_order(text)


def spelt_design(text: str) -> str:
    """Returns a design with the names of its datasets: "every" becomes "every:live,csiq,...".

    Raises:
        UserError: As `parse_orders`.
    """
    design, datasets = _read_design(text)
    return f"{design}:{','.join(datasets)}"


def _read_design(text: str) -> tuple[str, list[str]]:
    design, named = split_design(text)
    datasets = [dataset_name(word.strip()) for word in named.split(",") if word.strip()] or list(ORDERS["I"])
    _check_once(text, datasets)
    return design, datasets


def _designed(text: str) -> dict[str, list[str]]:
    """Reads a design: its orders, those of the paper under their numbers."""
    design, datasets = _read_design(text)
    numbers = {order: label for label, order in ORDERS.items()}
    orders = design_orders(design, datasets)
    return {numbers.get(order) or ",".join(order): list(order) for order in orders}


def _check_once(text: str, sequence: Sequence[str]) -> None:
    twice = next((name for i, name in enumerate(sequence) if name in sequence[:i]), None)
    if twice is not None:
        raise UserError(f"the order {text!r} names {twice} twice; a dataset is learned once")


def dataset_name(word: str) -> str:
    """Returns the name of a dataset: from any case, or from the path of a file that defines one.

    Raises:
        UserError: If there is no such dataset.
    """
    return registry.check("datasets", _spelt(word))


def _spelt(word: str) -> str:
    if part := registry.part_of("datasets", word):
        return registry.check("datasets", part._replace(base=_spelt(part.base)).name)
    if user_code.is_file_name(word) or registry.in_family("datasets", word):
        return registry.check("datasets", word)
    # a file's name keeps its case, so that it is recognised
    return word if word in registry.names("datasets") or is_file(word) else word.lower()


def dataset_class(name: str) -> type[Dataset]:
    """Returns the class of a dataset.

    Raises:
        UserError: If there is no such dataset.
    """
    return cast(type[Dataset], registry.load("datasets", name))


def find_folder(data_root: Path, cls: type[Dataset]) -> Path | None:
    """Finds the folder of one dataset: by any of its names, whatever their case and punctuation.

    Args:
        data_root: The folder that holds the datasets, or the dataset's own folder.
        cls: The dataset.

    Returns:
        The folder, or None. Where several would do, the first of `cls.folders` wins. A dataset with a
        `home` is there.

    Raises:
        UserError: If `data_root` is not a folder.
    """
    if cls.home is not None:
        return cls.home
    there = _folders(data_root)
    for wanted in cls.folders:
        exact = next((p for p in there if p.name == wanted), None)
        same = exact or next((p for p in there if folded(p.name) == folded(wanted)), None)
        if same is not None:
            # a folder of the dataset's name that nests another is its own
            return data_root if _is_own(data_root, cls) else same
    return data_root if _is_own(data_root, cls) else None


def find_datasets(data_root: Path, names: Iterable[str]) -> dict[str, Dataset]:
    """Opens datasets in a folder.

    Args:
        data_root: The folder that holds the datasets (or, for one, its own folder).
        names: Dataset names.

    Returns:
        Name -> dataset, in the order of the names. Nothing is read yet.

    Raises:
        UserError: If a name is unknown, or a folder is missing: what was looked for, and what is there.
    """
    found: dict[str, Dataset] = {}
    missing: list[type[Dataset]] = []
    for name in names:
        cls = dataset_class(name)
        folder = find_folder(data_root, cls)
        if folder is None:
            missing.append(cls)
        else:
            found[name] = cls(folder)
    if missing:
        wanted = "; ".join(f"{cls.title}: {', '.join(cls.folders)}" for cls in missing)
        there = ", ".join(p.name for p in _folders(data_root)) or "no folder at all"
        raise UserError(
            f"datasets are missing in {data_root}; looked for {wanted} (any case and punctuation); "
            f"found: {there}"
        )
    return found


def _folders(data_root: Path) -> list[Path]:
    if not data_root.is_dir():
        raise UserError(f"the data folder {data_root} does not exist; give its path, or set CLIQA_DATA to it")
    try:
        return sorted(p for p in data_root.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read the data folder {data_root}: {error.strerror or error}") from error


def _is_own(folder: Path, cls: type[Dataset]) -> bool:
    return folded(folder.resolve().name) in {folded(name) for name in cls.folders}
