// Tables that sort by click or key, each section for itself; a third click restores their own order.

const numeric = (cell) => cell.hasAttribute("data-value");

function sortKey(cell) {
  if (!numeric(cell)) return cell.textContent.trim();
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null); // dashes stay at the end
  if (typeof a === "string") return sign * a.localeCompare(b, "en", { numeric: true });
  return sign * (a - b);
}

function sortBy(table, column, direction) {
  const sign = direction === "ascending" ? 1 : -1;
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("section"));
    rows.forEach((row, i) => (row.dataset.place ??= i));
    rows.sort((a, b) =>
      direction === "none"
        ? a.dataset.place - b.dataset.place
        : compare(sortKey(a.cells[column]), sortKey(b.cells[column]), sign)
    );
    body.append(...rows);
  }
}

function makeSortable(table) {
  const heads = [...table.tHead.querySelectorAll(".heads th")];
  heads.forEach((head, column) => {
    const row = [...table.querySelectorAll("tbody tr:not(.section)")][0];
    const number = row && numeric(row.cells[column]);
    const turns = number ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
    if (number) head.classList.add("number");
    const button = el("button", { type: "button", class: "sort" }, ...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const now = turns[(turns.indexOf(head.getAttribute("aria-sort") ?? "none") + 1) % turns.length];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (now !== "none") head.setAttribute("aria-sort", now);
      sortBy(table, column, now);
    });
  });
  explainHeads(table);
}

// The cells of tables made by the server have their unrounded number with them.
function hoverTable(table) {
  const heads = [...table.tHead.querySelectorAll(".heads th")].map((head) => head.textContent.trim());
  const at = (event) => event.target.closest("td[data-value]");
  table.addEventListener("pointerover", (event) => {
    const cell = at(event);
    if (!cell || !cell.dataset.value) return;
    const name = cell.parentNode.cells[0].textContent.trim();
    showTip([`${name}, ${heads[cell.cellIndex]}`, cell.dataset.value], cell);
  });
  table.addEventListener("pointerout", (event) => at(event) && hideTip());
}

// A table of numbers: heads are names, rows [name, ...[value, std, median] or null].
function numberTable(caption, heads, rows) {
  const spreads = rows.some((row) => row.slice(1).some((number) => number && number[1] != null));
  const cell = (number) => {
    const [value, std, median] = number ?? [null, null, null];
    const text = printed(value) + (std == null ? "" : ` ± ${printed(std)}`) +
      (median == null ? "" : ` (${printed(median)})`);
    return el("td", { "data-value": value ?? "", ...(spreads && { "data-std": std ?? "" }) }, text);
  };
  const table = el(
    "table",
    { class: "sortable" },
    el("caption", {}, el("span", {}, caption)),
    el("thead", {}, el("tr", { class: "heads" }, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map(([name, ...numbers]) =>
      el("tr", {}, el("th", { scope: "row" }, name), ...numbers.map(cell))))
  );
  hoverTable(table);
  makeSortable(table);
  const scroll = el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption }, table);
  return el("div", {}, tableTools(scroll, caption), scroll);
}

// What stands above a table: how much of it lies beyond the edge, and what to take away.
function tableTools(scroll, name) {
  const table = scroll.querySelector("table");
  const file = table.dataset.csv ?? "";
  const hint = el("span", { class: "hint", hidden: "" });
  const caption = () => [...(table.caption ? [words(table.caption)] : []), caution].filter(Boolean).join(" ");
  const csv = async () => {
    const link = document.querySelector(`a[download="${file}"]`);
    if (link) link.click();
    else saveFile(file || "table.csv", table.dataset.number ? await tidyRows(table.dataset.number) : wideCsv(table), "text/csv");
  };
  watchWidth(scroll, hint);
  return el("div", { class: "above" }, hint, el("div", { class: "actions" },
    action("Copy", `Copy ${name} for a spreadsheet`, () => copyText(tsv(table))),
    action("Copy Markdown", `Copy ${name} as Markdown`, () => copyText(markdown(table, caption()))),
    action("CSV", `Download ${name} as CSV, unrounded`, csv)));
}

// Says how many columns lie beyond the right edge, while there are any.
function watchWidth(scroll, hint) {
  const show = () => {
    const edge = scroll.getBoundingClientRect().right;
    const heads = [...scroll.querySelectorAll("tr:last-child > th[scope=col]")];
    const wide = scroll.scrollWidth > scroll.clientWidth + 2; // less is a border
    const beyond = wide ? heads.filter((head) => head.getBoundingClientRect().right > edge + 2).length : 0;
    hint.hidden = !wide;
    hint.textContent = beyond ? `${beyond} more ${beyond === 1 ? "column" : "columns"}: scroll sideways →` : "← scroll back";
    scroll.classList.toggle("beyond", beyond > 0);
  };
  new ResizeObserver(show).observe(scroll);
  scroll.addEventListener("scroll", show, { passive: true });
}

// ---- formulas ----------------------------------------------------------------------------------

const formulas = new Map();
for (const name of document.querySelectorAll("#formulas dt")) {
  for (const head of [name.textContent, ...name.dataset.also.split("|")]) if (head) formulas.set(head, name);
}

// Shows a name's formula while the pointer or the focus is on the node.
function explain(node, name) {
  const term = formulas.get(name);
  if (!term) return false;
  const text = term.nextElementSibling;
  const show = () => showTip([term.textContent, text.textContent], node);
  node.classList.add("term");
  node.setAttribute("aria-describedby", text.id);
  for (const event of ["focus", "pointerenter"]) node.addEventListener(event, show);
  const hide = () => owner === node && hideTip(); // what has the focus may show its own by now
  for (const event of ["blur", "pointerleave"]) node.addEventListener(event, hide);
  return true;
}

function explainHeads(table) {
  for (const button of table.querySelectorAll(".heads .sort")) explain(button, words(button));
  for (const label of table.querySelectorAll(".section b")) {
    if (explain(label, words(label).split(",")[0])) label.setAttribute("tabindex", "0");
  }
}
