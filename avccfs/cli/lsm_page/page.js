"use strict";
// Everything that comes from the database goes into the page as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);

const SVG = "http://www.w3.org/2000/svg";
const GUTTER = 156, MARGIN = 18, ROW_GAP = 14, AXIS = 34;
const NARROW = 5;      // Boxes narrower than this, in pixels, are drawn together.
const LISTED = 60;     // Tables that are listed of one record.
const PACE = 700;      // Milliseconds for each record while playing.

const boxes = data.boxes.map(([row, lane, number, size, low, high, ends, since, until, fate, name, note]) =>
  ({ row, lane, number, size, low, high, ends, since, until, fate: data.fates[fate], name, note }));
const places = Math.max(1, data.keys.length);
const last = data.steps.length;

const $ = (id) => document.getElementById(id);
const state = { step: data.at, from: 0, to: places, chosen: null, timer: null };

// ---- words --------------------------------------------------------------------------------------

const pad = (number) => String(number).padStart(6, "0");
const count = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

function bytes(size) {
  let value = Number(size), unit = 0;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit++; }
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

// A key is its hexadecimal digits, or these and its length where only its beginning is here.
const hexOf = (key) => (typeof key === "string" ? key : key[0]);
const cutOf = (key) => (typeof key === "string" ? "" : ` \u2026 (${key[1].toLocaleString("en")} bytes)`);

function escaped(hex, limit = Infinity) {
  let text = "";
  for (let i = 0; i < hex.length; i += 2) {
    if (text.length >= limit) return text + "\u2026";
    const code = parseInt(hex.slice(i, i + 2), 16);
    const special = { 10: "\\n", 13: "\\r", 9: "\\t", 39: "\\'", 92: "\\\\" }[code];
    text += special ?? (code >= 32 && code < 127 ? String.fromCharCode(code) : "\\x" + hex.slice(i, i + 2));
  }
  return text;
}

const WORDS = {
  live: "in the levels now", past: "dropped by a later record, file gone",
  obsolete: "dropped, file still there", orphan: "never in this manifest",
  missing: "file missing", damaged: "file damaged", journal: "journal",
};

const titleOf = (box) => box.name ?? `${pad(box.number)}.ldb`;

function journalIsDone(box) {
  const step = data.steps[state.step - 1];
  if (data.rows[box.row].kind !== "journals" || !step) return false;
  const first = step.journal, previous = step.previous;
  return first !== null && BigInt(box.number) < BigInt(first) && String(previous) !== String(box.number);
}

function describe(box) {
  const words = [titleOf(box), placeOf(box), bytes(box.size), WORDS[box.fate]];
  if (box.since === state.step && state.step) words.push("added by this record");
  return words.join(", ");
}

const placeOf = (box) => data.rows[box.row].title;

// ---- elements -----------------------------------------------------------------------------------

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes = {}, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- the picture --------------------------------------------------------------------------------

function layout() {
  let y = 0;
  return data.rows.map((row) => {
    const each = row.lanes === 1 ? 30 : Math.max(7, Math.min(24, Math.floor(190 / row.lanes)));
    const top = y, height = Math.max(30, each * row.lanes);
    y += height + ROW_GAP;
    return { top, each, height };
  });
}

const rows = layout();
const rowsEnd = rows.length ? rows[rows.length - 1].top + rows[rows.length - 1].height : 0;
const isThere = (box) => box.since <= state.step && (box.until === null || state.step < box.until);
let shown = [];  // What is drawn, in order: { box or boxes, x, width, element }

