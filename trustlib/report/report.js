"use strict";
// What a page does beyond being read. Without this script all of it is there but the threshold explorer.

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const SVG = ["svg", "g", "path", "line", "circle", "rect", "text", "title"];

function make(name, attributes = {}, ...children) {
  const made = SVG.includes(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const counted = (number) => number.toLocaleString("en");

// --- The section that is read, in the contents ---

function followSections() {
  const links = new Map(all("nav li a").map((link) => [decodeURIComponent(link.hash.slice(1)), link]));
  const headings = all("main h2[id]").filter((heading) => links.has(heading.id));
  let current = null;
  const mark = () => {
    const past = headings.filter((heading) => heading.getBoundingClientRect().top < innerHeight / 4);
    const link = links.get((past.at(-1) || headings[0])?.id);
    if (link === current) return;
    current?.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    current = link;
    const list = link.closest("nav"), at = link.offsetTop - list.clientHeight / 2;
    if (list.scrollHeight > list.clientHeight) list.scrollTop = at;
  };
  let waiting = false;
  addEventListener("scroll", () => {
    if (!waiting) requestAnimationFrame(() => { waiting = false; mark(); });
    waiting = true;
  }, { passive: true });
  if (headings.length) mark();
  // On a narrow page the contents close behind whoever follows a link of them.
  for (const link of links.values()) link.addEventListener("click", () => all("nav details").forEach((box) => { box.open = false; }));
}

// --- A link to what lies in something folded opens it ---

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let box = target?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  if (target?.closest("details")) target.scrollIntoView();
}

// --- Tables that are sorted by a column: up, down, and as they were ---

function valueOf(cell) {
  const text = cell ? cell.textContent.trim().replaceAll(",", "").replace("−", "-") : "";
  const number = parseFloat(text.replace(/^[<>≥≤] ?/, ""));
  return Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;
}

function sortable(table) {
  const body = table.tBodies[0], head = table.tHead?.rows[table.tHead.rows.length - 1];
  if (!head || body.rows.length < 3 || all("[colspan]", head).length) return;
  const original = [...body.rows];
  let group = "";
  for (const row of original) {
    if (row.classList.contains("group")) group = row.textContent.trim();
    else if (group) row.dataset.group = group;
  }
  const order = (column, button) => {
    const heading = button.parentElement, before = heading.getAttribute("aria-sort");
    const now = { descending: "ascending", ascending: null }[before] ?? (before ? null : "descending");
    all("[aria-sort]", head).forEach((other) => other.removeAttribute("aria-sort"));
    table.classList.toggle("sorted", now !== null);
    if (now === null) return body.append(...original);
    heading.setAttribute("aria-sort", now);
    const keyed = original.filter((row) => !row.classList.contains("group")).map((row) => [valueOf(row.cells[column]), row]);
    const [values, rest] = [keyed.filter(([key]) => key !== "" && key !== "–"), keyed.filter(([key]) => key === "" || key === "–")];
    values.sort(([a], [b]) => (now === "ascending" ? compare(a, b) : compare(b, a)));
    body.append(...[...values, ...rest].map(([, row]) => row));
  };
  [...head.cells].forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const button = make("button", { type: "button", title: "sort by this column", click: () => order(column, button) });
    button.append(...heading.childNodes);
    heading.append(button);
  });
}

// --- Claims, filtered by their verdict and by who asks ---

