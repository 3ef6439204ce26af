"""The HTML report: what it contains, that hostile names do nothing, and that it works in a real browser."""

import base64
import csv
import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import recorded_runs as recorded

from cliqa_bench.reports.explorer import explorer, to_json
from cliqa_bench.reports.html import html_report
from cliqa_bench.reports.parts import collect, lasting, make_tables
from cliqa_bench.reports.render import csv_text, number
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import GENERATED, ORDERS, Row, Tidy, group_records
from cliqa_bench.reports.style import COLOURS, MARKERS
from cliqa_bench.reports.tables import Section, Table, Value
from cliqa_bench.store import AnswerReader, read_records, write_record

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    '"onmouseover="alert(3)',
    "'><svg onload=alert(4)>",
    "</style></title></textarea><b>bold</b>",
    r"\input{/etc/passwd} {{ 7 * 7 }} ${alert(5)}",
    "=cmd()|' /C calc'!A0",
    "line\u2028separator, comma & ampersand",
]
TEMPLATES = Path(__file__).resolve().parents[1] / "reports" / "templates"


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


def base(numbers: Tidy) -> list[Row]:
    """Returns the rows from which the interactive part is made; further tables have the same metrics."""
    return [row for row in numbers.rows if row.table in ("III", "IV", "V", "VI", "Fig. 4", "")]


def numbers_of(out: Path) -> Tidy:
    return collect(group_records(read_records(out))[0], AnswerReader(out))


def page_of(out: Path) -> str:
    numbers = numbers_of(out)
    return html_report(numbers, make_tables(numbers), notes=numbers.notes)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("html") / "runs"
    facts: dict[str, Any] = {
        "command": "python -m cliqa_bench run --orders all",
        "versions": {"numpy": "1.2.3"},
    }
    recorded.record_golden(out)
    for order in recorded.ORDERS:
        recorded.record_tsn(out, order, **facts, config={"seeds": [0, 1]})
    return out


@pytest.fixture(scope="module")
def numbers(golden: Path) -> Tidy:
    return numbers_of(golden)


# --------------------------------------------------------------------------------------------------- content


def test_all_tables_are_in_the_page_as_printed(numbers: Tidy) -> None:
    tables = make_tables(numbers)
    page = Page(html_report(numbers, tables))
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
    values = [Value(0.5, bold=True), Value(-0.25, 0.125, gray=True), Value()]
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
    data = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)[0])
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


def test_what_is_undefined_is_null_and_a_curve_of_nothing_is_not_there(tmp_path: Path) -> None:
    record = recorded.record_tsn(tmp_path)
    for step, lost in (("train-bid-0", "csiq"), ("train-live-0", "live")):
        (tmp_path / "answers" / record.answers[step][lost] / "done.json").unlink()
    numbers = numbers_of(tmp_path)
    (gate,) = [s for s in explorer(numbers)["series"] if s["label"] == "TSN-IQA"]
    assert [value is None for _, value, _ in gate["curves"]["PI_t"]] == [True, False, False, False]
    assert "PSI_t" not in gate["curves"]  # no t has both
    assert gate["matrices"]["SRCC"]["cells"][0][0][0] is None
    text = html_report(numbers, make_tables(numbers), notes=numbers.notes)
    assert "answers are missing and stand as dashes" in text
    assert '<code class="command">python -m cliqa_bench run --strategy tsn' in text
    assert "NaN" not in text and ">nan" not in text


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
    files = {a["download"]: unquote(a["href"].partition(",")[2]) for a in page.of("a") if "download" in a}
    assert files["results.csv"] == csv_text(lasting(numbers.rows))
    table = list(csv.DictReader(files["table_IV.csv"].splitlines()))
    assert len(table) == sum(row.table == "IV" for row in numbers.rows) > 0


def test_generated_data_says_so_and_real_data_does_not(tmp_path: Path) -> None:
    recorded.record_tsn(tmp_path / "a", generated=True)
    recorded.record_tsn(tmp_path / "b", generated=False)
    banner = "<b>Generated data.</b> " + GENERATED[0].upper() + GENERATED[1:]
    assert banner in page_of(tmp_path / "a")
    assert "iniature" not in page_of(tmp_path / "b")


def test_figures_are_pictures_that_run_nothing(numbers: Tidy, tmp_path: Path) -> None:
    picture = tmp_path / "a.svg"
    picture.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    page = Page(html_report(numbers, [], [(picture, 'PSI_t <of> "t"')]))
    (image,) = page.of("img")
    assert base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,")) == picture.read_bytes()
    assert image["alt"] == 'PSI_t <of> "t"' and not page.of("svg")


def test_colours_and_markers_are_those_of_the_figures() -> None:
    style = (TEMPLATES / "report.css").read_text()
    assert re.findall(r"--s\d: light-dark\((#\w+),", style) == [colour.lower() for colour in COLOURS]
    script = (TEMPLATES / "charts.js").read_text()
    assert script.split("MARKS = [")[1].split("];")[0].count("=>") == len(MARKERS)
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


