// The switches and what they show.

const data = JSON.parse(await unpack(document.getElementById("data").textContent));
const READOUTS = {
  gate: "Gate (soft)", "gate-hard": "Gate (hard)", oracle: "Task oracle", last: "Newest head",
};
const METRICS = {
  PSI_t: "PSI_t: plasticity and stability", mPSI: "mPSI: mean of PSI up to t",
  PI_t: "PI_t: plasticity", SI_t: "SI_t: stability",
};
const ABOUT = {
  SRCC: "SRCC with the MOS after each experience. Italic, dashed: datasets not yet learned.",
  S: "Stability: SRCC between predictions now and when the dataset was learned.",
};
const state = { order: "", backbone: "", reading: "", curve: data.curves[0], method: "", final: data.final[0] };
const hidden = new Set();
const MOST_CURVES = 10;

const unique = (values) => [...new Set(values)];
const number = (one) => data.labels.indexOf(one.label);

// A series that knows no order (joint learning) belongs to all of them.
function shown() {
  return data.series.filter((one) =>
    (one.order === state.order || one.order === "") && one.backbone === state.backbone && read(one.setting, one.readout));
}

function read(setting, readout) {
  return state.reading === "" || state.reading === `setting:${setting}` || state.reading === `readout:${readout}`;
}

// Mean SRCC after the last experience; what has none comes last.
function merit(one) {
  const values = (one.final.SRCC ?? []).map(([, value]) => value ?? -1);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : -2;
}

// Methods as they matter: the paper's own without the task oracle, then the best without it, then the others.
function byWeight(series) {
  const weight = (one) => (one.setting !== "Task-Agnostic" ? 0 : one.label === "TSN-IQA" ? 2 : 1);
  return [...series].sort((a, b) => weight(b) - weight(a) || merit(b) - merit(a));
}

// A labelled list to choose from; `options` are [value, text], a third entry names their group.
function choice(name, text, options, value, choose) {
  const list = el("select", { name });
  const groups = {};
  for (const [key, shownAs, group] of options) {
    const option = el("option", { value: key }, shownAs);
    if (group && !groups[group]) list.append((groups[group] = el("optgroup", { label: group })));
    (groups[group] ?? list).append(option);
  }
  list.value = value;
  list.addEventListener("change", () => choose(list.value));
  return el("label", {}, text, list);
}

function startControls() {
  const settings = unique(data.series.map((one) => one.setting)).map((s) => [`setting:${s}`, s, "Setting"]);
  const readouts = unique(data.series.map((one) => one.readout)).filter(Boolean)
    .map((r) => [`readout:${r}`, READOUTS[r] ?? r, "Readout"]);
  const orders = data.orders.map(({ name, sequence }) => {
    const arrows = sequence.join(" → ");
    return [name, name.includes(",") ? arrows : `${name}: ${arrows}`];
  });
  const backbones = unique(data.series.map((one) => one.backbone)).map((name) => [name, name]);
  [state.order, state.backbone] = [data.main, backbones[0][0]];
  const change = (key) => (value) => { state[key] = value; draw(); };
  document.getElementById("controls").append(
    choice("order", "Task order", orders, state.order, change("order")),
    choice("backbone", "Backbone", backbones, state.backbone, change("backbone")),
    choice("reading", "Setting or readout", [["", "All"], ...settings, ...readouts], "", change("reading"))
  );
}

function drawSummary() {
  for (const body of document.querySelectorAll("#summary tbody")) {
    const rows = [...body.querySelectorAll("tr:not(.section)")];
    for (const row of rows) {
      const { backbone, setting, readout } = row.dataset;
      row.hidden = backbone !== state.backbone || !read(setting, readout);
    }
    body.hidden = !["", state.order].includes(body.dataset.order) || rows.every((row) => row.hidden);
  }
}

const empty = () => el("p", { class: "about" }, "Nothing to show for this choice.");

// Draws all methods, or of very many those that matter most, until the reader chooses others.
function chooseCurves(card, there) {
  const choiceNow = [state.order, state.backbone, state.reading].join("|");
  if (card.dataset.of === choiceNow) return;
  card.dataset.of = choiceNow;
  hidden.clear();
  for (const one of byWeight(there).slice(MOST_CURVES)) hidden.add(one.label);
}

function legendOf(there, plot) {
  return el("ul", { class: "legend", "aria-label": "Methods" }, ...there.map((one) => {
    const button = el("button", { type: "button", "aria-pressed": !hidden.has(one.label) },
      el("span", { class: "number" }, number(one) + 1), swatch(number(one)), one.label);
    button.addEventListener("click", () => {
      if (!hidden.delete(one.label)) hidden.add(one.label);
      button.setAttribute("aria-pressed", !hidden.has(one.label));
      plot();
    });
    return el("li", {}, button);
  }));
}

function aboutCurves(metric, there) {
  const formula = `${metric}: ${words(formulas.get(metric).nextElementSibling)}`;
  const chosen = there.length > MOST_CURVES ? ` At first ${MOST_CURVES} of ${there.length} methods are drawn: ` +
    "TSN-IQA, and those with the highest mSRCC without the task oracle." : "";
  return el("p", { class: "about" }, formula + chosen);
}

