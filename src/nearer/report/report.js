// What the report does beyond standing there.  Texts become text nodes, never markup.
"use strict";

// Details are opened before printing where the browser cannot do it by style alone.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) {
    part.open = true;
    part.dataset.printed = "1";
  }
});
addEventListener("afterprint", () => {
  for (const part of document.querySelectorAll("details[data-printed]")) {
    part.open = false;
    delete part.dataset.printed;
  }
});

function element(tag, kind, ...children) {
  const node = document.createElement(tag);
  if (kind) node.className = kind;
  node.append(...children);
  return node;
}

// -- neighbourhoods: opening a query's details fades the others ---------------------------------

function showNeighbourhoods() {
  const parts = [...document.querySelectorAll("details[data-group]")];
  const groups = [...document.querySelectorAll("g.group")];
  const show = () => {
    const open = new Set(parts.filter((part) => part.open).map((part) => part.dataset.group));
    for (const group of groups) {
      const faded = open.size > 0 && !open.has(group.dataset.group);
      group.classList.toggle("faded", faded);
    }
  };
  for (const part of parts) part.addEventListener("toggle", show);
  for (const group of groups) {
    group.addEventListener("click", () => {
      const part = parts.find((each) => each.dataset.group === group.dataset.group);
      if (part) part.open = !part.open;
    });
  }
}

// -- the browser of queries ---------------------------------------------------------------------

const PAGE = 40;
const WORD = /[\p{L}\p{N}_]+/gu;

function wordsOf(text, stop) {
  const found = new Set();
  for (const word of text.toLowerCase().match(WORD) || []) {
    if (word.length > 1 && !stop.has(word)) found.add(word);
  }
  return found;
}

// The text with the words of the query marked.
function marked(text, terms) {
  const node = element("span");
  let end = 0;
  for (const match of text.matchAll(WORD)) {
    if (!terms.has(match[0].toLowerCase())) continue;
    node.append(text.slice(end, match.index), element("mark", "", match[0]));
    end = match.index + match[0].length;
  }
  node.append(text.slice(end));
  return node;
}

const OUTCOMES = {
  better: (query) => query.after > query.before,
  worse: (query) => query.after < query.before,
  same: (query) => query.after === query.before,
  lost: (query) => query.before > 0 && query.after === 0,
  found: (query) => query.before === 0 && query.after > 0,
};
const ORDERS = {
  loss: (a, b) => a.after - a.before - (b.after - b.before),
  gain: (a, b) => b.after - b.before - (a.after - a.before),
  low: (a, b) => a.after - b.after,
};

