// Curves and heat maps.

const DASHES = ["", "7 4", "9 3 2 3", "2 3", "12 3 2 3 2 3"];
const MARKS = [
  (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  (r) => `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (r) => `M0 ${-1.2 * r}L${1.2 * r} ${r}H${-1.2 * r}z`,
  (r) => `M0 ${-1.35 * r}L${1.35 * r} 0L0 ${1.35 * r}L${-1.35 * r} 0z`,
  (r) => `M0 ${1.2 * r}L${1.2 * r} ${-r}H${-1.2 * r}z`,
  (r) => `M${-r / 2} ${-1.2 * r}h${r}v${0.7 * r}h${0.7 * r}v${r}h${-0.7 * r}v${0.7 * r}h${-r}v${-0.7 * r}h${-0.7 * r}v${-r}h${0.7 * r}z`,
  (r) => `M${-r} ${-r}L${r} ${r}M${r} ${-r}L${-r} ${r}`,
  (r) => `M0 ${-1.3 * r}V${1.3 * r}M${-1.2 * r} ${-0.7 * r}L${1.2 * r} ${0.7 * r}M${1.2 * r} ${-0.7 * r}L${-1.2 * r} ${0.7 * r}`,
  (r) => `M${-1.2 * r} 0L${r} ${-1.2 * r}V${1.2 * r}z`,
  (r) => `M${1.2 * r} 0L${-r} ${-1.2 * r}V${1.2 * r}z`,
  (r) => `M0 ${-1.2 * r}L${1.15 * r} ${-0.35 * r}L${0.7 * r} ${r}H${-0.7 * r}L${-1.15 * r} ${-0.35 * r}z`,
];
const COLOURS = 7;

// Colour, marker and dashes of the method number i, the same wherever it is drawn.
const look = (i) => ({ group: `series c${i % COLOURS}`, mark: MARKS[i % MARKS.length], dash: DASHES[i % DASHES.length] });

function swatch(i) {
  const { group, mark, dash } = look(i);
  return svg("svg", { viewBox: "0 0 34 14", class: group, "aria-hidden": "true" },
    svg("path", { d: "M1 7H33", "stroke-dasharray": dash }),
    svg("path", { d: mark(4), transform: "translate(17 7)", class: "mark" }));
}

// Round numbers that divide a range into four to eight parts.
function ticks(low, high) {
  const power = 10 ** Math.floor(Math.log10((high - low) / 4));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => (high - low) / s <= 7);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n += 1) found.push(n * step);
  return { step, found };
}

function range(series, metric) {
  const values = series.flatMap((one) => one.curves[metric])
    .filter((point) => point[1] !== null)
    .flatMap(([, value, std]) => [value - (std ?? 0), value + (std ?? 0)]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = Math.max((high - low) * 0.08, 0.01);
  return [low - pad, high + pad];
}

// Draws the curves of `series` into `box`; `number` gives a method its look, `sequence` names the ticks.
function drawCurves(box, series, metric, sequence, number) {
  const width = Math.max(260, box.clientWidth);
  const { picture, points } = curvePicture(width, series, metric, sequence, number);
  followPointer(picture, points, width);
  box.replaceChildren(picture);
}

const LABEL = 14; // a line of labels, in pixels
const shorten = (text, most = 26) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// Returns the curves as a picture, and their points; methods are named at the ends of their curves, by the
// numbers of the legend if that is too narrow.
function curvePicture(width, series, metric, sequence, number) {
  const ends = series.map((one) => (width < 600 ? String(number(one) + 1) : shorten(one.label)));
  const tilted = (width - 70) / sequence.length < 90;
  const pad = { left: 50, right: 34 + 7 * Math.max(...ends.map((text) => text.length)), top: 12, bottom: tilted ? 78 : 46 };
  const height = Math.max(LABEL * (ends.length + 1) + pad.top + pad.bottom, Math.min(440, Math.max(260, width * 0.42)));
  const [low, high] = range(series, metric);
  const slot = (width - pad.left - pad.right) / sequence.length;
  const x = (t) => pad.left + slot * (t - 0.5);
  const y = (value) => height - pad.bottom - ((value - low) / (high - low)) * (height - pad.top - pad.bottom);
  const picture = svg("svg", {
    viewBox: `0 0 ${width} ${Math.round(height)}`, class: "chart", height: Math.round(height), role: "group",
    "aria-label": `${metric} against the number of experiences; arrow keys move between points`,
  });
  drawAxes(picture, { width, height, pad, low, high, x, y, tilted, metric, sequence });
  const points = [];
  const last = [];
  const grid = series.map((one) => {
    const { group, mark, dash } = look(number(one));
    const layer = svg("g", { class: group });
    const known = one.curves[metric].filter((point) => point[1] !== null);
    layer.append(svg("path", { d: line(one.curves[metric], x, y), "stroke-dasharray": dash }));
    const row = sequence.map(() => null);
    for (const [t, value, std, median] of known) {
      const node = svg("g", { role: "img" });
      if (std) node.append(svg("path", { d: `M${x(t)} ${y(value - std)}V${y(value + std)}` }));
      node.append(svg("path", { d: mark(4.5), transform: `translate(${x(t)} ${y(value)})`, class: "mark" }));
      const lines = [`t = ${t}, ${sequence[t - 1]}`, `${one.label}: ${metric} = ${exact(value)}${spread(std, median)}`];
      tell(node, lines);
      points.push({ node, lines, x: x(t), y: y(value) });
      row[t - 1] = node;
      layer.append(node);
    }
    const [t, value] = known.at(-1);
    last.push([x(t), y(value)]);
    picture.append(layer);
    return row;
  });
  nameCurves(picture, series, ends, last, number, { left: width - pad.right + 20, top: pad.top, bottom: height - pad.bottom });
  roving(grid);
  return { picture, points };
}

// Writes each method's name beside the end of its curve, with a thin line to it.
function nameCurves(picture, series, ends, last, number, { left, top, bottom }) {
  const heights = apart(last.map((point) => point[1]), LABEL, top, bottom);
  series.forEach((one, i) => {
    const [x, y] = last[i];
    picture.append(svg("g", { class: `${look(number(one)).group} end`, "aria-hidden": "true" },
      svg("path", { class: "lead", d: `M${x + 7} ${y}L${left - 4} ${heights[i]}` }),
      svg("text", { x: left, y: heights[i] + 4 }, ends[i])));
  });
}

// Moves heights as far apart as `gap` asks for, in their own order, between `top` and `bottom`.
function apart(wishes, gap, top, bottom) {
  const order = wishes.map((wish, i) => i).sort((a, b) => wishes[a] - wishes[b]);
  const found = [];
  order.forEach((i, n) => (found[i] = n ? Math.max(wishes[i], found[order[n - 1]] + gap) : Math.max(top, wishes[i])));
  order.reverse().forEach((i, n) => (found[i] = Math.min(found[i], n ? found[order[n - 1]] - gap : bottom)));
  return found;
}

// A line with a gap where a value is undefined.
function line(points, x, y) {
  let pen = "M";
  return points.map(([t, value]) => {
    const part = value === null ? "" : `${pen}${x(t)} ${y(value)}`;
    pen = value === null ? "M" : "L";
    return part;
  }).join("");
}

function drawAxes(picture, { width, height, pad, low, high, x, y, tilted, metric, sequence }) {
  const { step, found } = ticks(low, high);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) + (/25/.test(String(step)) ? 1 : 0);
  for (const value of found) {
    picture.append(
      svg("line", { class: "grid", x1: pad.left, x2: width - pad.right, y1: y(value), y2: y(value) }),
      svg("text", { x: pad.left - 8, y: y(value) + 4, "text-anchor": "end" }, (value + 0).toFixed(digits))
    );
  }
  sequence.forEach((name, i) => {
    const [left, base] = [x(i + 1), height - pad.bottom];
    picture.append(svg("text", { x: left, y: base + 18, "text-anchor": "middle" }, `t = ${i + 1}`));
    const where = tilted
      ? { transform: `translate(${left + 4} ${base + 32}) rotate(-35)`, "text-anchor": "end" }
      : { x: left, y: base + 34, "text-anchor": "middle" };
    picture.append(svg("text", where, name));
  });
}

// The point nearest to the pointer tells its value, so it need not be hit; those it hides tell theirs too.
function followPointer(picture, points, width) {
  let on = null;
  const leave = () => {
    if (on) on.node.classList.remove("on");
    on = null;
    hideTip();
  };
  const move = (event) => {
    const box = picture.getBoundingClientRect();
    const scale = width / box.width;
    const [px, py] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const far = (point) => Math.hypot(point.x - px, point.y - py);
    const near = points.reduce((best, point) => (!best || far(point) < far(best) ? point : best), null);
    if (near === on) return;
    leave();
    if (!near || far(near) > 60) return;
    on = near;
    near.node.classList.add("on");
    const same = points.filter((point) => Math.hypot(point.x - near.x, point.y - near.y) < 3);
    showTip([near.lines[0], ...same.map((point) => point.lines[1])], near.node.querySelector(".mark"));
  };
  picture.addEventListener("pointermove", move);
  picture.addEventListener("pointerdown", move);
  picture.addEventListener("pointerleave", leave);
}

// A matrix as a table of coloured cells, from -1 over 0 to 1.
function heatMap(caption, matrix, method, metric) {
  const grid = [];
  const body = matrix.rows.map(([length, train], i) => {
    const nodes = matrix.cells[i].map((cell, j) => {
      if (!cell) return null;
      const [value, std, standing, median] = cell;
      const node = el("td", { "data-value": value ?? "", "data-std": std ?? "" }, printed(value));
      if (value !== null) {
        const part = Math.min(1, Math.abs(value));
        node.className = ["shade", value < 0 && "below", part > 0.7 && "strong", standing === 1 && "future"]
          .filter(Boolean).join(" ");
        node.style.setProperty("--part", part.toFixed(3));
      }
      const told = ["", ", not yet learned", ", never learned"][standing];
      const after = train === "All" ? "after all datasets at once" : `after t = ${length}, ${train}`;
      hover(node, [method, `${after}, on ${matrix.columns[j]}${told}`, `${metric} = ${exact(value)}${spread(std, median)}`]);
      return node;
    });
    grid.push(nodes);
    const head = train === "All" ? "All" : `${length}  ${train}`;
    return el("tr", {}, el("th", { scope: "row" }, head), ...nodes.map((node) => node ?? el("td", { "data-value": "", "data-std": "" })));
  });
  roving(grid);
  const heads = ["Learned", ...matrix.columns].map((name) => el("th", { scope: "col" }, name));
  const scroll = el("div", { class: "scroll" }, el("table", { class: heads.length > 6 ? "heat many" : "heat" },
    el("caption", {}, el("span", {}, caption)), el("thead", {}, el("tr", { class: "heads" }, ...heads)), el("tbody", {}, ...body)));
  return el("div", {}, tableTools(scroll, `the matrix of ${metric}`), scroll);
}
