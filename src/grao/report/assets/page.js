"use strict";
/* Theme, values under the pointer, tables, downloads and the answer browser. Data reaches the page as text only. */

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

const shown = (value) => {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const text = Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
  return text.replace("-", "\u2212");
};

/* --- light and dark ------------------------------------------------------------------------------------------- */

const remembered = {
  get: () => { try { return localStorage.getItem("grao-theme"); } catch { return null; } },
  set: (value) => { try { localStorage.setItem("grao-theme", value); } catch { /* files may have no storage */ } },
};

const startTheme = () => {
  const root = document.documentElement;
  const before = remembered.get();
  if (before === "light" || before === "dark") root.dataset.theme = before;
  document.querySelector("button.theme").addEventListener("click", () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
    remembered.set(root.dataset.theme);
  });
};

/* --- figures -------------------------------------------------------------------------------------------------- */

const csvField = (value) => {
  if (value === null || value === undefined) return "";
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

const toCsv = (data) => [data.columns, ...data.rows].map((row) => row.map(csvField).join(",")).join("\r\n") + "\r\n";

const save = (name, type, text) => {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
};

const SHOWN_ROWS = 300;

const fillTable = (box, data) => {
  const head = make("tr", {}, ...data.columns.map((name) => make("th", { scope: "col" }, name)));
  const body = make("tbody");
  const add = (rows) => {
    for (const row of rows) {
      body.append(make("tr", {}, ...row.map((value) =>
        make("td", typeof value === "number" ? { class: "number" } : {}, value === null ? "" : shown(value)))));
    }
  };
  add(data.rows.slice(0, SHOWN_ROWS));
  box.replaceChildren(make("table", {}, make("thead", {}, head), body));
  const left = data.rows.slice(SHOWN_ROWS);
  if (left.length) {
    const more = make("button", { type: "button" }, `Show ${left.length.toLocaleString("en")} more rows`);
    more.addEventListener("click", () => { add(left); more.remove(); });
    box.append(more);
  }
};

/* A row of the table in words; the bounds of an interval stand behind their value. */
const tipText = (data, row) => {
  const lines = [];
  data.rows[row].forEach((value, i) => {
    const name = data.columns[i];
    if (value === null || value === "") return;
    if (/\blow$/.test(name)) lines.at(-1).append(` [${shown(value)}, ${shown(data.rows[row][i + 1])}]`);
    else if (!/\bhigh$/.test(name)) lines.push(make("span", {}, lines.length ? `${name} ` : "", make("b", {}, shown(value))));
  });
  return lines;
};

const startChart = (chart, data) => {
  const svg = chart.querySelector("svg");
  const group = svg.querySelector(".places");
  if (!group || !group.dataset.points) return;
  const points = group.dataset.points.split(" ").map((point) => point.split(",").map(Number));
  const [acrossWeight, downWeight] = { x: [4, 1], y: [1, 40] }[group.dataset.by] || [1, 1];
  const tip = make("div", { class: "tip", role: "status", "aria-live": "polite" });
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("r", "6");
  let at = -1;
  chart.append(tip);

  const show = (index) => {
    at = index;
    const [x, y, row] = points[index];
    cursor.setAttribute("cx", x);
    cursor.setAttribute("cy", y);
    if (!cursor.parentNode) svg.append(cursor);
    tip.replaceChildren(...tipText(data, row));
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const room = chart.getBoundingClientRect().width - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, x * scale + 12))}px`;
    tip.style.top = `${y * scale + 12}px`;
  };
  const hide = () => { tip.replaceChildren(); cursor.remove(); };

  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const [x, y] = [(event.clientX - box.left) / scale, (event.clientY - box.top) / scale];
    let [best, least] = [-1, Infinity];
    points.forEach(([a, b], i) => {
      const distance = Math.abs(a - x) * acrossWeight + Math.abs(b - y) * downWeight;
      if (distance < least) [best, least] = [i, distance];
    });
    return best;
  };
  chart.addEventListener("pointermove", (event) => show(nearest(event)));
  chart.addEventListener("pointerdown", (event) => show(nearest(event)));
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    show((at + step + points.length) % points.length);
  });
};

const startFigure = (figure) => {
  const data = JSON.parse(figure.querySelector(".figure-data").textContent);
  figure.querySelectorAll(".chart").forEach((chart) => startChart(chart, data));
  const details = figure.querySelector("details.data");
  details.addEventListener("toggle", () => {
    const box = details.querySelector(".box");
    if (details.open && !box.firstChild) fillTable(box, data);
  });
  const name = figure.dataset.file;
  figure.querySelector("[data-save=csv]").addEventListener("click", () => save(`${name}.csv`, "text/csv", toCsv(data)));
  figure.querySelector("[data-save=svg]").addEventListener("click", () => {
    const picture = figure.querySelector("template.standalone").content.querySelector("svg");
    save(`${name}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(picture));
  });
};