class QueryBrowser {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.stop = new Set(data.stop);
    this.form = root.querySelector("fieldset");
    this.list = root.querySelector("ol");
    this.status = root.querySelector("output");
    this.more = root.querySelector("button[data-more]");
    this.fill("slice", data.slices.map((name, at) => [at, name]));
    this.fill("cause", data.causes.map((name, at) => [at, name]));
    const splits = [...new Set(data.queries.map((query) => query.split))];
    this.fill("split", splits.map((name) => [name, name]));
    if (splits.length > 1) this.form.elements.split.value = splits[0];
    this.form.addEventListener("input", () => this.filter());
    root.querySelector("button[data-clear]").addEventListener("click", () => this.clear());
    this.more.addEventListener("click", () => this.draw(true));
    this.list.addEventListener("keydown", (event) => this.move(event));
    root.hidden = false;
    document.getElementById("without-script").hidden = true;
    this.filter();
  }

  fill(name, options) {
    const select = this.form.elements[name];
    for (const [value, label] of options) {
      const option = element("option", "", label);
      option.value = value;
      select.append(option);
    }
    select.closest("label").hidden = options.length < (name === "split" ? 2 : 1);
  }

  clear() {
    for (const name of ["outcome", "slice", "cause", "words"]) this.form.elements[name].value = "";
    this.filter();
  }

  filter() {
    const { split, outcome, slice, cause, order, words } = this.form.elements;
    const sought = words.value.trim().toLowerCase();
    this.found = this.data.queries.filter(
      (query) =>
        (!split.value || query.split === split.value) &&
        (!outcome.value || OUTCOMES[outcome.value](query)) &&
        (!slice.value || query.slices.includes(Number(slice.value))) &&
        (!cause.value || query.causes.includes(Number(cause.value))) &&
        (!sought || `${query.id} ${query.text}`.toLowerCase().includes(sought)),
    );
    this.found.sort(ORDERS[order.value]);
    this.list.replaceChildren();
    this.drawn = 0;
    this.draw(false);
    const change = this.found.reduce((sum, query) => sum + query.after - query.before, 0);
    const mean = this.found.length ? change / this.found.length : 0;
    const amount = Math.abs(mean).toFixed(3);
    const sign = Number(amount) === 0 ? "" : mean < 0 ? "−" : "+";
    this.status.textContent =
      `${this.found.length.toLocaleString("en")} ${this.found.length === 1 ? "query" : "queries"}` +
      (this.found.length ? `, mean change ${sign}${amount}` : "");
  }

  // The next rows; after "show more" the first new one has the focus.
  draw(focus) {
    const rows = this.found.slice(this.drawn, this.drawn + PAGE).map((query) => this.row(query));
    this.list.append(...rows);
    this.drawn += rows.length;
    this.more.hidden = this.drawn >= this.found.length;
    this.more.textContent = `Show ${Math.min(PAGE, this.found.length - this.drawn)} more`;
    if (focus && rows.length) rows[0].firstChild.focus();
  }

  row(query) {
    const button = element("button", "row");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    const text = element("span", "query", query.text || "(no text)");
    text.dir = "auto";
    const tone = query.after > query.before ? "wins" : query.after < query.before ? "losses" : "";
    const values = `${query.before.toFixed(3)} → ${query.after.toFixed(3)}`;
    button.append(text, element("span", `score ${tone}`, values));
    const item = element("li", "", button);
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) item.lastChild.remove();
      else item.append(this.lists(query));
    });
    return item;
  }

  lists(query) {
    const terms = wordsOf(query.text, this.stop);
    const relevant = new Set(query.relevant);
    const lists = element("div", "lists");
    for (const [side, title] of [this.data.baseline, this.data.candidate].entries()) {
      const name = side ? `After: ${title}` : `Before: ${title}`;
      const column = element("div", "", element("h3", "", name));
      const hits = query.hits[side];
      if (!hits.length) column.append(element("p", "quiet", "Nothing was found."));
      const list = element("ol");
      for (const [rank, at] of hits.entries()) {
        list.append(this.hit(at, rank, query, side, terms, relevant));
      }
      column.append(list);
      lists.append(column);
    }
    const parts = element("div", "opened", lists);
    const missed = query.relevant.filter((at) => !query.hits[1].includes(at));
    if (missed.length) {
      const line = element("p", "quiet", "Relevant, and not among the first after: ");
      for (const [number, at] of missed.entries()) {
        const [id, title, body] = this.data.documents[at];
        line.append(number ? "; " : "", element("bdi", "", marked(title || body || id, terms)));
      }
      parts.append(line);
    }
    const facts = [`query ${query.id}`, query.split];
    facts.push(...query.slices.map((at) => this.data.slices[at]));
    facts.push(...query.causes.map((at) => `cause: ${this.data.causes[at]}`));
    parts.append(element("p", "quiet", element("bdi", "", facts.join(" · "))));
    return parts;
  }

  hit(at, rank, query, side, terms, relevant) {
    const [id, title, body] = this.data.documents[at];
    const item = element("li", relevant.has(at) ? "hit" : "");
    const doc = element("span", "doc");
    if (relevant.has(at)) {
      const check = element("span", "check", "✓");
      check.setAttribute("role", "img");
      check.setAttribute("aria-label", "relevant");
      doc.append(check, " ");
    }
    doc.append(element("bdi", "", marked(title || id, terms)));
    if (body) doc.append(element("small", "", element("bdi", "", marked(body, terms))));
    const other = query.hits[1 - side].indexOf(at);
    let move = "";
    let tone = "";
    if (side && other < 0) [move, tone] = ["new", "new"];
    else if (side && other > rank) [move, tone] = [`▲ ${other - rank}`, "up"];
    else if (side && other < rank) [move, tone] = [`▼ ${rank - other}`, "down"];
    else if (!side && other < 0) [move, tone] = ["gone", "gone"];
    item.append(element("span", "rank", String(rank + 1)), doc);
    if (move) item.append(element("span", `move ${relevant.has(at) ? tone : ""}`, move));
    return item;
  }

  // Arrow keys, Home and End go from query to query.
  move(event) {
    const buttons = [...this.list.querySelectorAll("button.row")];
    const at = buttons.indexOf(document.activeElement);
    if (at < 0) return;
    const places = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 };
    const target = buttons[places[event.key]];
    if (!target) return;
    event.preventDefault();
    target.focus();
  }
}

showNeighbourhoods();
const source = document.getElementById("queries-data");
if (source) new QueryBrowser(document.getElementById("query-browser"), JSON.parse(source.textContent));