function draw() {
  const svg = $("levels");
  const focused = svg.contains(document.activeElement) ? state.chosen : null;
  const width = Math.max(360, svg.clientWidth || 900);
  const height = rowsEnd + ROW_GAP + AXIS;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.classList.toggle("zoomed", state.to - state.from < places);
  const scale = (width - GUTTER - MARGIN) / (state.to - state.from);
  const x = (place) => GUTTER + (place - state.from) * scale;
  const parts = document.createDocumentFragment();
  const totals = data.rows.map(() => ({ tables: 0, size: 0 }));

  const clip = drawn("clipPath", { id: "plot" });
  clip.append(drawn("rect", { x: GUTTER - 2, y: -4, width: width - GUTTER - MARGIN + 4, height: height + 4 }));
  const defs = drawn("defs");
  defs.append(clip);
  parts.append(defs);
  rows.forEach((row) => parts.append(drawn("rect", {
    class: "band", x: GUTTER, y: row.top, width: width - GUTTER - MARGIN, height: row.height, rx: 3 })));
  parts.append(axis(width, x));

  shown = [];
  const plot = drawn("g", { "clip-path": "url(#plot)" });
  let group = null, bar = null;
  const finish = () => { if (group) shown.push(group); group = null; };
  for (const box of boxes) {
    const dropped = box.until === state.step && state.step > 0;
    const there = isThere(box);
    if (there) { totals[box.row].tables++; totals[box.row].size += Number(box.size); }
    if (!there && !dropped || box.high + 1 <= state.from || box.low >= state.to) continue;
    const left = x(box.low), right = x(box.high + 1), row = rows[box.row];
    const top = row.top + row.each * box.lane;
    if (dropped && !(bar && bar.row === box.row && right < bar.right + 1)) {
      bar = { row: box.row, right };
      plot.append(drawn("rect", { class: "dropped", x: left + 1, y: row.top + row.height + 3,
        width: Math.max(1.5, right - left - 2), height: 3.5, rx: 1.5 }));
    }
    if (!there) continue;
    const kind = classOf(box);
    if (group && (right - left >= NARROW || group.kind !== kind || group.top !== top
                  || left - group.x > 2 * NARROW)) finish();
    if (group) {
      group.many.push(box);
      group.right = Math.max(group.right, right);
      if (box === state.chosen) group.box = box;
      continue;
    }
    const made = { box, many: [box], kind, x: left, right, top, height: row.each - 2 };
    if (right - left < NARROW) group = made;
    else { finish(); shown.push(made); }
  }
  finish();
  for (const each of shown) plot.append(shape(each, width));
  parts.append(plot);
  data.rows.forEach((row, i) => {
    const y = rows[i].top + 13;
    parts.append(drawn("text", { class: "name", x: 16, y }, row.title));
    const each = row.kind === "journals" ? "journal" : "table";
    const told = totals[i].tables ? `${count(totals[i].tables, each)} \u00b7 ${bytes(totals[i].size)}` : "\u2013";
    parts.append(drawn("text", { class: "quiet total", x: 16, y: y + 14 }, told));
  });
  svg.replaceChildren(parts);
  sayTotal(totals);
  const tab = shown.find((each) => each.box === state.chosen) ?? shown[0];
  if (tab) tab.element.setAttribute("tabindex", "0");
  if (focused && tab) tab.element.focus({ preventScroll: true });
}

function classOf(box) {
  if (box.fate === "missing" || box.fate === "damaged") return box.fate + (box.ends ? "" : " unknown");
  const words = [box.fate];
  if (box.since === state.step && state.step > 0 && data.rows[box.row].kind === "level") words[0] = "added";
  if (journalIsDone(box)) words.push("done");
  if (!box.ends) words.push("unknown");
  return words.join(" ");
}

function shape(each, width) {
  const { box, many } = each;
  const left = Math.max(each.x, GUTTER - 20), right = Math.min(each.right, width);
  const wide = Math.max(2, right - left - 2);
  const g = drawn("g", { class: `box ${each.kind}${many.length > 1 ? " many" : ""}`, tabindex: "-1", role: "button" });
  if (box === state.chosen) g.classList.add("chosen");
  g.setAttribute("aria-label", many.length > 1
    ? `${count(many.length, "table")} together, ${placeOf(box)}; Enter zooms in` : describe(box));
  g.append(drawn("rect", { x: left + 1, y: each.top + 1, width: wide, height: Math.max(2, each.height), rx: Math.min(3, wide / 3) }));
  if (each.height >= 13) {
    const number = pad(box.number), both = `${number} \u00b7 ${bytes(box.size)}`;
    const text = many.length > 1 ? "" : [both, number].find((words) => words.length * 6.3 + 10 < wide);
    if (text) g.append(drawn("text", { x: left + 7, y: each.top + each.height / 2 + 5 }, text));
  }
  g.addEventListener("pointerenter", () => showTable(each));
  g.addEventListener("pointerleave", () => showTable(null));
  g.addEventListener("focus", () => choose(each));
  g.addEventListener("dblclick", () => zoomTo(each));
  each.element = g;
  return g;
}

