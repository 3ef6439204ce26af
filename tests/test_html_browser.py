"""The HTML report in a real headless Chromium, offline: clicks, sorts, hovers, and reads back."""

import csv
import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import recorded_runs as recorded
from recorded_html import HOSTILE, base, hostile_run, record_for_html, record_many, tables_of_page
from reported import numbers_of
from visited_page import Visit

from cliqa_bench.reports.page.html import html_report
from cliqa_bench.reports.parts import make_tables
from cliqa_bench.reports.render import number
from cliqa_bench.reports.report import write_report
from cliqa_bench.reports.rows import Tidy

TEMPLATES = Path(__file__).resolve().parents[1] / "reports" / "page" / "templates"


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("html") / "runs"
    record_for_html(out)
    return out


@pytest.fixture(scope="module")
def numbers(golden: Path) -> Tidy:
    return numbers_of(golden)


@pytest.fixture(scope="module")
def file(golden: Path) -> Path:
    write_report(golden, formats=["html"], figures=False)
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
    write_report(tmp_path, formats=["html"], figures=False)
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
    write_report(tmp_path, formats=["html"], figures=False)
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
    assert visit.page.locator("#tables table").count() == len(tables_of_page(numbers))
    assert visit.page.locator("#explore, #controls, #theme").filter(visible=True).count() == 0
    assert visit.page.locator("noscript").count() == 1 and "Scripts are off" in visit.page.inner_text("body")
    visit.close(file)


def test_a_figure_is_shown_and_runs_nothing(chromium: Any, numbers: Tidy, tmp_path: Path) -> None:
    picture, path = tmp_path / "a.svg", tmp_path / "report.html"
    picture.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30" onload="alert(1)">'
        "<script>alert(2)</script><text>50% of #1</text></svg>"
    )
    path.write_text(html_report(numbers, [], [(picture, "A figure")]))
    visit = Visit(chromium, path)
    assert visit.page.locator("figure img").evaluate("image => image.naturalWidth") == 40
    visit.close(path)


# ------------------------------------------------------------------------------- wide, printed, taken away


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 runs, with the report's tables as CSV beside the page."""
    out = tmp_path_factory.mktemp("many")
    record_many(out)
    write_report(out, formats=["html", "csv", "md"], figures=False)
    return out / "report" / "report.html"


def saved(visit: Visit, name: str, inside: str = "body") -> bytes:
    """Presses a button and returns the file that it saves."""
    with visit.page.expect_download() as download:
        visit.page.locator(inside).get_by_role("button", name=name, exact=True).click()
    return Path(download.value.path()).read_bytes()


@pytest.mark.slow
def test_matrices_open_on_tsn_iqa_or_the_best_without_the_oracle(chromium: Any, many: Path) -> None:
    visit = Visit(chromium, many)
    assert visit.page.locator("select[name=method]").input_value() == "TSN-IQA"
    visit.choose("reading", "readout:last")
    listed = visit.page.locator("select[name=method] option").all_inner_texts()
    with (many.parent / "table_V.csv").open() as text:
        means = {
            r["method"]: float(r["value"]) for r in csv.DictReader(text)
            if (r["metric"], r["order"], r["setting"]) == ("mSRCC", "I", "Task-Agnostic")
            and r["method"] in listed
        }  # fmt: skip
    assert len(means) == 9
    assert visit.page.locator("select[name=method]").input_value() == max(means, key=lambda m: means[m])
    visit.close(many)


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 1440])
def test_ten_curves_are_told_apart_without_colour(chromium: Any, many: Path, width: int) -> None:
    visit = Visit(chromium, many, viewport={"width": width, "height": 900})
    curves = visit.page.locator("#curves .chart .series:not(.end)")
    looks = curves.evaluate_all(
        "all => all.map(g => [g.querySelector('.mark').getAttribute('d'),"
        " g.querySelector('path').getAttribute('stroke-dasharray')].join())"
    )
    assert len(looks) == len(set(looks)) == 10
    shown = visit.page.locator("#curves .legend [aria-pressed=true]").all_inner_texts()
    names = visit.page.locator("#curves .end text").all_text_contents()
    if width > 600:
        assert names == [name.strip() for name in shown]
    else:  # numbers, which the legend explains
        assert names == [text.split()[0] for text in shown]
    boxes = visit.page.locator("#curves .end text").evaluate_all(
        "all => all.map(t => t.getBoundingClientRect()).map(b => [b.top, b.bottom, b.right])"
    )
    boxes.sort()
    gaps = [lower[0] - upper[1] for upper, lower in itertools.pairwise(boxes)]
    assert min(gaps) > -3  # letters do not touch; the boxes hold the space for accents, too
    frame = visit.page.locator("#curves .chart").bounding_box()
    assert max(box[2] for box in boxes) <= frame["x"] + frame["width"]
    visit.close(many)


