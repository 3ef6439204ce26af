"""What `cite` prints: BibTeX of what a run is made of, each entry below a line that says what it is for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from cliqa_bench._version import __version__
from cliqa_bench.errors import UserError, one_line
from cliqa_bench.extensions import registry
from cliqa_bench.results.records import RunRecord, read_records
from cliqa_bench.settings.resolve import include, recall_tables
from cliqa_bench.strategies._avalanche import AVALANCHE
from cliqa_bench.strategies.tsn import TSN

SUITE = (str(TSN.citation), AVALANCHE)
"""What every run rests on: the paper whose protocol it follows, and the library that it learns with."""

_SOFTWARE = f"""@misc{{cliqa_bench,
  author = {{{{cliqa\\_bench contributors}}}},
  title = {{cliqa\\_bench: a benchmark suite for continual learning of blind image quality assessment}},
  note = {{version {__version__}}}
}}"""

_PARTS = re.compile(
    r"(?P<authors>[^:]+): (?P<title>.+?)\. (?P<venue>.+?),? (?P<year>\d{4})(?:, doi:(?P<doi>\S+))?"
)
"""How a citation is written: `A. Author, B. Author: Title. Venue, 2026`, and `, doi:10.1/2` if known."""

_Named = tuple[str, tuple[str, ...]]


def citing(out: Path | None) -> str:
    """Returns what to cite, as BibTeX.

    Args:
        out: Folder of the results; None for the suite alone.

    Raises:
        UserError: If there are no runs in it, or a run record is broken.
    """
    used = [("the suite", SUITE), *(_used(read_records(out)) if out else ())]
    known = dict.fromkeys(text for _, citations in used for text in citations)
    whose = {text: [what for what, citations in used if text in citations] for text in known}
    without = [f"% {what}: no reference is given" for what, citations in used if not citations]
    keys: set[str] = set()
    entries = [f"% {', '.join(names)}\n{bibtex(text, keys)}" for text, names in whose.items()]
    return "\n\n".join([f"% the suite\n{_SOFTWARE}", *entries, *without])


def _used(records: Sequence[RunRecord]) -> list[_Named]:
    """Returns what runs are made of, each with its citation."""
    found: dict[str, tuple[str, ...]] = {}
    configs = [record.facts.get("config") or {} for record in records]
    brought = [(config.get("include"), config.get("tables") or ()) for config in configs]
    for files, tables in {str(both): both for both in brought}.values():  # each once: tables may be large
        try:
            include(files)
            recall_tables(tables)
        except UserError as error:  # a file that is gone: the names from it are unknown below
            found.setdefault(f"not looked up ({error})", ())
    for record, config in zip(records, configs, strict=True):
        found |= _used_by(record, str(config.get("backbone") or ""))
    return list(found.items())


def _used_by(record: RunRecord, backbone: str) -> Iterator[_Named]:
    yield _cited("strategies", record.strategy, f"strategy {record.strategy}")
    made = record.facts.get("generated")
    for name in record.tests:
        title = record.titles.get(name, name)
        if name in made if isinstance(made, list) else record.generated:
            yield f"dataset {title}, a generated miniature", ()
        else:
            yield _cited("datasets", name, f"dataset {title}")
    yield _cited("backbones", backbone, f"backbone {record.backbone}")


def _cited(kind: registry.PluginKind, name: str, what: str) -> _Named:
    try:
        found = registry.load(kind, name).citation
    except UserError:
        return f"{what}, which is not known here", ()
    citations = (found,) if isinstance(found, str) else tuple(map(str, cast("tuple[object, ...]", found)))
    return what, tuple(one_line(text) for text in citations if text.strip())


def bibtex(citation: str, keys: set[str]) -> str:
    """Writes a citation as an entry of BibTeX; one that is not written as `_PARTS` has it becomes a note.

    Args:
        citation: In one line.
        keys: Keys that are taken; the entry's is added.
    """
    parts = _PARTS.fullmatch(citation)
    if parts is None:
        fields = {"note": citation}
        key = _key(re.sub(r"\W+", " ", citation).split()[:2], keys)
    else:
        names = re.sub(r" et al\.$", ", others", parts["authors"]).split(", ")
        fields = {
            "author": " and ".join(names),
            "title": f"{{{parts['title']}}}",
            "howpublished": parts["venue"],
            "year": parts["year"],
            **({"doi": parts["doi"]} if parts["doi"] else {}),
        }
        key = _key([names[0].split()[-1], parts["year"], parts["title"].split()[0]], keys)
    body = ",\n".join(
        f"  {name} = {{{value if name == 'doi' else _escaped(value)}}}" for name, value in fields.items()
    )
    return f"@misc{{{key},\n{body}\n}}"


def _key(words: Sequence[str], keys: set[str]) -> str:
    """Returns a key of ASCII letters and digits that is not taken, and takes it."""
    plain = re.sub(r"[^a-z0-9]", "", "".join(words).lower()) or "reference"
    key = next(k for k in (plain, *(f"{plain}{n}" for n in range(2, len(keys) + 3))) if k not in keys)
    keys.add(key)
    return key


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_])", r"\\\1", text)
