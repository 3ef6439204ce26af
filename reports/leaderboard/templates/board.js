// The leaderboard: sortable tables, and a filter over all of them.

for (const scroll of document.querySelectorAll(".scroll")) {
  const table = scroll.querySelector("table");
  if (table.classList.contains("sortable")) {
    hoverTable(table);
    makeSortable(table);
  }
  scroll.before(tableTools(scroll, scroll.getAttribute("aria-label")));
}

const chosen = [...document.querySelectorAll("#filters select")];

function filter() {
  for (const row of document.querySelectorAll("tr[data-order]")) {
    row.hidden = chosen.some((box) => box.value !== "" && row.dataset[box.name] !== box.value);
  }
  for (const part of document.querySelectorAll("section.board")) {
    part.hidden = ![...part.querySelectorAll("tr[data-order]")].some((row) => !row.hidden);
  }
}

for (const box of chosen) box.addEventListener("change", filter);
startTheme(document.getElementById("theme"));
for (const part of document.querySelectorAll(".live")) part.hidden = false;