function axis(width, x) {
  const g = drawn("g");
  if (!data.keys.length) return g;
  const span = state.to - state.from;
  const ticks = Math.max(1, Math.min(Math.floor((width - GUTTER) / 130), Math.ceil(span)));
  let before = -1;
  for (let i = 0; i < ticks; i++) {
    const place = Math.min(places - 1, Math.ceil(state.from + (i * span) / ticks));
    if (place <= before || place >= state.to) continue;
    before = place;
    const at = x(place);
    g.append(drawn("line", { class: "tick", x1: at, x2: at, y1: 0, y2: rowsEnd + 8 }));
    const label = drawn("text", { class: "quiet", x: at, y: rowsEnd + 24 }, escaped(hexOf(data.keys[place]), 16));
    label.append(drawn("title", {}, escaped(hexOf(data.keys[place])) + cutOf(data.keys[place])));
    g.append(label);
  }
  g.append(drawn("text", { class: "quiet", x: 16, y: rowsEnd + 24 }, "keys"));
  return g;
}

function sayTotal(totals) {
  let tables = 0, size = 0;
  data.rows.forEach((row, i) => { if (row.kind === "level") { tables += totals[i].tables; size += totals[i].size; } });
  $("total").textContent = `${count(tables, "table")} in the levels \u00b7 ${bytes(size)}`;
}

// ---- what is said beside it ---------------------------------------------------------------------

function showChange() {
  const place = $("change");
  const step = data.steps[state.step - 1];
  $("where").textContent = step ? `record ${state.step} of ${last}` : last ? "before the first record" : "no records";
  if (!step) {
    place.replaceChildren(element("p", { class: "hint" },
      last ? "Nothing has been written down yet." : "There is no record to show."));
    return;
  }
  const list = element("ul");
  const facts = element("p", {}, step.edit === null ? "Damage" : `Edit ${step.edit}`,
    ` at offset ${step.offset}, ${count(step.length, "byte")}`);
  if (step.fault) {
    list.append(item("!", "wrong", step.fault));
  }
  for (const line of step.lines) list.append(item("", "", line));
  for (const line of step.unmatched) list.append(item("!", "wrong", line));
  const added = boxes.filter((box) => box.since === state.step && data.rows[box.row].kind === "level");
  const dropped = boxes.filter((box) => box.until === state.step && data.rows[box.row].kind === "level");
  for (const box of dropped.slice(0, LISTED)) list.append(item("\u2212", "minus", `${pad(box.number)} from ${placeOf(box)}`));
  more(list, dropped.length);
  for (const box of added.slice(0, LISTED)) list.append(item("+", "plus", `${pad(box.number)} to ${placeOf(box)}, ${bytes(box.size)}`));
  more(list, added.length);
  place.replaceChildren(facts, list);
  if (state.timer === null) {
    $("said").textContent = `${facts.textContent}. ${step.fault ? "Damaged. " : ""}`
      + `${added.length} tables added, ${dropped.length} dropped. ${$("total").textContent}`;
  }
}

function more(list, all) {
  if (all > LISTED) list.append(item("", "", `and ${(all - LISTED).toLocaleString("en")} more`));
}

function item(mark, kind, text) {
  const made = element("li", kind ? { class: kind } : {});
  if (mark) made.append(element("span", { class: "mark" }, mark));
  made.append(text);
  return made;
}

function showTable(hovered) {
  const place = $("table");
  if (hovered && hovered.many.length > 1) {
    const size = hovered.many.reduce((sum, box) => sum + Number(box.size), 0);
    place.replaceChildren(
      element("p", {}, `${count(hovered.many.length, "table")} in ${placeOf(hovered.box)}, ${bytes(size)}`),
      element("p", { class: "hint" }, "Too narrow to tell apart. Double-click or press Enter to zoom in."));
    return;
  }
  const box = hovered ? hovered.box : state.chosen;
  if (!box) {
    place.replaceChildren(element("p", { class: "hint" }, "Point at a table, or move to it with Tab and the arrows."));
    return;
  }
  const list = element("dl");
  const add = (name, ...values) => list.append(element("dt", {}, name), element("dd", {}, ...values));
  add("File", titleOf(box));
  add("Place", placeOf(box));
  add("Size", bytes(box.size), Number(box.size) >= 1024 ? ` (${BigInt(box.size).toLocaleString("en")} bytes)` : "");
  if (data.rows[box.row].kind === "journals") add("State", journalIsDone(box) ? "no longer needed" : "to be replayed");
  else add("State", WORDS[box.fate]);
  if (box.note) list.lastChild.append(element("div", { class: box.fate === "journal" ? "hint" : "wrong" }, box.note));
  if (box.ends) { add("From", ...keyOf(box.ends[0])); add("To", ...keyOf(box.ends[1])); }
  else add("Keys", "unknown");
  const loose = data.rows[box.row].kind === "loose";
  if (box.since > 0) add(loose ? "Dropped" : "Added", stepOf(box.since));
  if (box.until !== null) add(loose ? "Added again" : "Dropped", stepOf(box.until));
  place.replaceChildren(list);
}