function filterClaims() {
  const tables = all("table.claims"), rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
  if (!rows.length) return;
  const verdictOf = (row) => row.querySelector(".verdict")?.textContent.trim();
  const askerOf = (row) => row.closest("table").dataset.askedBy || row.dataset.askedBy;
  const shown = make("output");
  const off = new Set();
  const update = () => {
    for (const row of rows) row.hidden = off.has(verdictOf(row)) || off.has(askerOf(row));
    shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} shown`;
  };
  const toggle = (value, label) => {
    const button = make("button", { type: "button", "aria-pressed": "true", click: () => {
      if (!off.delete(value)) off.add(value);
      button.setAttribute("aria-pressed", String(!off.has(value)));
      update();
    } }, label);
    return button;
  };
  const count = (of, value) => rows.filter((row) => of(row) === value).length;
  const distinct = (of) => [...new Set(rows.map(of))].filter(Boolean);
  const askers = distinct(askerOf);
  const words = { paper: "asked by the paper", study: "asked by this study" };
  const buttons = distinct(verdictOf).map((verdict) => toggle(verdict, `${verdict} (${count(verdictOf, verdict)})`));
  if (askers.length > 1) buttons.push(...askers.map((asker) => toggle(asker, `${words[asker] || asker} (${count(askerOf, asker)})`)));
  const box = make("div", { class: "controls", role: "group", "aria-label": "Show claims" }, ...buttons, shown);
  (tables[0].closest("figure") || tables[0]).before(box);
  update();
}

// --- The threshold explorer ---

const [WIDTH, HEIGHT] = innerWidth < 600 ? [390, 330] : [620, 380]; // so that its letters stay legible
const LEFT = 66, RIGHT = 22, TOP = 12, BOTTOM = 44;

// Sums of what is stored as differences, and the rates that follow from them.
function unpacked(method, pair) {
  let kept = 0, wrong = 0;
  const points = method.kept.map((more, i) => {
    kept += more;
    wrong += method.wrong[i];
    const trusted = (kept - wrong) / (pair.n - pair.errors);
    return { threshold: method.threshold[i], kept, wrong, coverage: kept / pair.n, risk: wrong / kept, tpr: trusted, tnr: 1 - wrong / pair.errors };
  });
  return { ...method, points };
}

function nearest(points, coverage) {
  let best = 0;
  points.forEach((point, i) => { if (Math.abs(point.coverage - coverage) < Math.abs(points[best].coverage - coverage)) best = i; });
  return best;
}

function explore(figure) {
  const pairs = JSON.parse(figure.querySelector("script").textContent);
  for (const pair of pairs) pair.methods = pair.methods.map((method) => unpacked(method, pair));
  if (!pairs.length) return;
  const baseline = () => pair.methods[0];
  let pair = pairs[0], method = pair.methods.find((one) => one.start) || baseline(), at = 0, hovered = null;
  const off = new Set(pairs.flatMap((one) => one.methods).filter((one) => !one.shown).map((one) => one.label));

  const x = (coverage) => LEFT + coverage * (WIDTH - LEFT - RIGHT);
  const most = () => 1.6 * (pair.errors / pair.n);
  const y = (risk) => HEIGHT - BOTTOM - Math.min(risk / most(), 1.05) * (HEIGHT - TOP - BOTTOM);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "Risk against coverage, one curve per method; a dot at the chosen threshold" });
  const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "threshold", input: () => { at = +slider.value; draw(); } });
  const pick = make("select", { change: () => choose(pair.methods.find((one) => one.label === pick.value)) });
  const which = make("select", { change: () => turnTo(pairs[which.selectedIndex]) }, ...pairs.map((one) => make("option", {}, one.label)));
  const own = make("button", { type: "button", click: () => { at = method.own; draw(); } }, pair.own || "its own threshold");
  // An acceptable risk leads to the largest coverage that keeps to it, or to the point of least risk; finer where it is low.
  const limit = make("span"), allowed = make("input", { type: "range", min: 0, max: 100, step: 1, "aria-label": "acceptable risk", input: allow });
  function allow() {
    const risks = method.points.map((point) => point.risk), most = (pair.errors / pair.n) * (allowed.value / 100) ** 2, fits = risks.findLastIndex((risk) => risk <= most);
    at = fits < 0 ? risks.indexOf(Math.min(...risks)) : fits;
    tell(most);
    draw();
  }
  const tell = (risk) => { limit.textContent = percent(risk); allowed.setAttribute("aria-valuetext", percent(risk)); };
  const legend = make("div", { class: "controls", role: "group", "aria-label": "Curves" });
  const table = make("table", { class: "data" });
  const said = make("output", { "aria-live": "polite" });

  function line(one, attributes = {}) {
    const path = one.points.map((point, i) => `${i ? "L" : "M"}${x(point.coverage).toFixed(1)} ${y(point.risk).toFixed(1)}`).join("");
    return make("path", { d: path, fill: "none", stroke: one.colour, "stroke-dasharray": one.dashes || null, "stroke-width": 1.5, ...attributes });
  }

  function label(text, attributes) {
    return make("text", { "font-size": 13, fill: "#444", ...attributes }, text);
  }

  function axes() {
    const ticks = [];
    for (let share = 0; share <= 1; share += 0.2) {
      ticks.push(label(`${Math.round(100 * share)} %`, { x: x(share), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }));
    }
    const step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].find((size) => most() / size < 7) || 0.5;
    for (let i = 0; i * step <= most(); i += 1) {
      ticks.push(make("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(i * step), y2: y(i * step), stroke: i ? "#e6e6e6" : "#777" }));
      ticks.push(label(`${+(100 * i * step).toFixed(1)} %`, { x: LEFT - 6, y: y(i * step) + 4, "text-anchor": "end" }));
    }
    ticks.push(label("coverage: share of the predictions trusted", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 6, "text-anchor": "middle" }));
    ticks.push(label("risk: errors among them", { x: -(HEIGHT - BOTTOM + TOP) / 2, y: 12, transform: "rotate(-90)", "text-anchor": "middle" }));
    return ticks;
  }

  function draw() {
    slider.max = method.points.length - 1;
    slider.value = at;
    const here = method.points[at], mcp = baseline().points[nearest(baseline().points, here.coverage)];
    slider.setAttribute("aria-valuetext", `coverage ${percent(here.coverage)}, threshold ${here.threshold}`);
    own.disabled = method.own === null;
    if (document.activeElement !== allowed) { allowed.value = 100 * Math.sqrt((here.risk * pair.n) / pair.errors); tell(here.risk); } // it follows the threshold
    const visible = pair.methods.filter((one) => !off.has(one.label) && one !== method && one !== baseline());
    svg.replaceChildren(
      ...axes(),
      ...visible.map((one) => line(one, { opacity: 0.45 })),
      line(baseline(), { "stroke-width": 2 }),
      line(method, { "stroke-width": 3 }),
      ...(hovered ? [line(hovered.method, { "stroke-width": 3 }), ...note()] : []),
      make("line", { x1: x(here.coverage), x2: x(here.coverage), y1: TOP, y2: HEIGHT - BOTTOM, stroke: "#777", "stroke-dasharray": "3 3" }),
      make("circle", { cx: x(mcp.coverage), cy: y(mcp.risk), r: 5, fill: "#fff", stroke: baseline().colour, "stroke-width": 2 }),
      make("circle", { cx: x(here.coverage), cy: y(here.risk), r: 6, fill: method.colour, stroke: "#fff", class: "here" }),
    );
    const rows = [["trusted from a threshold of", (p) => p.threshold], ["coverage", (p) => percent(p.coverage)], ["risk", (p) => percent(p.risk)],
      ["TPR", (p) => percent(p.tpr)], ["TNR", (p) => percent(p.tnr)], ["trusted", (p) => counted(p.kept)], ["errors among them", (p) => counted(p.wrong)]];
    const other = method !== baseline(), both = (first, second) => [first, ...(other ? [second()] : [])];
    table.replaceChildren(
      make("thead", {}, make("tr", {}, make("td"), ...both(make("th", { scope: "col" }, method.label), () => make("th", { scope: "col" }, `${baseline().label}, same coverage`)))),
      make("tbody", {}, ...rows.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), ...both(make("td", {}, value(here)), () => make("td", {}, value(mcp)))))),
    );
    said.textContent = `At a coverage of ${percent(here.coverage)} ${method.label} leaves ${counted(here.wrong)} of ${counted(pair.errors)} errors among the trusted predictions${other ? `, ${baseline().label} ${counted(mcp.wrong)}` : ""}.`;
  }

  function note() {
    const point = hovered.method.points[hovered.at], right = point.coverage > 0.6;
    const attributes = { x: x(point.coverage) + (right ? -8 : 8), y: Math.max(y(point.risk) - 10, TOP + 12), "text-anchor": right ? "end" : "start" };
    return [label(`${hovered.method.label}: risk ${percent(point.risk)} at ${percent(point.coverage)}`, { ...attributes, fill: "#000", stroke: "#fff", "stroke-width": 4, "paint-order": "stroke" })];
  }

  function choose(one) {
    const coverage = method.points[at]?.coverage ?? 1;
    method = one;
    off.delete(one.label);
    at = nearest(one.points, coverage);
    pick.value = one.label;
    draw();
    list();
  }

  function list() {
    legend.replaceChildren(...pair.methods.slice(1).map((one) => make("button", {
      type: "button", "aria-pressed": String(!off.has(one.label)), disabled: one === method,
      click: () => { if (!off.delete(one.label)) off.add(one.label); draw(); list(); },
    }, make("i", { style: `border-color: ${one.colour}; border-top-style: ${one.dashes ? "dashed" : "solid"}` }), one.label)));
  }

  function turnTo(other) {
    pair = other;
    const groups = [...new Set(pair.methods.map((one) => one.group))];
    pick.replaceChildren(...groups.map((group) => make("optgroup", { label: group }, ...pair.methods.filter((one) => one.group === group).map((one) => make("option", {}, one.label)))));
    choose(pair.methods.find((one) => one.label === method.label) || baseline());
  }

  // Where the pointer is: the coverage below it, and the curve that passes it nearest, within some 14 pixels.
  function under(event) {
    const box = svg.getBoundingClientRect(), scale = WIDTH / box.width;
    const coverage = ((event.clientX - box.left) * scale - LEFT) / (WIDTH - LEFT - RIGHT), height = (event.clientY - box.top) * scale;
    const near = pair.methods.filter((one) => !off.has(one.label)).map((one) => ({ method: one, at: nearest(one.points, coverage) }));
    near.forEach((one) => { one.distance = Math.abs(y(one.method.points[one.at].risk) - height); });
    near.sort((a, b) => a.distance - b.distance);
    return { coverage, nearest: near[0]?.distance < 14 ? near[0] : null };
  }

  svg.addEventListener("pointermove", (event) => {
    const { coverage, nearest: curve } = under(event);
    hovered = curve;
    if (event.buttons) at = nearest(method.points, coverage);
    draw();
  });
  svg.addEventListener("pointerdown", (event) => {
    const { coverage, nearest: curve } = under(event);
    if (curve && curve.method !== baseline()) choose(curve.method);
    at = nearest(method.points, coverage);
    draw();
  });
  svg.addEventListener("pointerleave", () => { hovered = null; draw(); });

  const parts = [make("label", {}, "method", pick), make("label", { class: "drag" }, "threshold", slider), make("label", { class: "drag" }, "acceptable risk", allowed, limit), own];
  if (pairs.length > 1) parts.unshift(make("label", {}, "pair ⟨oracle, classifier⟩", which));
  figure.append(make("div", { class: "controls" }, ...parts), make("div", { class: "both" }, svg, make("div", {}, table, said)), legend);
  figure.hidden = false;
  at = method.own ?? nearest(method.points, 0.8);
  turnTo(pair);
}

followSections();
all("table.data:not(.claims, .unsorted)").forEach(sortable);
filterClaims();
all(".explorer").forEach(explore);
addEventListener("hashchange", openTarget);
openTarget();
