/* The frame: which view is shown, the connection, sign-in, keys. */
import { clean, h, render } from "./dom.js";
import { ask, tellOf } from "./api.js";
import { listen, start } from "./live.js";
import { Loader } from "./loader.js";
import { jobsView } from "./jobs.js";
import { jobView, rerunView } from "./job.js";

const main = document.getElementById("main");
const notice = document.getElementById("notice");
const connection = document.getElementById("connection");
const sign = document.getElementById("sign");
const help = document.getElementById("help");
const said = document.getElementById("said");
let shown = null, loader = null, problem = null, frame = 0, reached = true;

// --- views

let tries = 0;
/** Loads what a view is made of; one that could not be loaded is remembered by browsers, so it is asked for anew. */
async function part(name) {
  try { return await import(`./${name}.js` + (tries ? "?" + tries : "")); } catch { tries++; throw new Error("The server can't be reached."); }
}

const ROUTES = [
  [/^\/$/, (view, query) => jobsView(view, query), "jobs"],
  [/^\/jobs\/([^/]+)$/, (view, query, [id], line) => jobView(view, id, query, line), "jobs"],
  [/^\/jobs\/([^/]+)\/rerun$/, (view, _, [id]) => rerunView(view, id), "jobs"],
  [/^\/tasks\/([^/]+)$/, (_view, _, [id]) => ({ title: "Task", load: async (options) => { const task = await ask("/tasks/" + id, options); location.replace(`#/jobs/${task.jobId}?task=${task.id}`); }, draw: () => [] }), "jobs"],
  [/^\/new$/, async (view, query) => (await part("editor")).editorView(view, query), "new"],
  [/^\/schedules$/, async (view) => (await part("schedules")).schedulesView(view), "schedules"],
  [/^\/schedules\/([^/]+)$/, async (view, query, [id]) => (await part("editor")).editorView(view, query, id), "schedules"],
  [/^\/workers$/, async (view) => (await part("workers")).workersView(view), "workers"],
  [/^\/access$/, async (view) => (await part("access")).accessView(view), "access"],
];
const OLD = { "/nodes": "/workers", "/queues": "/workers" };

/** Where the address leads: a path, what it asks, and a line of a log. */
function address() {
  const [place, line] = location.hash.slice(1).split("#L");
  const [path, search] = (place || "/").split("?");
  return { here: (OLD[path] || path || "/").replace(/(.)\/$/, "$1"), search: search || "", line: Number(line) || 0 };
}
const decoded = (part) => { try { return decodeURIComponent(part); } catch { return part; } };

let placed = null;
function route() {
  const { here, search, line } = address();
  const full = here + "?" + search;
  if (full === placed && shown) { if (line) shown.line?.(line); return; }
  const moved = placed !== null;
  placed = full;
  loader?.stop();
  shown?.close?.();
  shown = problem = loader = null;
  const found = ROUTES.find(([pattern]) => pattern.test(here));
  if (!found) { render(main, h("div", { class: "empty card" }, h("h1", {}, "There is no such page"), h("a", { href: "#/" }, "All jobs"))); return; }
  const [pattern, make, tab] = found;
  for (const link of document.querySelectorAll("nav a[data-tab]")) link.dataset.tab === tab ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  let loaded = false;
  const mine = loader = new Loader(async (options) => {
    if (!shown) {
      const made = await make(view, new URLSearchParams(search), pattern.exec(here).slice(1).map(decoded), line);
      if (options.signal.aborted) { made.close?.(); return; }
      shown = made;
      draw();
      if (moved) arrive();
    }
    await shown.load(options);
    if (moved && !loaded) said.textContent = clean(shown.title);
    loaded = true;
    problem = null;
    view.draw();
  }, (error) => { if (loaded) tell(error.message); else { problem = error; view.draw(); } });
  const { signal } = mine.life;
  const view = {
    options: { signal },
    now: () => mine.now(), anew: () => mine.anew(), soon: (wait) => mine.soon(wait), asks: () => !!mine.running,
    draw: () => { if (!signal.aborted) soon(); },
    tell: (text) => tell(text, true),
    say: (text) => { said.textContent = clean(text); },
    place: (hash) => { history.replaceState(null, "", hash); const now = address(); placed = now.here + "?" + now.search; },
    try: async (work) => { try { await work(); } catch (error) { if (error.name !== "AbortError" && !signal.aborted) tell(error.message); } },
    act: (work) => () => view.try(async () => { await work(); await mine.now(); }),
  };
  loader.now();
}