function curveTable(there, metric, sequence) {
  const values = there.map((one) => [one.label, ...sequence.map((_, i) =>
    one.curves[metric].find(([t]) => t === i + 1)?.slice(1) ?? null)]);
  const heads = ["Method", ...sequence.map((name, i) => `${i + 1} ${name}`)];
  return el("details", {}, el("summary", {}, "The same as a table"),
    numberTable(`${metric} after each experience`, heads, values));
}

function drawCurveCard() {
  const card = document.getElementById("curves");
  const metric = state.curve;
  const there = shown().filter((one) => one.curves[metric]);
  const { sequence } = data.orders.find((order) => order.name === state.order);
  const tools = el("div", { class: "tools" }, el("h3", {}, "Curves over the experiences"),
    choice("curve", "Metric", data.curves.map((m) => [m, METRICS[m]]), metric, (value) => {
      state.curve = value;
      drawCurveCard();
      card.querySelector("select").focus();
    }));
  chooseCurves(card, there);
  const box = el("div", { class: "plot" });
  const drawn = () => there.filter((one) => !hidden.has(one.label));
  const plot = () => {
    if (drawn().length) drawCurves(box, drawn(), metric, sequence, number);
    else box.replaceChildren(empty());
  };
  const picture = () => {
    const drawing = curvePicture(1000, drawn(), metric, sequence, number).picture;
    box.append(drawing);
    const text = standalone(drawing);
    drawing.remove();
    return text;
  };
  replot = plot;
  if (!there.length) {
    card.replaceChildren(tools, empty());
    return;
  }
  card.replaceChildren(tools, aboutCurves(metric, there), legendOf(there, plot), box,
    pictureActions(`${metric}_order_${state.order}`, "the curves", picture), curveTable(there, metric, sequence));
  plot();
}

function drawMatrixCard() {
  const card = document.getElementById("matrices");
  const there = shown().filter((one) => Object.keys(one.matrices).length);
  if (!there.some((one) => one.label === state.method)) state.method = byWeight(there)[0]?.label ?? "";
  const one = there.find((series) => series.label === state.method);
  const tools = el("div", { class: "tools" }, el("h3", {}, "Matrices"));
  card.replaceChildren(tools);
  if (!one) {
    card.append(empty());
    return;
  }
  tools.append(choice("method", "Method", there.map(({ label }) => [label, label]), state.method, (value) => {
    state.method = value;
    drawMatrixCard();
    card.querySelector("select").focus();
  }));
  const maps = data.matrices.filter((metric) => one.matrices[metric])
    .map((metric) => heatMap(ABOUT[metric], one.matrices[metric], one.label, metric));
  card.append(el("div", { class: "pair" }, ...maps),
    el("p", { class: "key", "aria-hidden": "true" }, "-1", el("span"), "1"));
}

function drawFinalCard() {
  const card = document.getElementById("final");
  const metric = state.final;
  const there = shown().filter((one) => one.final[metric]);
  const tests = unique(there.flatMap((one) => one.final[metric].map(([test]) => test)));
  const rows = there.map((one) => [one.label, ...tests.map((test) =>
    one.final[metric].find(([name]) => name === test)?.slice(1) ?? null)]);
  const tools = el("div", { class: "tools" }, el("h3", {}, "Test sets after the last experience"),
    choice("final", "Metric", data.final.map((m) => [m, m]), metric, (value) => {
      state.final = value;
      drawFinalCard();
      card.querySelector("select").focus();
    }));
  const table = numberTable(`${metric} on each test set after the last experience`, ["Method", ...tests], rows);
  card.replaceChildren(tools, rows.length ? table : empty());
}

let replot = () => {};

function draw() {
  hideTip();
  drawSummary();
  drawCurveCard();
  drawMatrixCard();
  drawFinalCard();
}

for (const scroll of document.querySelectorAll(".scroll")) {
  const table = scroll.querySelector("table");
  if (!table.classList.contains("text")) hoverTable(table);
  if (table.classList.contains("sortable")) makeSortable(table);
  scroll.before(tableTools(scroll, scroll.getAttribute("aria-label") ?? "the summary"));
}
for (const figure of document.querySelectorAll("figure")) {
  const image = figure.querySelector("img");
  const source = () => decodeURIComponent(image.src.slice(image.src.indexOf(",") + 1));
  figure.append(pictureActions(figure.dataset.name, figure.dataset.name, source));
}
const everything = document.getElementById("everything");
everything.append(action("results.csv", "Download all numbers as CSV", async () =>
  saveFile("results.csv", await results(), "text/csv")));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((node) => (node.open = true)));
startTheme(document.getElementById("theme"));
document.getElementById("theme").hidden = false;
if (data.series.length) {
  for (const part of document.querySelectorAll(".live")) part.hidden = false;
  startControls();
  draw();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) replot();
    width = innerWidth;
  });
}
