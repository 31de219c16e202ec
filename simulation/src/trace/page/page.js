"use strict";
// Draws the run in #run. Times are milliseconds since the simulation began. Texts are set as text, never as markup.

const run = JSON.parse(document.getElementById("run").textContent);
const by = (id) => document.getElementById(id);
const NS = "http://www.w3.org/2000/svg";
const GUTTER = 132, AXIS = 26, LETTER = 7, ROWS_MAX = 1500;
const end = Math.max(run.end, 1);
let view = [0, end];
let pin = run.violation ? run.violation.at : null;
let pointer = null;

const QUIET_KINDS = new Set(["frame", "state", "applied", "ack", "level", "library"]);
const shownKinds = new Set(run.events.map((e) => e[1]).filter((kind) => !QUIET_KINDS.has(kind)));

const FAULT_COLOURS = [
  [/power|loss/, "--bad"], [/kill|exit|pause|stall/, "--n2"], [/isolat|split|one-way|ring|bridge|partition/, "--n4"],
  [/slow|delay|late/, "--n6"], [/clock/, "--n3"], [/disk|sync/, "--n5"],
];
const colourOfFault = (name) => `var(${(FAULT_COLOURS.find(([pattern]) => pattern.test(name)) || [0, "--edge"])[1]})`;
const colourOfNode = (number) => `var(--n${((number - 1) % 6) + 1})`;
const colourOfMachine = (name) => (/^n\d+$/.test(name) ? colourOfNode(Number(name.slice(1))) : "var(--edge)");

