"""Croissant metadata: a JSON-LD file beside a CSV file that says what its columns are and whom to cite.

The format is https://docs.mlcommons.org/croissant/docs/croissant-spec.html, version 1.0. It is plain JSON, so
it is written here in a few lines; the package `mlcroissant`, which reads and validates it, brings thirty
others along, and only our tests need it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cliqa_bench._version import __version__
from cliqa_bench.types import Json

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"

_VOCABULARY = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet",
    "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
    "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField",
    "transform",
)  # fmt: skip
"""The terms that are Croissant's own; all others are schema.org's."""

# the specification's context, whole: mlcroissant warns of any other
_CONTEXT: dict[str, Json] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _VOCABULARY},
}

Cells = Literal["Text", "Float"]


@dataclass(frozen=True)
class CroissantTable:
    """A CSV file, and what its metadata say.

    Attributes:
        name: Of what it holds, for people.
        description: What it holds, in a few sentences.
        file: Name of the CSV file; the metadata are beside it.
        records: What a row of it is, in the plural; names the set of records.
        columns: Column -> type and meaning of its cells, in the order of the file.
        licence: The terms under which it may be used; "" if its user decides.
        cite: Whom to cite; "" for no one.
        url: A page about it; "" for none.
    """

    name: str
    description: str
    file: str
    records: str
    columns: Mapping[str, tuple[Cells, str]]
    licence: str = ""
    cite: str = ""
    url: str = ""


def croissant_text(table: CroissantTable, text: str) -> str:
    """Returns the metadata of a CSV file as JSON-LD.

    Args:
        table: What the metadata say.
        text: Its content, which is hashed.
    """
    data = text.encode()
    known = {"license": table.licence, "citeAs": table.cite, "url": table.url}
    file = {
        "@type": "cr:FileObject",
        "@id": table.file,
        "name": table.file,
        "contentUrl": table.file,
        "contentSize": f"{len(data)} B",
        "encodingFormat": "text/csv",
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    body = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": table.name,
        "description": table.description,
        "version": __version__,
        **{term: value for term, value in known.items() if value},
        "distribution": [file],
        "recordSet": [_record_set(table)],
    }
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _record_set(table: CroissantTable) -> Json:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{table.records}/{column}",
            "name": column,
            "description": says,
            "dataType": f"sc:{cells}",
            "source": {"fileObject": {"@id": table.file}, "extract": {"column": column}},
        }
        for column, (cells, says) in table.columns.items()
    ]
    about = {"@type": "cr:RecordSet", "@id": table.records, "name": table.records}
    return {**about, "field": fields}
