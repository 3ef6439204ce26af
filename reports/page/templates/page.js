// What every part of the page uses: elements, the theme, hover values, and moving with the arrow keys.

const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children); // strings become text, never markup
  return node;
}

const exact = (value) => (value === null ? "undefined" : String(value));

// Three digits as in the other files of the report: an exact tie goes to the even digit, there is no minus zero.
function printed(value) {
  if (value === null) return "—";
  const tie = Math.abs(value * 16) % 2 === 1;
  return ((tie ? (2 * Math.round(value * 500)) / 1000 : Number(value.toFixed(3))) + 0).toFixed(3);
}

const spread = (std, median) => (std == null ? "" : ` ± ${std}`) + (median == null ? "" : `, median ${median}`);

const caution = document.body.dataset.caution ?? ""; // goes with what is copied

// ---- theme -------------------------------------------------------------------------------------

function startTheme(button) {
  const modes = ["auto", "light", "dark"];
  const root = document.documentElement;
  const show = (mode) => {
    if (mode === "auto") delete root.dataset.theme;
    else root.dataset.theme = mode;
    button.textContent = `Theme: ${mode}`;
  };
  let at = 0;
  button.addEventListener("click", () => show(modes[(at = (at + 1) % modes.length)]));
  show("auto");
}

// ---- hover values ------------------------------------------------------------------------------

const tip = document.getElementById("tip");

let owner = null; // the node that the values belong to

function showTip(lines, node) {
  tip.replaceChildren(el("b", {}, lines[0]), ...lines.slice(1).map((line) => el("div", {}, line)));
  tip.hidden = false;
  owner = node;
  placeTip();
}

function placeTip() {
  const box = owner.getBoundingClientRect();
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left + box.width / 2 - width / 2), innerWidth - width - 8);
  const above = box.top - height - 10;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 56 ? above : box.bottom + 10}px`;
}

function hideTip() {
  tip.hidden = true;
}

// Shows `lines` while the focus is on a node; screen readers read the same text.
function tell(node, lines) {
  node.addEventListener("focus", () => showTip(lines, node));
  node.addEventListener("blur", hideTip);
  node.setAttribute("aria-label", lines.join(", "));
}

function hover(node, lines) {
  tell(node, lines);
  node.addEventListener("pointerenter", () => showTip(lines, node));
  node.addEventListener("pointerleave", hideTip);
}

// One stop of the Tab key for a grid of nodes (holes are null); the arrow keys move inside it.
function roving(grid) {
  const places = grid.flatMap((row, i) => row.map((node, j) => [node, i, j])).filter(([node]) => node);
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  places.forEach(([node, i, j], n) => {
    node.setAttribute("tabindex", n === 0 ? "0" : "-1");
    node.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      const [down, right] = steps[event.key];
      let [row, column] = [i + down, j + right];
      while (grid[row] && column >= 0 && column < grid[row].length && !grid[row][column]) {
        [row, column] = [row + down, column + right];
      }
      const next = grid[row] && grid[row][column];
      if (!next) return;
      node.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  });
}

addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
// a focused node is scrolled into view: its values go with it
addEventListener("scroll", () => tip.hidden || placeTip(), { passive: true, capture: true });