const stepOf = (number) => `by record ${number}, offset ${data.steps[number - 1].offset}`;

function keyOf([place, sequence]) {
  const key = data.keys[place];
  const parts = [element("code", {}, escaped(hexOf(key)) + cutOf(key)),
                 element("code", { class: "hex" }, "hex " + hexOf(key) + cutOf(key))];
  if (sequence !== null) parts.push(element("div", { class: "hint" }, `sequence ${sequence}`));
  return parts;
}

// ---- moving -------------------------------------------------------------------------------------

function go(step) {
  state.step = Math.max(0, Math.min(last, step));
  $("slider").value = state.step;
  $("slider").setAttribute("aria-valuetext", state.step ? `record ${state.step} of ${last}` : "before the first record");
  $("back").disabled = state.step === 0;
  $("forth").disabled = state.step === last;
  if (state.chosen && !isThere(state.chosen)) state.chosen = null;
  draw();
  showChange();
  showTable(null);
}

function play(on) {
  clearInterval(state.timer);
  state.timer = null;
  if (on) {
    if (state.step === last) go(0);
    state.timer = setInterval(() => {
      if (state.step < last) go(state.step + 1);
      if (state.step === last) play(false);
    }, PACE);
  }
  $("play").textContent = on ? "Pause" : "Play";
  $("play").setAttribute("aria-pressed", String(on));
}

function choose(each) {
  if (state.chosen === each.box) { showTable(each); return; }
  state.chosen = each.box;
  for (const other of shown) {
    other.element.classList.toggle("chosen", other === each);
    other.element.setAttribute("tabindex", other === each ? "0" : "-1");
  }
  showTable(each);
}

function zoom(factor, middle = (state.from + state.to) / 2) {
  const span = Math.max(Math.min(2, places), Math.min(places, (state.to - state.from) * factor));
  const share = (middle - state.from) / (state.to - state.from);
  look(middle - share * span, span);
}

function look(from, span) {
  state.from = Math.max(0, Math.min(places - span, from));
  state.to = state.from + span;
  draw();
}

function zoomTo(each) {
  const low = Math.min(...each.many.map((box) => box.low)), high = Math.max(...each.many.map((box) => box.high)) + 1;
  const span = Math.min(places, Math.max(2, (high - low) * 1.3));
  state.chosen = each.box;
  look((low + high - span) / 2, span);
  showTable(null);
}

// The nearest box in a direction: along its lane, or in the lanes above or below.
function neighbour(each, key) {
  const middle = (one) => (one.x + one.right) / 2;
  const sideways = key === "ArrowLeft" || key === "ArrowRight";
  const sign = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
  const candidates = shown.filter((other) => (sideways
    ? other.top === each.top && sign * (middle(other) - middle(each)) > 0 : sign * (other.top - each.top) > 0));
  const distance = (other) => (sideways ? Math.abs(middle(other) - middle(each))
    : Math.abs(other.top - each.top) * 1e6 + Math.abs(middle(other) - middle(each)));
  return candidates.reduce((best, other) => (!best || distance(other) < distance(best) ? other : best), null);
}

// ---- the history under the slider -----------------------------------------------------------------

function drawSizes() {
  const svg = $("sizes");
  if (!last) return;
  const change = new Float64Array(last + 2);
  for (const box of boxes) {
    if (data.rows[box.row].kind !== "level") continue;
    change[box.since] += Number(box.size);
    if (box.until !== null) change[box.until] -= Number(box.size);
  }
  const sizes = [];
  let sum = 0;
  for (let step = 0; step <= last; step++) sizes.push(sum += change[step]);
  const highest = sizes.reduce((one, other) => Math.max(one, other), 1);
  const points = Math.min(last, 1200), path = [];
  let before = null;
  for (let i = 0; i <= points; i++) {
    const x = ((i / points) * 1000).toFixed(2);
    const y = (32 - (sizes[Math.round((i * last) / points)] / highest) * 28).toFixed(2);
    path.push(`${x},${before ?? y}`, `${x},${y}`);
    before = y;
  }
  svg.setAttribute("viewBox", "0 0 1000 34");
  svg.append(drawn("path", { class: "area", d: `M0,34 L${path.join(" L")} L1000,34 Z` }));
  svg.append(drawn("path", { class: "edge", d: `M${path.join(" L")}` }));
  data.steps.forEach((step, i) => {
    if (!step.fault) return;
    const at = ((i + 1) / last) * 1000;
    svg.append(drawn("line", { class: "fault", x1: at, x2: at, y1: 0, y2: 34 }));
  });
}