@pytest.mark.slow
def test_the_page_is_as_wide_as_the_window(chromium: Any, many: Path) -> None:
    visit = Visit(chromium, many, viewport={"width": 1900, "height": 900})
    for place in ("#table_IV", "#table_IV table", "#curves .chart", "#summary table"):
        assert visit.page.locator(place).bounding_box()["width"] > 1700, place
    visit.close(many)


@pytest.mark.slow
def test_wide_tables_scroll_and_say_so(chromium: Any, many: Path) -> None:
    visit = Visit(chromium, many, viewport={"width": 390, "height": 844})
    scroll, hint = visit.page.locator("#table_IV .scroll"), visit.page.locator("#table_IV .hint")
    right = scroll.bounding_box()["x"] + scroll.bounding_box()["width"]
    heads = [head.bounding_box() for head in visit.page.locator("#table_IV .heads th").all()]
    beyond = sum(box["x"] + box["width"] > right + 2 for box in heads)
    assert beyond >= 2 and hint.inner_text() == f"{beyond} more columns: scroll sideways →"
    scroll.evaluate("node => node.scrollLeft = node.scrollWidth")
    visit.page.locator("#table_IV .hint", has_text="← scroll back").wait_for()
    first = visit.page.locator("#table_IV .heads th").first.bounding_box()
    assert first["x"] == heads[0]["x"]  # the names stay in view
    visit.page.set_viewport_size({"width": 1440, "height": 900})
    hint.wait_for(state="hidden")
    visit.close(many)


@pytest.mark.slow
def test_nothing_is_cut_off_in_print(chromium: Any, many: Path) -> None:
    page_width = 1046  # pixels of A4 landscape between margins of 10 mm
    visit = Visit(chromium, many, viewport={"width": page_width, "height": 700}, color_scheme="dark")
    for details in visit.page.locator("details").all():
        details.evaluate("node => node.open = true")
    visit.page.emulate_media(media="print", color_scheme="dark")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= page_width
    wide = visit.page.locator(".scroll, pre, figure").evaluate_all(
        "all => all.filter(n => n.scrollWidth > n.clientWidth + 2 || n.scrollHeight > n.clientHeight + 2)"
        ".map(n => n.getAttribute('aria-label'))"
    )
    assert wide == []
    assert visit.page.locator(".action, #theme, .hint").filter(visible=True).count() == 0
    assert visit.page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    # heads are repeated on each page: not where they hold a button with a box of its own (Chromium 156)
    style = "node => [getComputedStyle(node).display, getComputedStyle(node.closest('thead')).breakInside]"
    assert visit.page.locator("#table_IV .sort").first.evaluate(style) == ["contents", "avoid"]
    visit.close(many)


