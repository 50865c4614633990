/* Writes a job: colours, what is wrong under its line as one types, and what the language knows at this place. */
import { h } from "./dom.js";
import { ask, Refused, seg, sendYaml } from "./api.js";
import { toYaml } from "./format.js";
import { EXAMPLES } from "./examples.js";
import { submitted } from "./job.js";

const DRAFT = "haulier.draft";
const PAUSE = 350; // milliseconds without a key after which the text is checked

export function editorView(view, query, schedule = "") {
  const draft = DRAFT + (schedule ? "." + schedule : "");
  const store = (text) => { try { localStorage.setItem(draft, text); } catch { /* without one it is not kept */ } };
  const stored = () => { try { return localStorage.getItem(draft) || ""; } catch { return ""; } };
  let text = "", faults = [], said = "", timer = null, checking = null, schema = null, area, back, menu = null, hint = "", ready = false, inputs = {};

  const scheduled = () => /^(schedule)\s*:/m.test(text);
  const path = () => (schedule ? "/scheduled-jobs" : scheduled() ? "/scheduled-jobs" : "/jobs");

  async function load(options) {
    if (ready) return;
    schema = await ask("/schemas/job.json", options);
    const example = EXAMPLES.find((one) => one.name === query.get("example"));
    if (query.get("from")) text = toYaml(withoutSecrets(submitted(await ask(`/jobs/${seg(query.get("from"))}?execution=false`, options)))) + "\n";
    else if (schedule) text = stored() || toYaml(ofSchedule(await ask("/scheduled-jobs/" + seg(schedule), options))) + "\n";
    else text = example ? example.text : stored() || EXAMPLES[query.get("kind") === "schedule" ? 4 : 0].text;
    ready = true;
    view.draw();
    check();
  }

  async function check() {
    if (checking) checking.abort();
    const asked = checking = new AbortController();
    const sent = text;
    let found = [], told = "";
    try {
      const stored = await sendYaml("POST", path() + "?dryRun=true", sent, asked.signal);
      if (sent === text) inputs = /^inputs\s*:/m.test(text) ? stored.inputs || {} : {};
      told = "✓ Valid.";
    }
    catch (error) {
      if (error.name === "AbortError") return;
      found = error instanceof Refused && error.faults.length ? error.faults : [{ message: error.message }];
    }
    if (sent !== text) return;
    faults = found;
    said = told || (found.length === 1 ? "1 fault" : found.length + " faults");
    view.draw();
    paint();
  }

  function typed() {
    text = area.value;
    suggest();
    changed();
  }

  function changed() {
    store(text);
    paint();
    clearTimeout(timer);
    timer = setTimeout(() => view.try(check), PAUSE);
  }

  /** Writes an input of the form into the text, in place of all that the text says of inputs. */
  function setInput(name, value) {
    inputs = { ...inputs, [name]: value };
    const lines = text.split("\n");
    const first = lines.findIndex((line) => /^inputs\s*:/.test(line));
    let end = first + 1;
    while (end < lines.length && !/^[\w"']/.test(lines[end])) end++;
    while (end > first + 1 && /^\s*(#.*)?$/.test(lines[end - 1])) end--;
    lines.splice(first, end - first, toYaml({ inputs }));
    text = area.value = lines.join("\n");
    changed();
    view.draw();
  }

  const submit = () => view.try(async () => {
    try {
      if (schedule) { await sendYaml("PUT", "/scheduled-jobs/" + seg(schedule), text); drop(); location.hash = "/schedules"; return; }
      const made = await sendYaml("POST", path(), text);
      drop();
      location.hash = scheduled() ? "/schedules" : "/jobs/" + made.id;
    } catch (error) {
      if (!(error instanceof Refused) || !error.faults.length) throw error;
      faults = error.faults; said = faults.length === 1 ? "1 fault" : faults.length + " faults";
      view.draw(); paint(); go(faults[0]);
    }
  });
  const drop = () => { try { localStorage.removeItem(draft); } catch { /* nothing was kept */ } };

  function go(fault) {
    if (!fault.line) { area.focus(); return; }
    const lines = text.split("\n");
    const at = lines.slice(0, fault.line - 1).join("\n").length + (fault.line > 1 ? 1 : 0) + (fault.column || 1) - 1;
    area.focus();
    area.setSelectionRange(at, at);
    area.parentElement.parentElement.scrollTop = Math.max(0, (fault.line - 5) * 20);
  }

  // --- the text, coloured, with what is wrong under its lines

  function paint() {
    if (!area) return;
    const lines = text.split("\n");
    const byLine = new Map();
    for (const fault of faults) if (fault.line) byLine.set(Math.min(fault.line, lines.length), [...(byLine.get(fault.line) || []), fault]);
    back.replaceChildren(...lines.map((line, n) => {
      const row = document.createElement("div");
      row.className = "codeline";
      const wrong = byLine.get(n + 1);
      if (wrong) row.classList.add("wrong");
      colour(row, line);
      if (!line) row.append("\u200b");
      if (wrong) {
        const note = document.createElement("span");
        note.className = "faultnote";
        note.textContent = "◂ " + wrong.map((fault) => fault.message).join("; ");
        row.append(note);
      }
      return row;
    }));
    area.style.height = lines.length * 20 + 24 + "px";
    area.style.width = Math.max(...lines.map((line) => line.length)) + 4 + "ch";
  }

  function colour(row, line) {
    const put = (text, kind) => { if (!text) return; if (!text.trim()) { row.append(text); return; } const span = document.createElement("span"); if (kind) span.className = kind; span.textContent = text; row.append(span); };
    const comment = /^(\s*)(#.*)$/.exec(line);
    if (comment) { put(comment[1]); put(comment[2], "y-comment"); return; }
    const key = /^(\s*(?:- +)*)([\w.-]+|"[^"]*")(:)(?=\s|$)(.*)$/.exec(line);
    let rest = line;
    if (key) { row.append(key[1]); put(key[2], "y-key"); put(":"); rest = key[4]; }
    const lead = /^\s*/.exec(rest)[0];
    if (lead) { row.append(lead); rest = rest.slice(lead.length); }
    let at = 0;
    for (const found of rest.matchAll(/\{\{.*?\}\}|"(?:[^"\\]|\\.)*"|'[^']*'|(?<=^|\s)#.*$|(?<=^\s*)-(?=\s)/g)) {
      put(rest.slice(at, found.index));
      put(found[0], found[0].startsWith("{{") ? "y-expr" : found[0][0] === "#" ? "y-comment" : found[0] === "-" ? "" : "y-text");
      at = found.index + found[0].length;
    }
    put(rest.slice(at));
  }

  // --- what may stand here

  const resolve = (node) => { for (let n = 0; node && n < 9; n++) { if (node.$ref) node = schema.$defs[node.$ref.split("/").at(-1)]; else if (node.anyOf) node = node.anyOf.find((one) => one.$ref) || node.anyOf.find((one) => one.type !== "null"); else break; } return node; };

  /** Returns the schema of what encloses the line of the caret, by the indentation of the lines above. */
  function place(lines, n, indent) {
    const names = [];
    let limit = indent;
    for (let at = n - 1; at >= 0 && limit > 0; at--) {
      const found = /^(\s*(?:- +)*)([\w.-]+):/.exec(lines[at]);
      if (!found) continue;
      const deep = found[1].length, dash = found[1].includes("-") ? lines[at].search(/\S/) : -1;
      if (deep < limit) { names.unshift(found[2]); limit = deep; }
      if (dash >= 0 && dash < limit) limit = dash + 0.5;
    }
    let node = resolve(schema);
    for (const name of names) {
      node = resolve(node && (node.properties ? node.properties[name] : node.additionalProperties));
      if (node && node.items) node = resolve(node.items);
    }
    return node;
  }

  function suggest() {
    const before = text.slice(0, area.selectionStart);
    const lines = text.split("\n"), n = before.split("\n").length - 1;
    const start = before.split("\n").at(-1);
    const word = /^(\s*(?:- +)*)([\w-]*)$/.exec(start);
    menu = null;
    const node = schema && place(lines, n, (NAMED.exec(lines[n]) || word || [, ""])[1].length);
    hint = explain(lines, n);
    if (word && word[2] && node && node.properties) {
      const found = Object.keys(node.properties).filter((name) => name.startsWith(word[2]) && name !== word[2]).slice(0, 8);
      if (found.length) menu = { names: found, at: 0, word: word[2], node };
    }
    view.draw();
  }
  const NAMED = /^(\s*(?:- +)*)([\w-]+):/;
  /** What the language says of the field in this line. */
  function explain(lines, n) {
    const named = NAMED.exec(lines[n] || "");
    const node = named && schema && place(lines, n, named[1].length);
    return node && node.properties && node.properties[named[2]] ? named[2] + ": " + resolveText(node.properties[named[2]]) : "";
  }
  function hover(event) {
    const told = explain(text.split("\n"), Math.floor(event.offsetY / 20));
    if (told && told !== hint) { hint = told; view.draw(); }
  }
  const resolveText = (node) => node.description || (resolve(node) || {}).description || "";

  function take(name) {
    const at = area.selectionStart;
    const inner = resolve(menu.node.properties[name]);
    const kind = inner && [].concat(inner.type || []);
    const tail = kind && (kind.includes("object") || kind.includes("array")) ? ":" : ": ";
    area.setRangeText(name.slice(menu.word.length) + tail, at, at, "end");
    menu = null;
    typed();
    area.focus();
  }

  function keys(event) {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") { event.preventDefault(); submit(); return; }
    if (menu) {
      const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (move) { event.preventDefault(); menu.at = (menu.at + move + menu.names.length) % menu.names.length; view.draw(); return; }
      if (event.key === "Enter" || event.key === "Tab") { event.preventDefault(); take(menu.names[menu.at]); return; }
      if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); menu = null; view.draw(); return; }
    }
    if (event.key === "Escape") { leaving = true; return; }
    if (event.key === "Tab" && !leaving && !event.shiftKey) { event.preventDefault(); area.setRangeText("  ", area.selectionStart, area.selectionEnd, "end"); typed(); return; }
    if (event.key === "Enter") {
      const line = area.value.slice(0, area.selectionStart).split("\n").at(-1);
      const indent = /^\s*(?:- )?/.exec(line)[0].replace("-", " ") + (/:\s*$/.test(line) || /:\s*[|>]-?$/.test(line) ? "  " : "");
      if (indent) { event.preventDefault(); area.setRangeText("\n" + indent, area.selectionStart, area.selectionEnd, "end"); typed(); return; }
    }
    leaving = false;
  }
  let leaving = false;

  function draw() {
    if (!ready) return [h("p", { class: "soft", key: "wait" }, "Loading…")];
    const isSchedule = schedule || scheduled();
    return [
      h("div", { class: "title", key: "title" }, h("h1", {}, schedule ? "Edit schedule" : "New job"), h("span", { class: "grow" }),
        schedule ? null : h("label", { class: "toggle" }, "Start from ", h("select", { "aria-label": "Start from an example", onchange: (event) => { const one = EXAMPLES.find((each) => each.name === event.target.value); event.target.value = ""; if (one) { area.value = one.text; typed(); } } },
          h("option", { value: "" }, "an example…"), EXAMPLES.map((one) => h("option", { key: one.name, value: one.name }, one.name)))),
        h("button", { type: "button", class: "main", onclick: submit, title: "Ctrl+Enter" }, schedule ? "Save" : isSchedule ? "Add schedule" : "Run")),
      h("div", { class: "editing", key: "editing" }, h("div", { class: "editor card", key: "editor" }, h("div", { class: "codebox" },
        h("div", { class: "numbers", "aria-hidden": "true" }, text.split("\n").map((_, n) => h("div", { key: n, class: faults.some((fault) => fault.line === n + 1) ? "wrong" : null }, String(n + 1)))),
        h("div", { class: "codeback" },
          h("div", { own: true, class: "codelines", "aria-hidden": "true", made: (el) => { back = el; } }),
          h("textarea", { own: true, class: "codearea", spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off", "aria-label": "Job in YAML", "aria-describedby": "faults", "aria-autocomplete": "list", "aria-controls": menu ? "completions" : null, "aria-activedescendant": menu ? "completion" + menu.at : null, oninput: typed, onkeydown: keys, onclick: () => suggest(), onmousemove: hover,
            made: (el) => { area = el; el.value = text; requestAnimationFrame(paint); } }),
          menu ? h("ul", { class: "menu", key: "menu", id: "completions", role: "listbox", "aria-label": "What may stand here", place: caret() }, menu.names.map((name, at) =>
            h("li", { key: name, id: "completion" + at, role: "option", "aria-selected": String(at === menu.at), onmousedown: (event) => { event.preventDefault(); take(name); } }, h("code", {}, name), h("span", { class: "soft" }, resolveText(menu.node.properties[name]).slice(0, 90))))) : null))),
        Object.keys(inputs).length ? h("form", { class: "card form", key: "inputs", onsubmit: (event) => { event.preventDefault(); submit(); } }, h("h2", {}, "Inputs"),
          Object.entries(inputs).map(([name, value]) => h("label", { key: name, class: "field" }, h("span", {}, name), h("input", { value, autocomplete: "off", oninput: (event) => setInput(name, event.target.value) })))) : null),
      h("div", { class: "editorfoot", key: "foot" }, h("div", { class: "soft hint" }, hint || "Tab indents; Esc, then Tab leaves. Ctrl+Enter runs it."),
        h("div", { id: "faults", role: "status", "aria-live": "polite" }, h("span", { class: faults.length ? "bad" : "soft" }, said),
          faults.length ? h("ul", { class: "faults" }, faults.slice(0, 50).map((fault, at) => h("li", { key: at }, h("button", { type: "button", class: "quiet", onclick: () => go(fault) }, fault.line ? `line ${fault.line}${fault.column ? ", column " + fault.column : ""}` : "the document"), " ", fault.path ? h("code", {}, fault.path) : null, " ", fault.message))) : null)),
    ];
  }

  function caret() {
    const before = text.slice(0, area.selectionStart).split("\n");
    return { left: 10 + (before.at(-1).length - menu.word.length) + "ch", top: before.length * 20 + 14 + "px" };
  }

  return { title: schedule ? "Edit schedule" : "New job", load, draw, close: () => clearTimeout(timer) };
}

function withoutSecrets(job) {
  if (job.secrets) job = { ...job, secrets: Object.fromEntries(Object.keys(job.secrets).map((name) => [name, ""])) };
  return job;
}
function ofSchedule(schedule) {
  const { cron, timezone, at, overlap, catchup } = schedule;
  const found = submitted(schedule);
  const when = {};
  for (const [name, value] of Object.entries({ cron, at, timezone, overlap, catchup })) if (value) when[name] = value;
  return { ...found, schedule: when };
}
