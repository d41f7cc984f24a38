"use strict";
// The token stands behind # in the link, which browsers send to nobody.
const byId = (id) => document.getElementById(id);
const kept = sessionStorage;
let shown = null;
let since = 0;
let busy = false;

if (location.hash.length > 1) {
  kept.setItem("token", location.hash.slice(1)); // tokens have no characters that links escape
  history.replaceState(null, "", location.pathname);
}

async function ask(path, body) {
  const headers = { Authorization: "Bearer " + (kept.getItem("token") || "") };
  const options = { headers, cache: "no-store" };
  if (body) {
    headers["Content-Type"] = "application/json";
    options.method = "POST";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  const value = await answer.json();
  if (answer.ok) return value;
  const problem = new Error([value.what, value.next].filter(Boolean).join(" → "));
  problem.status = answer.status;
  throw problem;
}

function note(text) { byId("note").textContent = text || ""; }

function enter(text) {
  kept.removeItem("token");
  byId("enter").hidden = false;
  byId("work").hidden = byId("progress").hidden = byId("finished").hidden = true;
  byId("refused").textContent = text || "";
  byId("token").focus();
}

function draw(value) {
  shown = value.pair;
  since = Date.now();
  byId("who").textContent = value.reviewer;
  byId("enter").hidden = true;
  byId("work").hidden = byId("progress").hidden = false;
  byId("pair").innerHTML = value.html || ""; // escaped by the server
  byId("pair").hidden = byId("ask").hidden = !shown;
  byId("finished").hidden = Boolean(shown);
  byId("ask").textContent = value.adjudicate
    ? "Reviewers disagree here. What is right?" : byId("ask").dataset.question;
  byId("comment").value = "";
  for (const button of document.querySelectorAll("[data-grade], [data-pick], [data-action]")) button.disabled = !shown;
  byId("undo").disabled = !value.can_undo;
  const told = value.progress;
  byId("bar").max = Math.max(1, told.done + told.open);
  byId("bar").value = told.done;
  const left = told.minutes_left === null ? "" : ", about " + Math.max(1, Math.round(told.minutes_left)) + " min left at your pace";
  byId("count").textContent = told.done + " of " + (told.done + told.open) + " judged, " + told.own + " by you" + (told.open ? left : "");
  window.scrollTo(0, 0);
}

async function outlook() {
  try {
    const value = await ask("/api/outlook");
    byId("outlook").textContent = value.more || "";
    byId("agreement").textContent = value.agreement ? "Agreement of reviewers (Krippendorff’s α): " + value.agreement : "";
  } catch { /* the next judgment asks again */ }
}

async function show() {
  draw(await ask("/api/next"));
  outlook();
}

// What is not saved yet survives a reload and a server that is gone: it is sent until it is answered.
async function send() {
  const text = kept.getItem("pending");
  if (!text) return;
  const pending = JSON.parse(text);
  for (;;) {
    try {
      await ask(pending.path, pending.body);
      break;
    } catch (problem) {
      if (problem.status === 401) throw problem;
      if (problem.status && problem.status < 500) {
        kept.removeItem("pending");
        throw problem;
      }
      note("Not saved yet: the server does not answer. Trying again …");
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
  kept.removeItem("pending");
  note("");
}

async function act(path, body) {
  if (busy) return;
  busy = true;
  const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const by = byId("who").textContent; // a token of somebody else may be entered before it is sent
  kept.setItem("pending", JSON.stringify({ path, body: { id, by, ...body } }));
  await settle();
}

async function settle() {
  busy = true;
  let problem = null;
  try {
    await send();
  } catch (caught) { problem = caught; }
  try {
    if (problem && problem.status === 401) throw problem;
    for (;;) {
      try { await show(); break; } catch (caught) {
        if (caught.status && caught.status < 500) throw caught;
        note("The server does not answer. Trying again …");
        await new Promise((done) => setTimeout(done, 1000));
      }
    }
    note(problem ? problem.message : "");
  } catch (caught) {
    if (caught.status === 401) enter(kept.getItem("token") ? caught.message : "");
    else note(caught.message);
  }
  busy = false;
}

function judge(action, answer) {
  if (!shown) return;
  const seconds = Math.min(86400, (Date.now() - since) / 1000);
  act("/api/judge", { pair: shown, action, ...answer, comment: byId("comment").value, seconds });
}

function press(button) {
  if (button.dataset.grade) judge("grade", { grade: Number(button.dataset.grade) });
  else if (button.dataset.pick) judge("pick", { picked: Number(button.dataset.pick) });
  else if (button.dataset.action) judge(button.dataset.action);
  else if (button.id === "undo") act("/api/undo", {});
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button && !button.disabled) press(button);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === "Escape") document.activeElement.blur();
  if (event.target.matches("input, textarea")) return;
  const keys = { t: () => judge("cannot_tell"), s: () => judge("skip"), u: () => { if (!byId("undo").disabled) act("/api/undo", {}); }, c: () => byId("comment").focus() };
  const number = /^[0-9]$/.test(event.key) && document.querySelector(`[data-grade="${event.key}"], [data-pick="${event.key}"]`);
  if (number) press(number);
  else if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
byId("grades").addEventListener("submit", (event) => event.preventDefault());
byId("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  kept.setItem("token", byId("token").value.trim());
  byId("token").value = "";
  settle();
});
if (kept.getItem("token")) settle(); else enter("");