const span = (ms) => (ms >= 10000 ? `${(ms / 1000).toFixed(1)} s` : ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${+ms.toFixed(ms < 10 ? 2 : 0)} ms`);
const counted = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
const time = (ms) => `${(ms / 1000).toFixed(3)} s`;
const naturally = (a, b) => a.name.localeCompare(b.name, "en", { numeric: true });

function element(name, attributes, text) {
  const made = document.createElementNS(NS, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return made;
}

function html(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  return made;
}

// ---- what stands above the chart ---------------------------------------------------------------------------------------

function head() {
  const broken = run.violation;
  by("verdict").textContent = broken ? `violated: ${broken.invariant}` : "every invariant held";
  by("verdict").classList.toggle("bad", !!broken);
  by("purpose").textContent = run.purpose;
  if (broken) {
    const box = by("violation");
    box.hidden = false;
    box.append(html("b", broken.invariant), ` at ${time(broken.at)}: ${broken.what}`);
    box.title = "show the moment";
    box.onclick = by("to-violation").onclick = () => goTo(broken.at, 1500);
    by("to-violation").hidden = false;
  }
  const about = by("about");
  const put = (name, ...what) => {
    const value = document.createElement("dd");
    value.append(...what);
    about.append(html("dt", name), value);
  };
  const copy = html("button", "copy");
  copy.onclick = () => navigator.clipboard.writeText(run.command).then(() => (copy.textContent = "copied"), () => (copy.textContent = "no access"));
  put("seed", html("code", run.seed));
  put("repeat with", html("code", run.command), " ", copy);
  put("run", `${span(end)} simulated, ${counted(run.faults.length, "fault")} took effect, ${counted(run.events.length, "event")}, trace `, html("code", run.hash));
  const gaps = run.clients.flatMap((client) => client.blackouts.map((gap) => [gap.to - gap.from, client.name]));
  if (run.clients.length > 0) {
    const worst = gaps.reduce((a, b) => (b[0] > a[0] ? b : a), [0, ""]);
    put("blackouts", gaps.length === 0 ? "none over 200 ms" : `${gaps.length} over 200 ms, the longest ${span(worst[0])} (${worst[1]})`);
  }
  if (run.world.length > 0) {
    by("world").hidden = false;
    const list = by("world").querySelector("dl");
    for (const [name, value] of run.world) list.append(html("dt", name), html("dd", value));
  }
  if (run.plan.length > 0) {
    by("plan").hidden = false;
    by("plan").querySelector("summary").textContent = `The plan: ${counted(run.plan.length, "fault")}`;
    by("plan").open = run.plan.length <= 12;
    const list = by("plan").querySelector("ol");
    for (const text of run.plan) list.append(html("li", text.replace(/^PLAN /, "")));
  }
  const legend = [["frames", "var(--muted)"], ["commands applied", "var(--good)"], ["blackout over 200 ms", "var(--dark)"], ["down", "var(--line)"]];
  for (const [name, colour] of legend) {
    const entry = html("span", name);
    const box = document.createElement("i");
    box.style.background = colour;
    entry.prepend(box);
    by("legend").append(entry);
  }
  by("legend").append(html("span", "▶ signed in"), html("span", "↻ resumed"), html("span", "✕ connection lost"), html("span", "ϟ crash point"));
}

// ---- lanes -------------------------------------------------------------------------------------------------------------

const lanes = [];
let height = AXIS;

function lane(label, laneHeight, draw, describe) {
  lanes.push({ label, y: height, h: laneHeight, draw, describe });
  height += laneHeight;
}

function section(title) {
  lanes.push({ section: title, y: height, h: 22, draw() {}, describe: () => [] });
  height += 22;
}

const x = (t) => GUTTER + ((t - view[0]) / (view[1] - view[0])) * (width() - GUTTER);
const t = (px) => view[0] + ((px - GUTTER) / (width() - GUTTER)) * (view[1] - view[0]);
const width = () => by("chart").clientWidth || 1000;
const inView = (from, to) => to >= view[0] && from <= view[1];
const at = (spans, moment) => spans.filter((s) => s.from <= moment && moment <= s.to);
const near = (points, moment, reach) => points.filter((p) => Math.abs(p.at - moment) <= reach);

function box(g, from, to, y, h, attributes, label, labelClass, place) {
  const left = Math.max(x(from), GUTTER - 2), right = Math.min(x(to), width() + 2);
  const w = Math.max(right - left, 1.5);
  g.append(element("rect", { x: left, y, width: w, height: h, rx: 2, ...attributes }));
  if (!label) return;
  const room = Math.floor((w - 8) / LETTER);
  const text = label.length > room ? `${label.slice(0, Math.max(room - 1, 0))}…` : label;
  const middle = { y: y + h / 2 + 4, class: labelClass || "" };
  if (place === "beside" && label.length > room) g.append(element("text", { x: right + 4, ...middle }, label));
  else if (place === "centred") {
    if (label.length <= room) g.append(element("text", { x: left + (w - label.length * LETTER) / 2, ...middle }, label));
  }
  else if (room >= 2) g.append(element("text", { x: left + 4, ...middle }, text));
}

function strokes(times, y, h) {
  let path = "", last = -10;
  for (let i = firstFrom(times, view[0]); i < times.length && times[i] <= view[1]; i += 1) {
    const px = x(times[i]);
    if (px - last < 1.2) continue;
    last = px;
    path += `M${px.toFixed(1)} ${y}v${h}`;
  }
  return path;
}

function firstFrom(times, moment) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < moment) low = middle + 1; else high = middle;
  }
  return low;
}

function marker(g, px, y, glyph, colour) {
  if (px < GUTTER || px > width()) return;
  g.append(element("text", { x: px - 4.5, y, style: `fill:${colour};font-size:14px;font-weight:700` }, glyph));
}

function layOut() {
  if (run.faults.length > 0 || run.quiet !== null) {
    section("FAULTS");
    // A short one has its name beside it.
    const letters = (f) => ((f.name.length + f.lane.length + 3) * LETTER * end) / (width() - GUTTER);
    const roomAfter = (f) => Math.max(f.to, f.from + letters(f));
    const rows = [];
    for (const fault of run.faults) {
      const row = rows.find((r) => roomAfter(r[r.length - 1]) <= fault.from) || rows[rows.push([]) - 1];
      row.push(fault);
    }
    for (const row of rows) {
      lane("", 22, (g, y) => {
        for (const f of row.filter((s) => inView(s.from, s.to))) {
          const colour = colourOfFault(f.name);
          const style = `fill:${colour};fill-opacity:.22;stroke:${colour}`;
          box(g, f.from, f.to, y + 2, 18, { style }, `${f.name} ${f.lane}`, "", "beside");
        }
      }, (m) => at(row, m).map((f) => [`${f.name} of ${f.lane}`, `${f.text}\nfrom ${time(f.from)} for ${span(f.to - f.from)}`]));
    }
  }
  if (run.groups.length > 0) section("GROUPS");
  for (const group of run.groups) {
    const owned = group.terms.some((term) => term.owns !== null);
    lane(group.name, 26, (g, y) => {
      for (const term of group.terms.filter((s) => inView(s.from, s.to))) {
        const style = `fill:${colourOfNode(term.node)};stroke:${colourOfNode(term.node)};`;
        const full = `${style}fill-opacity:.32`;
        const label = `${term.replica} term ${term.term}`;
        if (!owned) {
          box(g, term.from, term.to, y + 3, 20, { style: full }, label);
          continue;
        }
        const owns = term.owns ?? term.to;
        box(g, term.from, owns, y + 3, 20, { style: `${style}fill-opacity:.08;stroke-dasharray:3 2` });
        if (owns < term.to) box(g, owns, term.to, y + 3, 20, { style: full }, label);
      }
    }, (m) => {
      const now = at(group.terms, m);
      if (now.length === 0) return [[group.name, "nobody leads"]];
      return now.map((term) => [
        `${term.replica} leads ${group.name} in term ${term.term}`,
        `from ${time(term.from)} for ${span(term.to - term.from)}` + (term.owns === null ? "" : `\nowner from ${time(term.owns)}`),
      ]);
    });
  }
  if (run.machines.length > 0) section("MACHINES");
  for (const machine of run.machines.sort(naturally)) {
    const colour = colourOfMachine(machine.name);
    lane(machine.name, 28, (g, y) => {
      for (const state of machine.states.filter((s) => inView(s.from, s.to))) {
        if (state.name === "up") {
          const boot = (state.text.match(/boot (\d+)/) || [])[1];
          const label = boot && Number(boot) > 1 ? `boot ${boot}` : "";
          box(g, state.from, state.to, y + 3, 22, { style: `fill:${colour};fill-opacity:.2;stroke:${colour}` }, label, "muted");
        } else if (state.name === "down") {
          box(g, state.from, state.to, y + 3, 22, { fill: "url(#down)", class: "rule" }, "down", "muted");
        } else {
          const shade = state.name === "ghost" ? "var(--ghost)" : "var(--n5)";
          box(g, state.from, state.to, y + 3, 22, { style: `fill:${shade};fill-opacity:.35;stroke:${shade}` }, state.name);
        }
      }
      g.append(element("path", { d: strokes(machine.ticks, y + 19, 6), class: "ticks" }));
      for (const fault of run.faults.filter((f) => f.lane === machine.name && inView(f.from, f.to))) {
        const paint = colourOfFault(fault.name);
        box(g, fault.from, fault.to, y + 3, 3.5, { style: `fill:${paint};stroke:none` });
      }
      for (const point of machine.points) marker(g, x(point.at), y + 18, "ϟ", "var(--bad)");
    }, (m, reach) => [
      ...at(machine.states, m).map((s) => [`${machine.name} is ${s.name}`, `${s.text}\nfrom ${time(s.from)} for ${span(s.to - s.from)}`]),
      ...at(run.faults.filter((f) => f.lane === machine.name), m).map((f) => [f.name, f.text]),
      ...near(machine.points, m, reach).map((p) => [`lost power at ${p.name}`, p.text]),
    ]);
  }
  if (run.clients.length > 0) section("CLIENTS");
  for (const client of run.clients.sort(naturally)) {
    const acks = client.acknowledged.map(([moment]) => moment);
    lane(client.name, 30, (g, y) => {
      for (const gap of client.blackouts.filter((s) => inView(s.from, s.to))) {
        box(g, gap.from, gap.to, y + 4, 16, { class: "blackout" }, span(gap.to - gap.from), "blackout-text", "centred");
      }
      g.append(element("path", { d: strokes(client.frames, y + 5, 14), class: "frames" }));
      g.append(element("path", { d: strokes(acks, y + 21, 6), class: "acked" }));
      const glyphs = { "signed in": ["▶", "var(--good)"], resumed: ["↻", "var(--n1)"], lost: ["✕", "var(--bad)"] };
      for (const mark of client.marks) marker(g, x(mark.at), y + 17, ...(glyphs[mark.name] || ["•", "var(--fg)"]));
    }, (m, reach) => {
      const frames = client.frames.length === 0 ? null : client.frames[Math.max(firstFrom(client.frames, m + 0.0005) - 1, 0)];
      const done = client.acknowledged.filter(([moment]) => moment <= m).pop();
      return [
        [client.name, `${frames === null || frames > m ? "no frame yet" : `last frame ${span(m - frames)} before`}${done ? `, ${done[1]} commands applied` : ""}`],
        ...at(client.blackouts, m).map((gap) => ["blackout", `${gap.text}, from ${time(gap.from)}`]),
        ...near(client.marks, m, reach).map((mark) => [mark.name, mark.text]),
      ];
    });
  }
  height += 8;
}

// ---- the chart ---------------------------------------------------------------------------------------------------------

function axis(g) {
  const room = (width() - GUTTER) / 95;
  const raw = (view[1] - view[0]) / Math.max(room, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const digits = Math.min(Math.max(0, 3 - Math.floor(Math.log10(step) + 1e-9)), 6);
  for (let moment = Math.ceil(view[0] / step) * step; moment <= view[1]; moment += step) {
    g.append(element("line", { x1: x(moment), x2: x(moment), y1: AXIS, y2: height, class: "grid" }));
    g.append(element("text", { x: x(moment) + 3, y: 16, class: "muted" }, `${(moment / 1000).toFixed(digits)} s`));
  }
}

function draw() {
  const svg = element("svg", { height, viewBox: `0 0 ${width()} ${height}`, role: "img", "aria-label": "time line" });
  const defs = element("defs", {});
  const down = element("pattern", { id: "down", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  down.append(element("rect", { width: 6, height: 6, style: "fill:var(--faint)" }), element("rect", { width: 2, height: 6, style: "fill:var(--line)" }));
  defs.append(down);
  svg.append(defs);
  const g = element("g", {});
  axis(g);
  if (run.quiet !== null) {
    g.append(element("line", { x1: x(run.quiet), x2: x(run.quiet), y1: AXIS, y2: height, class: "rule", "stroke-dasharray": "6 4" }));
    g.append(element("text", { x: x(run.quiet) + 5, y: AXIS + 15, class: "muted" }, "quiet from here on"));
  }
  for (const row of lanes) {
    row.draw(g, row.y);
    if (!row.section) g.append(element("line", { x1: GUTTER, x2: width(), y1: row.y + row.h, y2: row.y + row.h, class: "grid" }));
  }
  for (const cut of run.cuts) {
    if (!inView(cut.at, cut.at)) continue;
    g.append(element("line", { x1: x(cut.at), x2: x(cut.at), y1: AXIS, y2: height, style: "stroke:var(--good);stroke-dasharray:2 3" }));
    g.append(element("text", { x: x(cut.at) - 26, y: height - 3, style: "fill:var(--good)" }, "cut"));
  }
  svg.append(g);
  if (pin !== null && inView(pin, pin)) svg.append(element("line", { x1: x(pin), x2: x(pin), y1: AXIS - 6, y2: height, class: "pin" }));
  if (run.violation && inView(run.violation.at, run.violation.at)) {
    const px = x(run.violation.at), label = `✗ ${run.violation.invariant}`, w = label.length * LETTER + 10;
    const left = px + w > width() ? px - w : px;
    svg.append(element("line", { x1: px, x2: px, y1: 2, y2: height, class: "breach" }));
    svg.append(element("rect", { x: left, y: 20, width: w, height: 18, class: "flag" }), element("text", { x: left + 5, y: 33, class: "flag-text" }, label));
  }
  svg.append(element("rect", { x: 0, y: 0, width: GUTTER - 3, height, class: "gutter" }));
  for (const row of lanes) {
    const name = row.section || row.label;
    svg.append(element("text", { x: row.section ? 10 : 18, y: row.y + row.h / 2 + 4, class: row.section ? "section" : "" }, name));
  }
  svg.append(element("line", { x1: GUTTER - 3, x2: GUTTER - 3, y1: 0, y2: height, class: "rule" }));
  if (pointer !== null && pointer > GUTTER) svg.append(element("line", { x1: pointer, x2: pointer, y1: AXIS, y2: height, class: "cursor", id: "cursor" }));
  by("chart").replaceChildren(svg);
}

let waiting = false;
function redraw(list = true) {
  listWaits = listWaits || list;
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
    if (listWaits) fill();
    listWaits = false;
  });
}
let listWaits = false;

function show(from, to) {
  const least = 1, length = Math.min(Math.max(to - from, least), end);
  const start = Math.min(Math.max(from, 0), end - length);
  view = [start, start + length];
  redraw();
}

function zoom(factor, around = (view[0] + view[1]) / 2) {
  const length = (view[1] - view[0]) * factor;
  show(around - ((around - view[0]) / (view[1] - view[0])) * length, around + ((view[1] - around) / (view[1] - view[0])) * length);
}

const move = (share) => show(view[0] + share * (view[1] - view[0]), view[1] + share * (view[1] - view[0]));

function goTo(moment, length = Math.min(view[1] - view[0], 2000)) {
  pin = moment;
  show(moment - length / 2, moment + length / 2);
}

function tip(event) {
  const rectangle = by("chart").getBoundingClientRect();
  const px = event.clientX - rectangle.left, py = event.clientY - rectangle.top;
  pointer = px;
  const cursor = by("cursor");
  if (cursor) { cursor.setAttribute("x1", px); cursor.setAttribute("x2", px); } else redraw(false);
  const row = lanes.find((l) => py >= l.y && py < l.y + l.h);
  const moment = t(px), reach = ((view[1] - view[0]) / (width() - GUTTER)) * 7;
  const box = by("tip");
  box.hidden = px <= GUTTER;
  box.replaceChildren(html("span", time(moment)));
  for (const [title, text] of row ? row.describe(moment, reach) : []) box.append(html("b", title), html("span", text));
  const left = event.clientX + 16 + box.offsetWidth > innerWidth ? event.clientX - box.offsetWidth - 12 : event.clientX + 16;
  box.style.left = `${Math.max(left, 4)}px`;
  box.style.top = `${Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 6)}px`;
}

function listen() {
  const chart = by("chart");
  let drag = null;
  chart.addEventListener("wheel", (event) => {
    event.preventDefault();
    const px = event.clientX - chart.getBoundingClientRect().left;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(event.deltaX / 1000);
    else zoom(Math.exp(event.deltaY / 400), t(Math.max(px, GUTTER)));
  }, { passive: false });
  chart.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, view: [...view], moved: false };
    chart.setPointerCapture(event.pointerId);
  });
  chart.addEventListener("pointermove", (event) => {
    if (drag && Math.abs(event.clientX - drag.x) > 3) {
      drag.moved = true;
      chart.classList.add("dragging");
      const by = ((drag.x - event.clientX) / (width() - GUTTER)) * (drag.view[1] - drag.view[0]);
      show(drag.view[0] + by, drag.view[1] + by);
    }
    tip(event);
  });
  chart.addEventListener("pointerup", (event) => {
    const px = event.clientX - chart.getBoundingClientRect().left;
    if (drag && !drag.moved && px > GUTTER) { pin = t(px); redraw(); scrollToPin(); }
    drag = null;
    chart.classList.remove("dragging");
  });
  chart.addEventListener("pointerleave", () => { pointer = null; by("tip").hidden = true; redraw(false); });
  chart.addEventListener("dblclick", () => show(0, end));
  const keys = { "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1.6), ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2), 0: () => show(0, end) };
  addEventListener("keydown", (event) => {
    if (event.target.id !== "filter" && !event.ctrlKey && !event.metaKey && keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  by("all").onclick = keys[0];
  by("in").onclick = keys["+"];
  by("out").onclick = keys["-"];
  by("left").onclick = keys.ArrowLeft;
  by("right").onclick = keys.ArrowRight;
  by("filter").oninput = by("visible").onchange = fill;
  addEventListener("resize", () => redraw(false));
}

// ---- the list ----------------------------------------------------------------------------------------------------------

function chips() {
  const counts = new Map();
  for (const [, kind] of run.events) counts.set(kind, (counts.get(kind) || 0) + 1);
  for (const [kind, count] of [...counts].sort((a, b) => a[0].localeCompare(b[0]))) {
    const chip = html("button", `${kind} ${count}`, { "aria-pressed": shownKinds.has(kind) });
    chip.onclick = () => {
      if (!shownKinds.delete(kind)) shownKinds.add(kind);
      chip.setAttribute("aria-pressed", shownKinds.has(kind));
      fill();
    };
    by("kinds").append(chip);
  }
}

function fill() {
  const words = by("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const visible = by("visible").checked;
  const matches = ([moment, kind, where, text]) =>
    shownKinds.has(kind) && (!visible || (moment >= view[0] && moment <= view[1])) &&
    words.every((word) => `${kind} ${where} ${text}`.toLowerCase().includes(word));
  const found = run.events.filter(matches);
  const rows = document.createDocumentFragment();
  for (const [moment, kind, where, text] of found.slice(0, ROWS_MAX)) {
    const row = html("tr", "", { class: kind, "data-at": moment });
    row.append(html("td", (moment / 1000).toFixed(3)), html("td", where), html("td", kind), html("td", text));
    row.onclick = () => goTo(moment);
    rows.append(row);
  }
  if (found.length > ROWS_MAX) {
    const row = html("tr", "", { class: "more" });
    row.append(html("td", ""), html("td", ""), html("td", ""), html("td", `${found.length - ROWS_MAX} more: zoom in, or filter`));
    rows.append(row);
  }
  by("list").querySelector("tbody").replaceChildren(rows);
  by("count").textContent = `${found.length} of ${run.events.length}`;
}

function scrollToPin() {
  const row = [...by("list").querySelectorAll("tr[data-at]")].find((r) => Number(r.dataset.at) >= pin);
  if (row) by("list").scrollTop = row.offsetTop - 40;
}

head();
layOut();
chips();
listen();
draw();
fill();
if (pin !== null) scrollToPin();
