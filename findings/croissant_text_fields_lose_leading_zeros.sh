#!/usr/bin/env bash
# mlcroissant gives back 7 for the text 007, so that two names of pictures become one.
#
# The metadata declare the column `clip` as sc:Text and are valid; the file holds "007" and "7", two different
# names. The reader lets pandas guess each column's type before it converts it to the declared one: a column in
# which every cell looks like a number is read as numbers, and their text lacks the zeros. One cell that is not a
# number ("x1", second run) keeps all of them as they are. Whoever joins such records with a label table by name
# loses rows or mixes them up, and no error says so.
#
# Versions: mlcroissant 1.1.1, pandas 2.3.3, Python 3.11, Linux.
# Output seen:
#   errors 0; in the file 007 7; read 7 7
#   errors 0; in the file 007 7 x1; read 007 7 x1
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cat >"$work/read.py" <<'PY'
import hashlib
import json
import logging
import sys
from pathlib import Path

import mlcroissant

logging.disable(logging.WARNING)
names = sys.argv[2:]
folder = Path(sys.argv[1])
text = "clip,score\n" + "".join(f"{name},4.5\n" for name in names)
(folder / "ratings.csv").write_text(text)


def field(name, kind):
    source = {"fileObject": {"@id": "ratings.csv"}, "extract": {"column": name}}
    return {"@type": "cr:Field", "@id": f"ratings/{name}", "name": name, "dataType": kind, "source": source}


terms = ("recordSet", "field", "source", "extract", "column", "fileObject")
metadata = {
    "@context": {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "sc": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "conformsTo": "http://purl.org/dc/terms/conformsTo",
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        **{term: f"cr:{term}" for term in terms},
    },
    "@type": "sc:Dataset",
    "name": "ratings",
    "description": "Rated clips.",
    "conformsTo": "http://mlcommons.org/croissant/1.0",
    "license": "https://spdx.org/licenses/CC0-1.0",
    "url": "https://example.org",
    "version": "1.0.0",
    "datePublished": "2026-01-01",
    "distribution": [
        {
            "@type": "cr:FileObject",
            "@id": "ratings.csv",
            "name": "ratings.csv",
            "contentUrl": "ratings.csv",
            "encodingFormat": "text/csv",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
    ],
    "recordSet": [
        {
            "@type": "cr:RecordSet",
            "@id": "ratings",
            "name": "ratings",
            "field": [field("clip", "sc:Text"), field("score", "sc:Float")],
        }
    ],
}
(folder / "croissant.json").write_text(json.dumps(metadata))
data = mlcroissant.Dataset(jsonld=folder / "croissant.json")
read = [record["ratings/clip"].decode() for record in data.records("ratings")]
print(f"errors {len(list(data.metadata.ctx.issues.errors))}; in the file {' '.join(names)}; read {' '.join(read)}")
PY
python3.11 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "mlcroissant==1.1.1" "pandas==2.3.3"
seen=""
for names in "007 7" "007 7 x1"; do
  mkdir -p "$work/data"
  # shellcheck disable=SC2086
  seen+="$("$work/venv/bin/python" "$work/read.py" "$work/data" $names 2>/dev/null)"$'\n'
  rm -rf "$work/data"
done
printf '%s' "$seen"
expected="errors 0; in the file 007 7; read 7 7
errors 0; in the file 007 7 x1; read 007 7 x1
"
if [ "$seen" != "$expected" ]; then
  printf 'this has changed; expected:\n%s' "$expected" >&2
  exit 1
fi
