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
  const cell = (number) => {
    if (!number) return el("td", { "data-value": "" }, "—");
    const [value, std, median] = number;
    const text = printed(value) + (std == null ? "" : ` ± ${printed(std)}`) +
      (median == null ? "" : ` (${printed(median)})`);
    return el("td", { "data-value": number[0] ?? "" }, text);
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
  return el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption }, table);
}
