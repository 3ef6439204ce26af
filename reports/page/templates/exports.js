// What can be taken from the page: copies, files, pictures.

const said = document.getElementById("said");

// A small button; `run` may fail, and says so on the button.
function action(text, about, run) {
  const button = el("button", { type: "button", class: "action", "aria-label": about }, text);
  const say = (word) => {
    button.textContent = word;
    said.textContent = word;
    setTimeout(() => (button.textContent = text), 1500);
  };
  button.addEventListener("click", () => Promise.resolve().then(run).then(() => say("Done"), () => say("Failed")));
  return button;
}

function saveFile(name, content, type) {
  const link = el("a", { download: name, href: URL.createObjectURL(new Blob([content], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // some browsers keep the clipboard from pages that are files
    const area = el("textarea", { class: "aside" });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (!copied) throw new Error("the browser does not let the page copy");
  }
}

// Text that was compressed with gzip and written in base64.
function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

// ---- numbers -----------------------------------------------------------------------------------

const results = () => unpack(document.querySelector('a[download="results.csv.gz"]').href.split(",")[1]);

// The rows of one table, which are its own file in the folder of the report.
async function tidyRows(table) {
  const lines = (await results()).match(/(?:[^"\n]|"[^"]*")*\n/g); // a quoted cell may hold line breaks
  return lines.filter((line, i) => i === 0 || line.startsWith(`${table},`)).join("");
}

const words = (node) => node.textContent.replace(/\s+/g, " ").trim();

const shownBodies = (table) => [...table.tBodies].filter((body) => !body.hidden);
const cornerOf = (table) => shownBodies(table).map((body) => body.dataset.corner).find(Boolean);

// A table as it is shown, as rows of texts; `write` says what to write of a cell.
function gridOf(table, write) {
  const owners = table.tHead ? [...table.tHead.querySelectorAll('[scope="colgroup"]')] : [];
  const spans = owners.flatMap((owner) => Array(owner.colSpan).fill(words(owner)));
  const heads = [...table.querySelectorAll(".heads th")]
    .map((head, i) => [spans[i - 1], words(head)].filter(Boolean).join(" "));
  const corner = cornerOf(table);
  const rows = shownBodies(table).flatMap((body) => [...body.rows]
    .filter((row) => !row.hidden && !row.classList.contains("section"))
    .map((row) => [...(corner ? [body.dataset.label ?? ""] : []),
      ...[...row.cells].map((cell) => (cell.tagName === "TH" ? words(cell) : write(cell)))]));
  return heads.length ? [[...(corner ? [corner] : []), ...heads], ...rows] : rows;
}

const tsv = (table) => gridOf(table, words).map((row) => row.join("\t")).join("\n") + "\n";

function markdown(table, about) {
  const escaped = (text) => text.replace(/([\\`*_|<>[\]])/g, "\\$1");
  const names = cornerOf(table) ? 2 : 1; // all further cells are written by the function below
  const [heads, ...rows] = gridOf(table, (cell) => {
    const text = escaped(words(cell));
    const gray = cell.classList.contains("future") && text !== "—" ? `*${text}*` : text;
    return cell.querySelector("strong") ? `**${gray}**` : gray;
  });
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [
    ...(about ? [escaped(about), ""] : []),
    line(heads.map(escaped)),
    `|${heads.map((_, i) => (i < names ? "---|" : "---:|")).join("")}`,
    ...rows.map((row) => line(row.map((text, i) => (i < names ? escaped(text) : text)))),
  ].join("\n") + "\n";
}

// The numbers of a table, unrounded; spreads over seeds have columns of their own.
function wideCsv(table) {
  const quoted = (text) => {
    const safe = /^[=+@\t\r-]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text; // no formula
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const spreads = table.querySelector("td[data-std]") !== null;
  const both = (cell) => (spreads ? `${cell.dataset.value}\0${cell.dataset.std}` : cell.dataset.value ?? words(cell));
  const rows = gridOf(table, both).map((row, n) => row.flatMap((text, i) =>
    (spreads && n === 0 && i > 0 ? [text, `${text} (std)`] : text.split("\0"))));
  return rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}

// ---- pictures ----------------------------------------------------------------------------------

// A picture drawn on white, two pixels a point.
async function raster(text) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const [width, height] = [2 * image.naturalWidth, 2 * image.naturalHeight];
  const canvas = el("canvas", { width, height });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#ffffff";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(image, 0, 0, width, height);
  return new Promise((done, fail) => canvas.toBlob((blob) => (blob ? done(blob) : fail()), "image/png"));
}

// Buttons for a picture; `source` returns it as the text of an SVG file.
function pictureActions(name, about, source) {
  const buttons = [
    action("SVG", `Download ${about} as SVG`, () => saveFile(`${name}.svg`, source(), "image/svg+xml")),
    action("PNG", `Download ${about} as PNG`, async () => saveFile(`${name}.png`, await raster(source()), "image/png")),
  ];
  if (window.ClipboardItem) {
    buttons.unshift(action("Copy picture", `Copy ${about}`, () =>
      navigator.clipboard.write([new ClipboardItem({ "image/png": raster(source()) })])));
  }
  return el("div", { class: "actions" }, ...buttons);
}

const LOOK = ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family", "font-style", "opacity"];

// A drawing of this page as an SVG file: what its style sheet says is written into it.
function standalone(drawing) {
  const copy = drawing.cloneNode(true);
  const nodes = [drawing, ...drawing.querySelectorAll("*")];
  const copies = [copy, ...copy.querySelectorAll("*")];
  nodes.forEach((node, i) => {
    const style = getComputedStyle(node);
    for (const name of LOOK) copies[i].setAttribute(name, style.getPropertyValue(name));
    for (const name of ["class", "tabindex", "role", "aria-label"]) copies[i].removeAttribute(name);
  });
  const { width, height } = drawing.viewBox.baseVal;
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const paper = getComputedStyle(document.querySelector(".card")).backgroundColor;
  copy.prepend(svg("rect", { width, height, fill: paper }));
  return new XMLSerializer().serializeToString(copy);
}