/** Begins at the top after a link was followed: the focus went with what it stood on. */
function arrive() {
  const active = document.activeElement;
  if (!active || active === document.body || active.closest("nav")) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function soon() { frame ||= requestAnimationFrame(() => { frame = 0; draw(); }); }
function draw() {
  if (problem) render(main, h("div", { class: "empty card", key: "problem" }, h("h1", {}, problem.status === 404 ? "Not found" : "That did not work"), h("p", {}, problem.message), h("a", { href: "#/" }, "All jobs")));
  else if (shown) render(main, shown.draw());
  if (!shown) return;
  const title = shown.title + " · Haulier";
  if (document.title !== title) document.title = title;
}

/* Durations and relative times go on while somebody looks; nothing is asked for. */
let slow = 0;
setInterval(() => { if (!document.hidden && shown && (shown.ticks?.() || ++slow % 15 === 0)) draw(); }, 1000);

// --- what is said

let telling = null;
function tell(text, good = false) {
  render(notice, h("span", {}, text), h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => { notice.hidden = true; } }, "✕"));
  notice.className = good ? "good" : "";
  notice.hidden = false;
  clearTimeout(telling);
  telling = setTimeout(() => { notice.hidden = true; }, good ? 4000 : 12000);
}

let lastSeen = new Date();
function away(is) {
  if (!is) { lastSeen = new Date(); if (!connection.hidden) connection.hidden = true; reached = true; return; }
  if (reached) { connection.textContent = "Not connected, showing " + lastSeen.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" }); connection.hidden = false; reached = false; }
}

// --- signing in

let byKey = false;
function signIn() {
  return new Promise((done) => {
    let problem = "", busy = false;
    const show = () => render(sign, h("form", { class: "signform", "aria-label": "Sign in", onsubmit: async (event) => {
      event.preventDefault();
      const said = Object.fromEntries(new FormData(event.target));
      busy = true; problem = ""; show();
      try {
        await ask("/login", { method: "POST", body: JSON.stringify(said), headers: { "Content-Type": "application/json" }, open: true });
        for (const field of event.target.querySelectorAll("input")) field.value = "";
        sign.close();
        try { sessionStorage.setItem("haulier.signed", "1"); } catch { /* then nothing offers to sign out */ }
        out();
        done();
      } catch (error) { problem = error.status === 401 ? (byKey ? "This key or token is not right." : "This name and password are not right.") : error.message; }
      busy = false; show();
    } },
    h("h1", {}, "Sign in"),
    problem ? h("p", { class: "bad", role: "alert", key: "problem" }, problem) : null,
    byKey ? h("label", { class: "field", key: "k" }, h("span", {}, "Key or token"), h("input", { name: "key", type: "password", required: true, autocomplete: "current-password", autofocus: true }))
      : [h("label", { class: "field", key: "u" }, h("span", {}, "User name"), h("input", { name: "username", required: true, autocomplete: "username", autofocus: true })),
        h("label", { class: "field", key: "p" }, h("span", {}, "Password"), h("input", { name: "password", type: "password", required: true, autocomplete: "current-password" }))],
    h("button", { class: "main", disabled: busy }, "Sign in"),
    h("button", { type: "button", class: "quiet", onclick: () => { byKey = !byKey; show(); } }, byKey ? "Use a name and password" : "Use a key or token")));
    show();
    if (!sign.open) sign.showModal();
    sign.oncancel = (event) => event.preventDefault();
  });
}
const leave = document.getElementById("leave");
function out() { try { leave.hidden = !sessionStorage.getItem("haulier.signed"); } catch { leave.hidden = true; } }
leave.onclick = async () => {
  await ask("/logout", { method: "POST", open: true }).catch(() => null);
  try { sessionStorage.removeItem("haulier.signed"); } catch { /* nothing was kept */ }
  location.reload();
};

// --- keys

const typing = (target) => /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || sign.open) return;
  if (typing(event.target)) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.key === "/") { event.preventDefault(); if (shown && shown.find) shown.find(); else document.getElementById("search")?.focus(); }
  else if (event.key === "?") help.open ? help.close() : help.showModal();
  else if (event.key === "j" || event.key === "k") { event.preventDefault(); move(event.key === "j" ? 1 : -1); }
  else if (event.key === "n") location.hash = "/new";
});
function move(by) {
  const all = [...main.querySelectorAll("a.line, button.stepline, .schedule a.button, button.cell")];
  const at = all.indexOf(document.activeElement);
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.max(0, Math.min(all.length - 1, at + by))];
  if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
}
document.getElementById("helpopen").onclick = () => help.showModal();
document.getElementById("helpclose").onclick = () => help.close();

// --- begin

tellOf(signIn, (is) => away(!is));
listen((said) => {
  if (said.do === "down") away(true);
  if (said.do === "up") {
    away(false);
    if (problem || shown?.changes?.()) loader.now();
  }
  if (said.do === "event") shown?.hear?.(said.event);
});
start();
out();
window.addEventListener("hashchange", route);
route();
