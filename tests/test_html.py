"""The HTML report: what it contains, and that hostile names do nothing."""

import base64
import csv
import gzip
import hashlib
import json
import math
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import recorded_runs as recorded
from recorded_html import (
    HOSTILE,
    base,
    hostile_run,
    page_of,
    record_for_html,
    record_many,
    tables_of_page,
)
from reported import numbers_of

from cliqa_bench.reports.audit.verify import verify
from cliqa_bench.reports.figures.style import COLOURS, LINES, MARKERS
from cliqa_bench.reports.page.explorer import explorer, to_json
from cliqa_bench.reports.page.html import html_report
from cliqa_bench.reports.parts import collect, lasting, make_tables
from cliqa_bench.reports.render import csv_text, number
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import GENERATED, Tidy, group_records
from cliqa_bench.reports.tables.shapes import Section, Table, TableValue
from cliqa_bench.results.records import AnswerReader, read_records

TEMPLATES = Path(__file__).resolve().parents[1] / "reports" / "page" / "templates"


class Page(HTMLParser):
    """Every element, and the text of the script and style elements and of the table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("strong", "small", "i", "b"):
            self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open, data))
        if self._open in ("td", "th"):
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = ""

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def unpacked(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


def packed_data(text: str) -> str:
    (packed,) = re.findall(r'<script type="application/gzip" id="data">(.*?)</script>', text)
    return unpacked(packed)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("html") / "runs"
    record_for_html(out)
    return out


@pytest.fixture(scope="module")
def numbers(golden: Path) -> Tidy:
    return numbers_of(golden)


# --------------------------------------------------------------------------------------------------- content


def test_all_tables_are_in_the_page_as_printed(numbers: Tidy) -> None:
    tables = tables_of_page(numbers)
    page = Page(html_report(numbers, make_tables(numbers)))
    for table in tables:
        assert {"href": f"#{table.name}"} in page.of("a")
        assert any(attributes.get("id") == table.name for attributes in page.of("div"))
        for section in table.sections:
            for name, values in section.rows:
                cells = [
                    number(v.mean, v.digits) + (f" ± {number(v.std, v.digits)}" if v.std == v.std else "")
                    for v in values
                ]
                assert [name, *cells] in page.rows, table.number
    digits = {a["data-value"] for a in page.of("td") if "data-value" in a}
    exact = {repr(v.mean) for t in tables for s in t.sections for _, vs in s.rows for v in vs}
    assert exact - {"nan"} <= digits and len(exact) > 80


def test_bold_gray_dashes_and_spans_are_kept(numbers: Tidy) -> None:
    values = [TableValue(0.5, bold=True), TableValue(-0.25, 0.125, gray=True), TableValue()]
    table = Table("IV", "Caption", ("Dataset", "Method"), ["a", "b", "c"], [Section("S", [("M", values)])])
    table = replace(table, spans=[("one", 2), ("two", 1)])
    text = html_report(replace(numbers, rows=[]), [table])
    row = next(line for line in text.splitlines() if '<th scope="row">M</th>' in line)
    assert '<td data-value="0.5"><strong>0.500</strong></td>' in row
    assert '<td data-value="-0.25" class="future">-0.250 ± 0.125</td>' in row
    assert '<td data-value="">—</td>' in row
    assert '<th scope="colgroup" colspan="2">one</th>' in text


def test_the_summary_is_that_of_the_tidy_rows(golden: Path, numbers: Tidy) -> None:
    rows = Page(html_report(numbers, [])).rows
    for order in recorded.ORDERS:
        wanted = {
            row.metric: row for row in base(numbers)
            if (row.method, row.order, row.length) == ("TSN-IQA (last head)", order, 4)
        }  # fmt: skip
        cells = [
            f"{number(wanted[m].value)} ± {number(wanted[m].std)}" for m in ("mSRCC", "mPI", "mSI", "mPSI")
        ]
        assert ["TSN-IQA (last head)", *cells] in rows


def test_the_embedded_data_are_the_tidy_rows(numbers: Tidy) -> None:
    text = html_report(numbers, [])
    data = json.loads(packed_data(text))
    assert [o["name"] for o in data["orders"]] == ["I", "V"]
    assert data["orders"][1]["sequence"] == ["CLIVE", "BID", "CSIQ", "LIVE"]
    seen = 0
    for row in base(numbers):
        line = (row.setting, row.backbone, row.method, row.order)
        (one,) = [s for s in data["series"] if (s["setting"], s["backbone"], s["label"], s["order"]) == line]
        std = None if math.isnan(row.std) else row.std
        if row.metric in ("PSI_t", "PI_t", "SI_t", "mPSI") and isinstance(row.length, int):
            assert [row.length, row.value, std] in one["curves"][row.metric]
            seen += 1
        elif row.metric in ("SRCC", "S"):
            matrix = one["matrices"][row.metric]
            i = matrix["rows"].index([row.length, row.train_dataset])
            j = matrix["columns"].index(row.test_dataset)
            standing = 1 if row.note.startswith("future task") else 0
            assert matrix["cells"][i][j] == [row.value, std, standing]
            seen += 1
        elif row.metric in ("PLCC", "KRCC"):
            assert [row.test_dataset, row.value, std] in one["final"][row.metric]
            seen += 1
    assert seen > 300
    assert {s["readout"] for s in data["series"]} == {"gate", "gate-hard", "oracle", "last"}


def test_what_is_unfinished_is_left_out_and_named(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    for step, lost in (("train-bid-0", "csiq"), ("train-live-0", "live")):
        (tmp_path / "answers" / record.answers[step][lost] / "done.json").unlink()
    numbers = numbers_of(tmp_path)
    (gate,) = [s for s in explorer(numbers)["series"] if s["label"] == "TSN-IQA"]
    assert [t for t, value, _ in gate["curves"]["PI_t"] if value is not None] == [2, 3, 4]
    assert "PSI_t" not in gate["curves"]  # no t has both
    assert gate["matrices"]["SRCC"]["columns"] == ["BID", "CLIVE", "CSIQ"]
    assert explorer(numbers)["main"] == numbers.group.main_order
    text = html_report(numbers, make_tables(numbers))
    assert "answers are missing, and what needs them is left out" in text
    assert '<code class="command">python -m cliqa_bench run --strategy tsn' in text
    assert "NaN" not in packed_data(text) and ">nan" not in text


def test_origins_configuration_and_fingerprints(golden: Path, numbers: Tidy) -> None:
    text = html_report(numbers, [])
    page = Page(text)
    assert "python -m cliqa_bench run --orders all" in page.text("code")
    assert '"seeds": [' in "".join(page.text("pre"))
    assert ["numpy", "1.2.3"] in page.rows
    assert any(row[0] == "live" and "print-of-live" in text for row in page.rows)
    for record in numbers.group.records:
        assert any(row[0] == record.id and str(record.seed) in row for row in page.rows), record.id


def test_downloads_are_the_csv_files(numbers: Tidy) -> None:
    page = Page(html_report(numbers, []))
    (link,) = [a for a in page.of("a") if a.get("download") == "results.csv.gz"]
    assert unpacked(link["href"].partition(";base64,")[2]) == csv_text(lasting(numbers.rows))


def test_what_is_measured_has_a_file_of_its_own(numbers: Tidy) -> None:
    timed = [numbers.rows[0]._replace(table="time", note='a "quoted" note & more')]
    page = Page(html_report(replace(numbers, rows=[*numbers.rows, *timed]), []))
    (link,) = [a for a in page.of("a") if a.get("download") == "table_time.csv"]
    assert unquote(link["href"].partition(",")[2]) == csv_text(timed)


def test_generated_data_says_so_and_real_data_does_not(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path / "a", generated=True)
    recorded.record_tsn(tmp_path / "b", generated=False)
    caution = GENERATED[0].upper() + GENERATED[1:]
    text = page_of(tmp_path / "a")
    assert f"<b>Generated data.</b> {caution}" in text
    # once to be read, and once for what is copied from the page; the tables of other files all say it
    assert Page(text).text("p").count(f" {caution}.") == 1 and text.count(caution) == 2
    assert all(caution in table.caption for table in make_tables(numbers_of(tmp_path / "a")))
    assert "iniature" not in page_of(tmp_path / "b")


def test_figures_are_pictures_that_run_nothing(numbers: Tidy, tmp_path: Path) -> None:
    picture = tmp_path / "a.svg"
    picture.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    page = Page(html_report(numbers, [], [(picture, 'PSI_t <of> "t"')]))
    (image,) = page.of("img")
    assert unquote(image["src"].removeprefix("data:image/svg+xml,")) == picture.read_text()
    assert image["alt"] == 'PSI_t <of> "t"' and not page.of("svg")


def test_colours_and_markers_are_those_of_the_figures() -> None:
    style = (TEMPLATES / "report.css").read_text()
    assert re.findall(r"--s\d: light-dark\((#\w+),", style) == [colour.lower() for colour in COLOURS]
    script = (TEMPLATES / "charts.js").read_text()
    assert script.split("MARKS = [")[1].split("];")[0].count("=>") == len(MARKERS)
    assert len(json.loads(script.split("DASHES = ")[1].split(";")[0])) == len(LINES)
    assert math.lcm(len(MARKERS), len(LINES)) >= 50 and len(MARKERS) >= 10  # told apart without colour
    assert f"COLOURS = {len(COLOURS)};" in script


def test_a_run_without_curves_has_a_page(tmp_path: Path) -> None:
    recorded.record_single(tmp_path, "jl")
    page = Page(page_of(tmp_path))
    assert [
        "JL",
        *[number(row.value) for row in base(numbers_of(tmp_path)) if row.metric == "SRCC"],
    ] in page.rows


# ---------------------------------------------------------------------------------------------- one safe file


def test_nothing_is_loaded_from_elsewhere(numbers: Tidy) -> None:
    text = html_report(numbers, make_tables(numbers))
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base") or attributes.get("href") == "data:,"
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on") or name == "style"], attributes
    assert "@import" not in text and "url(" not in text
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|innerHTML|eval\(|import\(", text)


def test_only_this_style_and_this_script_may_run(numbers: Tidy) -> None:
    text = html_report(numbers, [])
    (policy,) = [a["content"] for a in Page(text).of("meta") if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag in ("style", "script"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_hostile_names_make_no_element_and_no_attribute(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path / "good")
    hostile_run(tmp_path / "bad")
    good, bad = Page(page_of(tmp_path / "good")), Page(page_of(tmp_path / "bad"))
    kinds = [{(tag, *sorted(a)) for tag, a in page.elements} for page in (good, bad)]
    extra = {kind for kind in kinds[1] - kinds[0] if kind != ("code", "class")}  # this run has a command
    assert extra == set()
    assert len(good.of("script")) == len(bad.of("script")) == 2
    for name in (HOSTILE[0], HOSTILE[1]):
        assert any(name in cell for row in bad.rows for cell in row), name
    notes = html_report(numbers_of(tmp_path / "bad"), [], notes=HOSTILE)
    assert len(Page(notes).of("script")) == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_json_cannot_end_its_element_and_comes_back(text: str) -> None:
    told = to_json({text: [text, 0.1 + 0.2, None]})
    assert not set(told) & set("<>&\u2028\u2029")
    assert json.loads(told) == {text: [text, 0.1 + 0.2, None]}


def test_the_same_numbers_give_the_same_bytes_and_no_date(golden: Path) -> None:
    first, second = page_of(golden), page_of(golden)
    assert first == second
    again = [
        replace(r, facts={**r.facts, "asked": "2031-05-06T07:08:09+00:00"}) for r in read_records(golden)
    ]
    numbers = collect(group_records(again)[0], AnswerReader(golden))
    assert html_report(numbers, make_tables(numbers), notes=numbers.notes) == first


@pytest.mark.slow
def test_eighty_runs_are_a_small_page_made_in_a_second(tmp_path: Path) -> None:
    record_many(tmp_path)
    numbers = numbers_of(tmp_path)
    assert len(numbers.group.records) == 80
    tables = make_tables(numbers)
    start = time.process_time()
    text = html_report(numbers, tables)
    assert time.process_time() - start < 1.2  # 0.4 seen
    assert len(text.encode()) < 1_050_000  # 1,020,409 seen; the figures are as much again


@pytest.mark.slow
def test_eighty_runs_with_all_figures_have_two_megabytes(tmp_path: Path) -> None:
    record_many(tmp_path)
    write_report(tmp_path, formats=["html"])
    page = tmp_path / "report" / "report.html"
    assert len(Page(page.read_text()).of("img")) >= 6
    assert page.stat().st_size < 2_000_000


def test_hostile_names_are_harmless_in_csv_latex_and_markdown_and_verify(tmp_path: Path) -> None:
    hostile_run(tmp_path)
    write_report(tmp_path, figures=False)
    told = verify(tmp_path)
    assert told.ok, told.render()
    report = tmp_path / "report"
    cells = [cell for path in report.glob("*.csv") for row in csv.reader(path.open()) for cell in row]
    assert f"'{HOSTILE[6]}" in cells
    assert not [c for c in cells if c[:1] in "=+@" and c and not c[1:].replace(".", "").isdigit()]
    tex = "\n".join(path.read_text() for path in report.glob("*.tex")).replace(r"\allowbreak{}", "")
    assert r"\textbackslash{}input\{/etc/passwd\}" in tex
    assert not re.search(r"\\input(?!\{table_\w+\}$)|\$\{", tex, re.MULTILINE)
    markdown = "\n".join(path.read_text() for path in report.glob("*.md"))
    assert "<script" not in markdown.replace(r"\<script", "") and r"\<script\>" in markdown