def hostile_run(out: Path) -> None:
    """Records a run whose every name is hostile."""
    record = recorded.record_tsn(out, command=HOSTILE[0], versions={HOSTILE[1]: HOSTILE[2]}, split=HOSTILE[3])
    names = dict(zip(record.sequence, HOSTILE, strict=False))
    rows = dict(zip(record.rows, HOSTILE[4:], strict=True))
    write_record(out, replace(record, titles=names, rows=rows, backbone=HOSTILE[1], variant=HOSTILE[2]))
    (out / "runs" / f"{record.id}.json").unlink()


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


def test_eight_orders_are_a_small_page_made_in_a_second(tmp_path: Path) -> None:
    names = [f"set{i}" for i in range(6)]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(recorded.TITLES, name, name.upper())
        for i, order in enumerate(ORDERS):
            turned = names[i % 6 :] + names[: i % 6]
            recorded.record_tsn(tmp_path, order, turned if i < 6 else turned[::-1])
        numbers = numbers_of(tmp_path)
    tables = make_tables(numbers)
    start = time.process_time()
    text = html_report(numbers, tables)
    assert time.process_time() - start < 1
    assert len(text.encode()) < 2_000_000


# --------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="there is no playwright (the extra [browser])")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium on the PATH")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page opened from its file, offline; keeps everything that should not have happened."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(
            **{"offline": True, "viewport": {"width": 1200, "height": 900}, **options}
        )
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.goto(path.as_uri())

    def _dialog(self, dialog: Any) -> None:
        self.wrong.append(dialog.message)
        dialog.dismiss()

    def choose(self, name: str, value: str) -> None:
        self.page.select_option(f"select[name={name}]", value)

    def rows(self, table: str) -> list[list[str]]:
        """Returns the cells of a table's visible rows, its section lines left out."""
        return self.page.eval_on_selector_all(  # type: ignore[no-any-return]
            f"{table} tbody tr:not(.section)",
            "rows => rows.filter(r => r.offsetParent).map(r => [...r.cells].map(c => c.textContent.trim()))",
        )

    def close(self, path: Path) -> None:
        """Closes it; nothing may have gone wrong, and only the file itself may have been asked for."""
        assert self.wrong == []
        assert {u for u in self.requests if not u.startswith("data:")} == {path.as_uri()}
        self.context.close()


@pytest.fixture(scope="module")
def file(golden: Path) -> Path:
    write_report(golden, formats=["html"])
    return golden / "report" / "report.html"


def test_tables_sort_by_click_and_key(chromium: Any, file: Path, numbers: Tidy) -> None:
    visit = Visit(chromium, file)
    before = visit.rows("#summary table")
    head = visit.page.locator("#summary thead th", has_text="mSRCC")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    down = visit.rows("#summary table")
    agnostic = [float(row[1].split()[0]) for row in down[:4]]
    assert agnostic == sorted(agnostic, reverse=True) and down != before
    assert down[4][0] == "TSN-IQA-O"  # sections stay apart
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(row[1].split()[0]) for row in visit.rows("#summary table")[:4]] == agnostic[::-1]
    head.locator("button").press("Space")
    assert head.get_attribute("aria-sort") is None and visit.rows("#summary table") == before
    visit.close(file)


def test_order_setting_and_metric_switch_what_is_shown(chromium: Any, file: Path, numbers: Tidy) -> None:
    visit = Visit(chromium, file)

    def wanted(metric: str, order: str) -> str:
        about = ("TSN-IQA (last head)", metric, order, 4)
        found = [r for r in base(numbers) if (r.method, r.metric, r.order, r.length) == about]
        return f"{number(found[0].value)} ± {number(found[0].std)}"

    def line(table: str) -> list[str]:
        return next(row for row in visit.rows(table) if row[0] == "TSN-IQA (last head)")

    visit.page.locator("#curves details summary").click()
    assert line("#summary table")[1] == wanted("mSRCC", "I")
    assert line("#curves table")[4] == wanted("PSI_t", "I")
    visit.choose("order", "V")
    visit.page.locator("#curves details summary").click()
    assert line("#summary table")[1] == wanted("mSRCC", "V")
    assert line("#curves table")[4] == wanted("PSI_t", "V")
    visit.choose("curve", "SI_t")
    visit.page.locator("#curves details summary").click()
    assert line("#curves table")[4] == wanted("SI_t", "V")
    visit.choose("reading", "readout:oracle")
    assert [row[0] for row in visit.rows("#summary table")] == ["TSN-IQA-O"]
    visit.choose("reading", "setting:Joint")
    assert visit.rows("#summary table")[0][2:] == ["—"] * 3  # no sequence, no plasticity
    assert len(visit.rows("#summary table")) == len(visit.rows("#final table")) == 1
    visit.close(file)