@pytest.mark.slow
def test_tables_are_copied_and_downloaded(chromium: Any, many: Path) -> None:
    visit = Visit(chromium, many)
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])

    def copied(name: str) -> str:
        button = visit.page.get_by_role("button", name=name, exact=True)
        button.click()
        visit.page.locator("#said", has_text="Done").wait_for(state="attached")
        visit.page.evaluate("document.getElementById('said').textContent = ''")
        return str(visit.page.evaluate("navigator.clipboard.readText()"))

    lines = copied("Copy Table V for a spreadsheet").splitlines()
    assert lines[0].split("\t") == ["Metric", "Method", "I", "II", "III", "IV", "V", "VI", "VII", "VIII"]
    printed = (many.parent / "table_V.md").read_text()
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(lines) == len(table) - 1
    spanned = copied("Copy Intervals for a spreadsheet").splitlines()[0].split("\t")
    assert spanned[:5] == ["Setting", "Method", "mSRCC Value", "mSRCC Low", "mSRCC High"]
    assert spanned[-1] == "KADID-10k High"
    about, _, *body = copied("Copy Table V as Markdown").splitlines()
    assert "not comparable with published numbers" in about
    # a section's name is in every line: what is copied may be sorted
    label, whole = "", []
    for line in table[2:]:
        label = line.split("|")[1].strip() or label
        whole.append("| " + " | ".join([label, *map(str.strip, line.split("|")[2:-1])]) + " |")
    assert body == [*table[:2], *whole]
    for name, title in {"table_IV": "Table IV", "table_power": "Power"}.items():
        rows = saved(visit, f"Download {title} as CSV, unrounded")
        assert rows == (many.parent / f"{name}.csv").read_bytes()
    assert saved(visit, "Download all numbers as CSV") == (many.parent / "results.csv").read_bytes()
    matrix = saved(visit, "Download the matrix of SRCC as CSV, unrounded").decode().splitlines()
    assert matrix[0].startswith("Learned,LIVE,LIVE (std),CSIQ") and len(matrix) == 7
    visit.close(many)


@pytest.mark.slow
def test_every_table_and_figure_can_be_taken_away(chromium: Any, numbers: Tidy, tmp_path: Path) -> None:
    picture, path = tmp_path / "fig_a.svg", tmp_path / "report.html"
    picture.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30">'
        '<text y="9">50% of #1 &amp; "2" ü</text></svg>'
    )
    path.write_text(html_report(numbers, make_tables(numbers), [(picture, "A figure")]))
    visit = Visit(chromium, path)
    tables = visit.page.locator("table").count()
    for kind in ("for a spreadsheet", "as Markdown"):
        assert visit.page.locator(f"button[aria-label$='{kind}']").count() == tables > 10
    assert saved(visit, "Download fig_a as SVG") == picture.read_bytes()
    assert saved(visit, "Download fig_a as PNG")[16:24] == bytes([0, 0, 0, 80, 0, 0, 0, 60])
    drawing = ET.fromstring(saved(visit, "Download the curves as SVG"))
    marks = {node.get("stroke") for node in drawing.iter() if node.tag.endswith("path")}
    assert {"rgb(0, 114, 178)", "rgb(213, 94, 0)"} <= marks  # the page's colours, without its style sheet
    texts = [node.text for node in drawing.iter() if node.tag.endswith("text")]
    assert "TSN-IQA (last head)" in texts and "CLIVE" in texts
    png = saved(visit, "Download the curves as PNG")
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(png[16:20], "big") == 2000
    visit.close(path)


def test_formulas_are_shown_on_hover_and_focus(chromium: Any, file: Path) -> None:
    visit = Visit(chromium, file)
    tip = visit.page.locator("#tip")
    listed = dict(
        zip(
            visit.page.locator("#formulas dt").all_inner_texts(),
            visit.page.locator("#formulas dd").all_inner_texts(),
            strict=True,
        )
    )
    for name in ("mSRCC", "mPI", "mSI", "mPSI"):
        head = visit.page.locator("#summary thead").get_by_role("button", name=name, exact=True)
        head.hover()
        assert tip.inner_text().splitlines() == [name, listed[name]]
        visit.page.mouse.move(2, 2)
        assert tip.is_hidden()
        head.focus()
        assert tip.inner_text().splitlines() == [name, listed[name]]
        head.blur()
        described = head.get_attribute("aria-describedby")
        assert visit.page.locator(f"#{described}").inner_text() == listed[name]
    visit.page.locator("#table_intervals thead").get_by_role("button", name="Low", exact=True).first.hover()
    assert tip.inner_text().splitlines()[0] == "Interval"
    visit.page.locator("#table_intervals thead").get_by_role("button", name="High", exact=True).first.focus()
    visit.page.mouse.move(2, 2)  # away from the one, while the other has the focus
    assert tip.inner_text().splitlines()[0] == "Interval"
    label = visit.page.locator("#table_V .section b", has_text="mPI")
    label.focus()
    assert tip.inner_text().splitlines() == ["mPI", listed["mPI"]]
    assert {"SRCC", "PLCC", "PLCC (logistic)"} <= set(listed)
    visit.close(file)