/* --- answers -------------------------------------------------------------------------------------------------- */

const ROW_HEIGHT = 46;

class Browser {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(root.querySelector(".browser-data").textContent);
    this.items = this.data.items;
    for (const item of this.items) {
      item.text = [item.p, item.r ? item.r[0] : "", ...item.a.map((answer) => answer[1])].join("\n").toLowerCase();
    }
    this.steps = [...new Set(this.items.map((item) => item.s).filter((step) => step !== undefined))].sort((a, b) => a - b);
    this.part = (name) => root.querySelector(`.${name}`);
    this.rows = this.part("rows");
    this.space = make("div", { role: "presentation" });
    this.rows.append(this.space);
    this.found = [];
    this.at = 0;
    this.listen();
    this.filter();
  }

  listen() {
    for (const name of ["query", "category", "method", "against", "sort", "step-range"]) {
      this.part(name)?.addEventListener("input", () => this.filter());
    }
    this.rows.addEventListener("scroll", () => this.drawRows());
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.select(Number(row.dataset.place));
    });
    new ResizeObserver(() => this.drawRows()).observe(this.rows);
    this.part("unblur")?.addEventListener("click", (event) => {
      const blurred = this.root.classList.toggle("blurred");
      event.target.setAttribute("aria-pressed", String(!blurred));
      event.target.textContent = blurred ? "Show all texts" : "Blur all texts";
    });
    this.root.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, button")) return;
    const moves = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    if (event.key in moves) this.select(this.at + moves[event.key]);
    else if (event.key === "Home") this.select(0);
    else if (event.key === "End") this.select(this.found.length - 1);
    else if (event.key === "/") this.part("query").focus();
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft") this.moveStep(event.key === "ArrowRight" ? 1 : -1);
    else return;
    event.preventDefault();
  }

  moveStep(by) {
    const range = this.part("step-range");
    if (!range) return;
    range.value = Number(range.value) + by;
    this.filter();
  }

  /* Mean score of the chosen method's answers, or of all. */
  score(item, who = this.part("method").value) {
    const scores = item.a.filter((a) => (who === "" || a[0] === Number(who)) && a[2] !== null).map((a) => a[2]);
    return scores.length ? scores.reduce((sum, value) => sum + value, 0) / scores.length : null;
  }

  difference(item) {
    const other = this.part("against").value;
    const [own, theirs] = [this.score(item), other === "reference" ? (item.r ? item.r[1] : null) : this.score(item, other)];
    return own === null || theirs === null ? null : own - theirs;
  }

  spread(item) {
    const scores = item.a.map((a) => a[2]).filter((value) => value !== null);
    return scores.length > 1 ? Math.max(...scores) - Math.min(...scores) : null;
  }

  filter() {
    const before = this.found[this.at];
    const words = this.part("query").value.toLowerCase().split(/\s+/).filter(Boolean);
    const category = this.part("category")?.value || "";
    const range = this.part("step-range");
    const step = range && this.steps.length ? this.steps[Number(range.value)] : undefined;
    if (range) this.part("step-name").textContent = `${step} (${Number(range.value) + 1} of ${this.steps.length})`;
    this.found = this.items.filter((item) =>
      (step === undefined || item.s === step) && (!category || item.c === category) &&
      words.every((word) => item.text.includes(word)));
    this.sort();
    const same = this.found.findIndex((item) => item === before);
    const asked = same >= 0 ? same : this.found.findIndex((item) => before && item.p === before.p);
    this.space.style.height = `${this.found.length * ROW_HEIGHT}px`;
    const many = this.items.filter((item) => step === undefined || item.s === step).length;
    this.part("count").textContent = `${this.found.length} of ${many} prompts`;
    this.select(Math.max(0, asked));
  }

  sort() {
    const kind = this.part("sort").value;
    if (kind === "order") return;
    const [value, sign] = {
      high: [this.score, -1], low: [this.score, 1], gain: [this.difference, -1], drop: [this.difference, 1], spread: [this.spread, -1],
    }[kind];
    const keyed = this.found.map((item) => [value.call(this, item), item]);
    const rank = (number) => (number === null ? Infinity : sign * number);
    keyed.sort(([a], [b]) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)));
    this.found = keyed.map(([, item]) => item);
  }

  select(place) {
    this.at = Math.max(0, Math.min(this.found.length - 1, place));
    const top = this.at * ROW_HEIGHT;
    if (top < this.rows.scrollTop) this.rows.scrollTop = top;
    const low = top + ROW_HEIGHT - this.rows.clientHeight;
    if (low > this.rows.scrollTop) this.rows.scrollTop = low;
    this.drawRows();
    this.drawDetail();
  }

  /* Only the rows in sight exist. */
  drawRows() {
    const first = Math.max(0, Math.floor(this.rows.scrollTop / ROW_HEIGHT) - 5);
    const last = Math.min(this.found.length, Math.ceil((this.rows.scrollTop + this.rows.clientHeight) / ROW_HEIGHT) + 5);
    const drawn = [];
    for (let place = first; place < last; place++) drawn.push(this.row(place));
    this.space.replaceChildren(...drawn);
    if (this.found.length) this.rows.setAttribute("aria-activedescendant", `${this.root.id}-row-${this.at}`);
    else this.rows.removeAttribute("aria-activedescendant");
  }

  row(place) {
    const item = this.found[place];
    const row = make("div", {
      class: "row", role: "option", id: `${this.root.id}-row-${place}`, "data-place": place,
      "aria-selected": place === this.at, "aria-posinset": place + 1, "aria-setsize": this.found.length,
    }, make("span", {}, item.p));
    row.style.top = `${place * ROW_HEIGHT}px`;
    const who = this.part("method");
    const said = [item.c, `${who.value === "" ? "mean " : ""}${this.data.score} ${shown(this.score(item))}`];
    const change = this.difference(item);
    if (change !== null) said.push(`${change > 0 ? "+" : ""}${shown(change)} on ${this.part("against").selectedOptions[0].textContent}`);
    row.append(make("small", {}, said.filter(Boolean).join(" · ")));
    return row;
  }

  drawDetail() {
    const detail = this.part("detail");
    const item = this.found[this.at];
    if (!item) {
      detail.replaceChildren(make("p", { class: "quiet" }, "No prompt fits. Clear the search, or choose another category."));
      return;
    }
    const step = (by, text, name) => {
      const button = make("button", { type: "button", class: name, "aria-label": `${name} prompt` }, text);
      button.addEventListener("click", () => {
        this.select(this.at + by);
        this.part(name).focus();
      });
      return button;
    };
    const where = make("div", { class: "where" },
      make("output", {}, [`${this.at + 1} of ${this.found.length}`, item.c, item.s === undefined ? "" : `step ${item.s}`].filter(Boolean).join(" · ")),
      step(-1, "← previous", "previous"), step(1, "next →", "next"));
    const cards = make("div", { class: "cards" });
    if (item.r) cards.append(this.card("reference", "", item.r[0], item.r[1], item.r[2], "", null));
    const reference = item.r ? item.r[1] : null;
    const chosen = this.part("method").value;
    for (const [who, text, score, advantage, note] of item.a) {
      if (chosen !== "" && who !== Number(chosen) && String(who) !== this.part("against").value) continue;
      cards.append(this.card(this.data.names[who], this.data.colours[who], text, score, advantage, note, reference));
    }
    const prompt = make("p", { class: "said prompt" });
    this.mark(prompt, item.p);
    detail.replaceChildren(where, prompt, cards);
    detail.scrollTop = 0;
  }

  card(name, colour, text, score, advantage, note, reference) {
    const card = make("article", { class: name === "reference" && !colour ? "card reference" : "card" });
    if (colour) card.style.setProperty("--c", `var(--${colour})`);
    const side = score === null || reference === null ? "" : score > reference ? "above" : score < reference ? "below" : "";
    const sign = { above: "▲ ", below: "▼ " }[side] || "";
    const numbers = make("span", { class: "score" }, make("span", { class: side }, `${sign}${score === null ? "unscored" : shown(score)}`));
    if (advantage !== null && advantage !== undefined) numbers.append(` · advantage ${shown(advantage)}`);
    const said = make("p", { class: "said", tabindex: this.root.classList.contains("blurred") ? "0" : "-1" });
    this.mark(said, text || "(empty)");
    card.append(make("header", {}, make("b", {}, name), numbers), said);
    if (note) card.append(make("small", {}, note));
    return card;
  }

  /* The text, with the words that were searched for marked. */
  mark(node, text) {
    const words = this.part("query").value.toLowerCase().split(/\s+/).filter(Boolean);
    const lower = text.toLowerCase();
    let from = 0;
    while (words.length && lower.length === text.length) {
      const hits = words.map((word) => [lower.indexOf(word, from), word.length]).filter(([place]) => place >= 0);
      if (!hits.length) break;
      const [place, length] = hits.reduce((a, b) => (b[0] < a[0] || (b[0] === a[0] && b[1] > a[1]) ? b : a));
      node.append(text.slice(from, place), make("mark", {}, text.slice(place, place + length)));
      from = place + length;
    }
    node.append(text.slice(from));
  }
}

startTheme();
document.querySelectorAll("figure").forEach(startFigure);
const browsers = [...document.querySelectorAll(".browser")].map((root) => new Browser(root));