def test_hovering_and_focus_tell_unrounded_values(chromium: Any, file: Path, numbers: Tidy) -> None:
    visit = Visit(chromium, file)
    tip = visit.page.locator("#tip")
    psi = {
        r.length: r for r in numbers.rows if (r.table, r.method, r.metric) == ("Fig. 4", "TSN-IQA-O", "PSI_t")
    }
    visit.page.locator("#curves .chart .mark").first.hover(force=True)
    hidden = [line.partition(":")[0] for line in tip.inner_text().splitlines()]
    assert hidden == ["t = 1, LIVE", "TSN-IQA-O", "TSN-IQA", "TSN-IQA (hard)", "TSN-IQA (last head)"]
    for name in ("TSN-IQA", "TSN-IQA (hard)", "TSN-IQA (last head)", "SL"):
        visit.page.get_by_role("button", name=name, exact=True).click()
    mark = visit.page.locator("#curves .chart .mark").nth(1)
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    tip.wait_for(state="visible")
    told = f"TSN-IQA-O: PSI_t = {psi[2].value} ± {psi[2].std}"
    assert tip.inner_text().splitlines() == ["t = 2, CSIQ", told]
    visit.page.mouse.move(2, 2)
    assert tip.is_hidden()
    visit.page.locator('#curves .chart g[tabindex="0"]').focus()
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("ArrowRight")
    assert f"PSI_t = {psi[3].value} ± {psi[3].std}" in tip.inner_text()
    visit.choose("method", "TSN-IQA")
    cell = visit.page.locator("#matrices .heat").first.locator("tbody tr").nth(1).locator("td").nth(2)
    cell.hover()
    (row,) = {r for r in numbers.rows if (r.table, r.method, r.metric, r.length, r.test_dataset) == (
        "IV", "TSN-IQA", "SRCC", 2, "BID")}  # fmt: skip
    assert f"SRCC = {row.value} ± {row.std}" in tip.inner_text() and "not yet learned" in tip.inner_text()
    assert cell.inner_text() == number(row.value) and "future" in (cell.get_attribute("class") or "")
    visit.close(file)


def test_rounding_in_the_browser_is_that_of_the_other_files(chromium: Any, file: Path) -> None:
    values = [0.0625, 0.1875, 0.3125, -0.0625, 0.0005, 0.0015, 0.12345, -0.0001, 1.0, 0.9995, -0.5, 1 / 3]
    visit = Visit(chromium, file)
    source = (TEMPLATES / "page.js").read_text()
    (body,) = re.findall(r"function printed.*?\n}\n", source, re.DOTALL)
    got = visit.page.evaluate(f"(values) => {{ {body} return values.map(printed); }}", values)
    assert got == [number(value) for value in values]
    visit.close(file)


def test_hostile_names_do_nothing_in_the_browser(chromium: Any, tmp_path: Path) -> None:
    hostile_run(tmp_path)
    write_report(tmp_path, formats=["html"])
    path = tmp_path / "report" / "report.html"
    visit = Visit(chromium, path)
    before = visit.page.evaluate("document.querySelectorAll('script, img[src=x], [onmouseover], b b').length")
    assert before == 2
    assert HOSTILE[4] in (visit.page.locator("#curves .legend").text_content() or "")
    visit.page.locator("#curves .chart .mark").first.hover(force=True)
    visit.page.locator("#matrices td.shade").first.hover()
    assert HOSTILE[0] in visit.page.locator("#tip").inner_text()
    visit.page.get_by_role("button", name="Theme").click()
    visit.close(path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(chromium: Any, file: Path, scheme: str) -> None:
    phone = {"viewport": {"width": 375, "height": 812}, "is_mobile": True, "has_touch": True}
    visit = Visit(chromium, file, color_scheme=scheme, **phone)
    for details in visit.page.locator("details").all():
        details.evaluate("node => node.open = true")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 375
    mark = visit.page.locator("#curves .chart .mark").first
    mark.scroll_into_view_if_needed()
    mark.tap(force=True)
    box = visit.page.locator("#tip").bounding_box()
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 375
    visit.close(file)


def test_joint_learning_alone_has_no_curves_and_no_error(chromium: Any, tmp_path: Path) -> None:
    recorded.record_single(tmp_path, "jl")
    write_report(tmp_path, formats=["html"])
    path = tmp_path / "report" / "report.html"
    visit = Visit(chromium, path)
    assert "Nothing to show" in visit.page.inner_text("#curves")
    assert visit.page.locator("#matrices td.shade").count() == len(recorded.ORDERS["I"])
    assert [row[0] for row in visit.rows("#final table")] == ["JL"]
    visit.close(path)


def test_light_and_dark_follow_the_system_and_the_switch(chromium: Any, file: Path) -> None:
    visit = Visit(chromium, file, color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = visit.page.evaluate(colour)
    switch = visit.page.get_by_role("button", name="Theme")
    switch.click()
    light = visit.page.evaluate(colour)
    switch.click()
    assert visit.page.evaluate(colour) == dark != light
    assert switch.inner_text() == "Theme: dark"
    visit.close(file)


def test_tables_are_there_without_scripts(chromium: Any, file: Path, numbers: Tidy) -> None:
    visit = Visit(chromium, file, java_script_enabled=False)
    assert visit.page.locator("#tables table").count() == len(make_tables(numbers))
    assert visit.page.locator("#explore, #controls, #theme").filter(visible=True).count() == 0
    assert visit.page.locator("noscript").count() == 1 and "Scripts are off" in visit.page.inner_text("body")
    visit.close(file)