function legend() {
  const used = new Set(boxes.map((box) => box.fate));
  const entries = [["live", WORDS.live], ["added", "added by this record"], ["past", WORDS.past],
    ["obsolete", WORDS.obsolete], ["orphan", WORDS.orphan], ["missing", WORDS.missing],
    ["damaged", WORDS.damaged], ["journal", "journal (pale: no longer needed)"]];
  for (const [kind, words] of entries) {
    if (kind !== "added" && !used.has(kind)) continue;
    const sample = drawn("svg", { class: "levels", "aria-hidden": "true" });
    const g = drawn("g", { class: `box ${kind}` });
    g.append(drawn("rect", { x: 1, y: 1, width: 20, height: 11, rx: 2 }));
    sample.append(g);
    $("legend").append(element("li", {}, sample, words));
  }
  const sample = drawn("svg", { class: "levels", "aria-hidden": "true" });
  sample.append(drawn("rect", { class: "dropped", x: 1, y: 5, width: 20, height: 3.5, rx: 1.5 }));
  $("legend").append(element("li", {}, sample, "dropped by this record"));
}

// ---- hands --------------------------------------------------------------------------------------

function listen() {
  const svg = $("levels");
  $("slider").addEventListener("input", () => { play(false); go(Number($("slider").value)); });
  $("back").addEventListener("click", () => { play(false); go(state.step - 1); });
  $("forth").addEventListener("click", () => { play(false); go(state.step + 1); });
  $("play").addEventListener("click", () => play(state.timer === null));
  $("in").addEventListener("click", () => zoom(0.5));
  $("out").addEventListener("click", () => zoom(2));
  $("fit").addEventListener("click", () => look(0, places));

  svg.addEventListener("keydown", (event) => {
    const each = shown.find((one) => one.element === event.target);
    if (!each || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter") zoomTo(each);
    else if (event.key.startsWith("Arrow")) neighbour(each, event.key)?.element.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const actions = {
      ArrowLeft: () => go(state.step - 1), ArrowRight: () => go(state.step + 1),
      Home: () => go(0), End: () => go(last),
      "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => look(0, places),
    };
    if (event.key === " " && target.tagName !== "BUTTON") { play(state.timer === null); event.preventDefault(); return; }
    // The slider moves by itself.
    if (target === $("slider") && !"+=-0".includes(event.key)) return;
    const action = actions[event.key];
    if (!action) return;
    if (event.key.length > 1) play(false);
    action();
    event.preventDefault();
  });

  svg.addEventListener("wheel", (event) => {
    const scale = (state.to - state.from) / (svg.clientWidth - GUTTER - MARGIN);
    if (event.ctrlKey || event.shiftKey && !event.deltaX) {
      const at = event.clientX - svg.getBoundingClientRect().left - GUTTER;
      zoom(event.deltaY > 0 ? 1.25 : 0.8, state.from + at * scale);
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      look(state.from + event.deltaX * scale, state.to - state.from);
    } else return;
    event.preventDefault();
  }, { passive: false });

  let drag = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && state.to - state.from < places) drag = { x: event.clientX, from: state.from };
  });
  window.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const scale = (state.to - state.from) / (svg.clientWidth - GUTTER - MARGIN);
    look(drag.from - (event.clientX - drag.x) * scale, state.to - state.from);
  });
  window.addEventListener("pointerup", () => { drag = null; });
  let wide = svg.clientWidth;
  new ResizeObserver(() => {
    if (svg.clientWidth !== wide) { wide = svg.clientWidth; draw(); }
  }).observe(svg.parentElement);
}

$("about").textContent = data.about;
$("notes").append(...data.notes.map((note) => element("li", {}, note)));
if (!data.notes.length) $("notes").remove();
$("slider").max = last;
legend();
listen();
drawSizes();
go(data.at);
