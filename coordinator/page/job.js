/* One job: what became of it first, then its steps on one axis, and the log of the chosen step. */
import { tidy } from "./ansi.js";
import { h } from "./dom.js";
import { ask, drop, post, put, seg } from "./api.js";
import { ago, bytes, count, duration, endOf, exact, isOver, lasted, mark, now, sentence, stated, toYaml, when } from "./format.js";
import { LogView } from "./log.js";

const MANY = 50; // children of a composite from which on they are cells
const CELLS = 200;
const SOON = 1000;

export function jobView(view, id, query, lineNumber) {
  let job = null, why = null, top = [], log = null, logOf = "", tab = query.get("tab") || "log";
  let chosen = query.get("task") || "", picked = !!chosen, text = "", deleted = false, line = lineNumber;
  const kids = new Map(); // task or sub-job → {items, total, size, state}
  const open = new Map(); // task → whether its children are shown

  const over = () => job && isOver(job);

  async function load(options) {
    const [found, steps] = await Promise.all([
      ask(`/jobs/${seg(id)}?execution=false`, options), topOf(id, options)]);
    if (job && job.state !== found.state) view.say(`${found.name}: ${found.state.toLowerCase()}`);
    job = found; top = attempts(steps.items);
    id = job.id;
    const explained = async () => { why = job.state === "FAILED" || job.waiting ? await ask(`/jobs/${seg(id)}/why`, options) : null; view.draw(); };
    const asked = explained();
    view.draw();
    await Promise.all([reveal(options).then(settle), ...top.filter(isParent).map((step) => kidsOf(step, options))]);
    await Promise.all([...open].filter(([, is]) => is).map(([task]) => {
      const step = byId(task);
      return step && !top.includes(step) && isParent(step) ? kidsOf(step, options) : null;
    }));
    await asked;
    settle(true);
    view.draw();
  }

  /** Chooses what one looks for; before all is there only what is sure: the step that failed. */
  function settle(all) {
    if (picked && byId(chosen)) openLog();
    else if (all === true || (innermost() && !isParent(innermost()))) choose(first());
    view.draw();
  }

  /** Fetches the failed task where it is not among what is shown, so that it can be chosen. */
  async function reveal(options) {
    const wanted = picked && chosen ? chosen : job.failedTask && job.failedTask.id;
    if (!wanted || byId(wanted)) return;
    const found = await ask("/tasks/" + seg(wanted), options).catch(() => null);
    if (found && found.jobId === job.id) extra = asStep(found);
  }
  let extra = null;

  async function kidsOf(step, options) {
    const had = kids.get(step.id) || { size: CELLS, state: "" };
    const inner = step.subjob ? step.subjob.id : "";
    if (step.subjob && !inner) return;
    if (inner && !isShown(step)) return;
    const path = `/jobs/${seg(step.jobId)}/tasks?parentId=${seg(step.id)}&order=failed&size=${had.size}` + (had.state ? "&state=" + had.state : "");
    const found = inner ? await topOf(inner, options) : await ask(path, options);
    const items = attempts(found.items);
    kids.set(step.id, { ...had, items, total: found.totalItems });
    await Promise.all(items.filter((one) => isParent(one) && (!one.subjob || isShown(one)) && items.length <= MANY).map((one) => kidsOf(one, options)));
  }

  const isParent = (step) => !!(step.parallel || step.each || step.subjob);
  const isShown = (step) => open.get(step.id) ?? (!step.subjob || step.state === "FAILED");

  function byId(task) {
    const look = (steps) => {
      for (const step of steps) {
        if (step.tries.some((one) => one.id === task)) return step;
        const inner = kids.get(step.id) && look(kids.get(step.id).items);
        if (inner) return inner;
      }
      return null;
    };
    return task ? look(top) || (extra && extra.id === task ? extra : null) : null;
  }

  /** The step to show at first: the failed one, the running one, else the last that ran. */
  function first() {
    const failed = innermost();
    if (failed) return failed.id;
    const all = [];
    const gather = (steps) => { for (const step of steps) { all.push(step); if (kids.get(step.id)) gather(kids.get(step.id).items); } };
    gather(top);
    const leaves = all.filter((step) => !isParent(step));
    const found = leaves.find((step) => step.state === "FAILED") || leaves.find((step) => step.state === "RUNNING") || leaves.filter((step) => step.startedAt).at(-1) || leaves[0] || all[0];
    return found ? found.id : "";
  }

  /** The step that failed, inside of all sub-jobs that failed by it; null where none did. */
  function innermost() {
    let step = job.failedTask && byId(job.failedTask.id);
    for (let inner = step; inner; step = inner || step) {
      inner = isParent(step) && kids.get(step.id) && kids.get(step.id).items.find((one) => one.state === "FAILED");
    }
    return step || null;
  }

  function choose(task) {
    if (task === chosen && (log || !task)) return;
    chosen = task;
    openLog();
  }

  function openLog() {
    const step = byId(chosen);
    if (logOf === chosen && log) return;
    if (log) { log.close(); log = null; }
    logOf = chosen;
    if (!chosen || !step || isParent(step)) return;
    const at = (n) => `#/jobs/${seg(id)}?task=${seg(chosen)}#L${n}`;
    const nothing = () => { const now = byId(logOf), one = now && now.tries.find((each) => each.id === logOf); return one && !one.startedAt ? "It did not start." : "It printed nothing."; };
    log = new LogView("/tasks/" + seg(chosen), { nothing, download: `/jobs/${seg(step.jobId)}/log/download`, at, line, place: view.place });
    line = 0;
  }

  function pick(task) {
    picked = true;
    if (tab !== "log" && tab !== "details" && tab !== "result") tab = "log";
    choose(task);
    view.place(`#/jobs/${seg(id)}?task=${seg(task)}`);
    view.draw();
  }

  function hear(event) {
    if (deleted) return;
    if (!job) { if (event.jobId.startsWith(id)) view.soon(SOON); return; }
    const own = event.jobId === job.id;
    if (own && !event.taskId && event.state !== job.state) view.now();
    else if (own || (!over() && [...kids.values()].some((kid) => kid.items.some((step) => step.jobId === event.jobId)))) view.soon(SOON);
  }

  const { act } = view;

  // --- drawing

  function draw() {
    if (!job) return [h("p", { class: "soft", key: "wait" }, "Loading…")];
    return [
      h("nav", { class: "crumbs", key: "crumbs", "aria-label": "Where this is" }, h("a", { href: "#/" }, "Jobs"), " / ",
        job.parentId ? h("span", {}, h("a", { href: "#/tasks/" + seg(job.parentId) }, "the job above"), " / ") : null, h("span", {}, job.name)),
      head(), banner(),
      h("div", { class: "two", key: "two" }, steps(), side()),
    ];
  }

  function head() {
    const verb = { COMPLETED: "completed", FAILED: "failed", CANCELLED: "cancelled", RUNNING: "running", SCHEDULED: "scheduled", PENDING: "pending" }[job.state] || job.state.toLowerCase();
    const took = job.startedAt ? lasted((endOf(job) - Date.parse(job.startedAt)) / 1000) : "";
    return h("div", { class: "title", key: "head" },
      h("h1", {}, mark(job.state, { word: false }), " ", job.name),
      h("span", { class: "soft facts" }, verb, took ? (over() ? " after " : " for ") + took : "", " · ",
        when(job.startedAt || job.createdAt, (job.startedAt ? "started " : "created ") + ago(job.startedAt || job.createdAt)), job.createdBy ? " by " + job.createdBy.username : "",
        (job.tags || []).map((tag) => h("a", { class: "tag", href: "#/?tag=" + seg(tag) }, tag)),
        job.rerunOf ? h("span", {}, " · ", h("a", { href: "#/jobs/" + seg(job.rerunOf) }, "run again from another job")) : null),
      h("span", { class: "grow" }),
      h("div", { class: "actions" },
        over() ? null : h("button", { key: "cancel", type: "button", class: "danger", onclick: act(() => put(`/jobs/${seg(id)}/cancel`)) }, "Cancel"),
        over() ? h("button", { key: "delete", type: "button", class: "danger", onclick: remove }, armed ? "Really delete" : "Delete") : null,
        h("a", { key: "again", class: "button", href: `#/jobs/${seg(id)}/rerun` }, "Run again…"),
        job.state === "FAILED" || job.state === "CANCELLED" ? h("button", { key: "restart", type: "button", class: "main", onclick: act(() => { picked = false; return put(`/jobs/${seg(id)}/restart`); }) }, restartWord()) : null));
  }
  let armed = false;
  const remove = () => {
    if (!armed) { armed = true; view.draw(); setTimeout(() => { armed = false; view.draw(); }, 4000); return; }
    view.try(async () => { deleted = true; await drop(`/jobs/${seg(id)}`); view.tell("Deleted."); location.hash = "/"; });
  };
  function restartWord() {
    const step = top.find((one) => one.position === job.position);
    return step ? `Restart from “${step.name}”` : "Restart";
  }

  function banner() {
    if (job.state === "FAILED") {
      const deep = innermost(), task = deep || job.failedTask;
      const [headline, ...printed] = tidy(stated(job).trimEnd()).split("\n");
      const tried = deep ? deep.attempt : why && why.attempts;
      const facts = [headline, tried > 1 && `after ${tried} attempts`, deep && deep.jobId !== job.id && "in the sub-job of " + job.failedTask.name].filter(Boolean);
      if (why && why.lastLine && !(job.error || "").includes(why.lastLine)) printed.push(tidy(why.lastLine));
      return h("div", { class: "banner bad", key: "banner", role: "status" },
        h("strong", {}, "Failed", task ? [" at ", h("a", { href: `#/jobs/${seg(id)}?task=${seg(task.id)}`, onclick: (event) => { event.preventDefault(); pick(task.id); } }, task.name)] : null),
        facts.length ? " — " + facts.join(", ") : null,
        printed.length ? h("pre", {}, lastLines(printed.join("\n"), 4)) : null);
    }
    if (!over() && job.waiting) {
      const wait = job.waiting;
      return h("div", { class: "banner wait", key: "banner", role: "status" }, h("strong", {}, "Waiting: "), sentence((why && why.message) || wait.message),
        wait.until ? [" · goes on ", when(wait.until)] : null, wait.since ? [" · since ", when(wait.since)] : null,
        h("div", { class: "soft" }, { noWorker: h("span", {}, "Start one with ", h("code", {}, `haulier run worker --queue ${wait.queue}=1`), ", or look at the ", h("a", { href: "#/workers" }, "workers"), "."),
          busy: h("span", {}, "It runs as soon as a slot is free: ", h("a", { href: "#/workers" }, "workers"), "."),
          broker: "It goes on by itself as soon as the broker answers." }[wait.reason]));
    }
    if (job.state === "COMPLETED" && job.result) return h("div", { class: "banner good", key: "banner" }, h("strong", {}, "Result "), h("pre", {}, lastLines(job.result, 4)));
    return null;
  }

  // --- the steps

  function axis() {
    const times = [job.startedAt, ...top.flatMap((step) => step.tries.map((one) => one.startedAt))].filter(Boolean).map(Date.parse);
    const from = Math.min(...times, Date.parse(job.startedAt || job.createdAt));
    const to = Math.max(over() ? endOf(job) : now(), from + 1);
    return { from, wide: to - from };
  }

  function steps() {
    const scale = axis();
    const rows = top.flatMap((step) => branch(step, scale, 0));
    const reached = new Set(top.map((step) => step.position));
    (job.tasks || []).forEach((task, at) => {
      if (!reached.has(at + 1)) rows.push(h("li", { key: "p" + at, class: "step never" }, h("span", { class: "stepline" },
        h("span", { class: "icon", "aria-hidden": "true" }, "·"), h("span", { class: "stepname" }, task.name || `task ${at + 1}`), h("span", { class: "bars" }), h("span", { class: "took" }, "not run"))));
    });
    return h("section", { class: "steps card", key: "steps", "aria-label": "Steps" },
      job.startedAt ? h("div", { class: "stepline axis", "aria-hidden": "true" }, h("span", {}), h("span", {}), h("span", { class: "ends" }, h("span", {}, "0"), h("span", {}, lasted(scale.wide / 1000))), h("span", {})) : null,
      h("ul", {}, rows));
  }

  function branch(step, scale, depth) {
    const rows = [row(step, scale, depth)];
    if (!isParent(step) || !isShown(step)) return rows;
    const inner = kids.get(step.id);
    if (!inner) return rows;
    const number = step.each ? step.each.size ?? inner.total : inner.total;
    if (number <= MANY && !inner.state) return [...rows, ...inner.items.flatMap((one) => branch(one, scale, depth + 1))];
    const bad = inner.items.filter((one) => one.state === "FAILED").slice(0, 10);
    return [...rows, cells(step, inner, depth), ...bad.flatMap((one) => branch(one, scale, depth + 1))];
  }

  function row(step, scale, depth) {
    const parent = isParent(step);
    const lost = step.tries.reduce((sum, one) => sum + (one.runs || []).length, 0);
    return h("li", { key: step.path + "/" + step.jobId, class: "step" + (step.tries.some((one) => one.id === chosen) ? " chosen" : "") },
      parent ? h("button", { type: "button", class: "twist", place: { left: depth * 1.1 + "rem" }, "aria-expanded": String(isShown(step)), "aria-label": "Children of " + step.name, onclick: () => { open.set(step.id, !isShown(step)); view.anew(); view.draw(); } }, isShown(step) ? "▾" : "▸") : null,
      h("button", { type: "button", class: "stepline", place: { paddingLeft: depth * 1.1 + 1.5 + "rem" }, "aria-current": step.tries.some((one) => one.id === chosen) ? "true" : null, onclick: () => pick(step.id) },
        mark(step.state, { word: false }),
        h("span", { class: "stepname" }, h("span", { class: "word" }, step.name), step.tries.length > 1 ? h("span", { class: "soft times" }, " ×" + step.tries.length) : null,
          lost ? h("span", { class: "lost", title: step.tries.flatMap((one) => one.runs || []).map((run) => run.why).join("\n") }, " " + count(lost, "lost run")) : null,
          step.counts ? h("span", { class: "soft times" }, " " + tally(step)) : null),
        h("span", { class: "bars", "aria-hidden": "true" }, bars(step, scale)),
        h("span", { class: "took" }, step.waiting ? step.waiting.reason === "noWorker" ? "no worker" : "waiting" : duration(step) || "not run")));
  }

  function tally(step) {
    const done = (step.counts.COMPLETED || 0) + (step.counts.SKIPPED || 0);
    const all = step.each ? step.each.size : step.parallel.tasks.length;
    return (step.counts.FAILED ? `${step.counts.FAILED} failed · ` : "") + `${done}/${all ?? "?"}`;
  }

  function bars(step, scale) {
    const part = (from, to, kind, key) => h("span", { key, class: "bar " + kind, place: {
      left: Math.max(0, (from - scale.from) / scale.wide * 100) + "%", width: Math.max(0.6, (to - from) / scale.wide * 100) + "%" } });
    return step.tries.flatMap((one) => [
      ...(one.runs || []).filter((run) => run.startedAt).map((run) => part(Date.parse(run.startedAt), Date.parse(run.endedAt || run.startedAt), "lostrun", one.id + "r" + run.number)),
      one.startedAt ? part(Date.parse(one.startedAt), endOf(one), one.state.toLowerCase(), one.id) : null]).filter(Boolean);
  }

  function cells(step, inner, depth) {
    const show = (what) => { kids.set(step.id, { ...inner, ...what }); view.anew(); };
    return h("li", { key: "cells" + step.id, class: "cellsrow", place: { paddingLeft: depth * 1.1 + 1.5 + "rem" } },
      h("div", { class: "chips" }, Object.entries(step.counts || {}).sort(([a], [b]) => (b === "FAILED") - (a === "FAILED")).map(([state, number]) =>
        h("button", { key: state, type: "button", class: "chip", "aria-pressed": String(inner.state === state), onclick: () => show({ state: inner.state === state ? "" : state, size: CELLS }) }, mark(state), h("span", { class: "number" }, number)))),
      h("div", { class: "cells" }, inner.items.map((one) => h("button", { key: one.path, type: "button", class: "cell " + one.state.toLowerCase() + (one.id === chosen ? " chosen" : ""), title: one.name + " · " + one.state.toLowerCase(), "aria-label": one.name + ", " + one.state.toLowerCase(), onclick: () => pick(one.id) }))),
      inner.items.length < inner.total ? h("div", { class: "soft" }, `${inner.items.length} of ${inner.total} shown `, inner.size < 1000 ? h("button", { type: "button", class: "quiet", onclick: () => show({ size: 1000 }) }, "show more") : null) : null);
  }

  // --- beside the steps

  function side() {
    const step = byId(chosen);
    const names = [["log", "Log"], ["details", "Details"], ["result", "Result"], ["yaml", "YAML"]];
    const turn = (by) => { const at = names.findIndex(([name]) => name === tab); tab = names[(at + by + names.length) % names.length][0]; view.draw(); document.getElementById("tab-" + tab)?.focus(); };
    return h("section", { class: "side", key: "side", "aria-label": "The chosen step" },
      h("div", { class: "sidehead", key: "sidehead" },
        h("h2", {}, step ? step.name : "No step yet"),
        step ? h("span", { class: "soft" }, facts(step)) : null, h("span", { class: "grow" }),
        step && step.tries.length > 1 ? h("span", { class: "tries" }, step.tries.map((one) => h("button", { key: one.id, type: "button", class: "chip", "aria-pressed": String(one.id === chosen), title: "Attempt " + one.attempt, onclick: () => pick(one.id) }, mark(one.state, { word: false }), String(one.attempt || 1)))) : null),
      h("div", { class: "tabs", role: "tablist", key: "tabs", onkeydown: (event) => { if (event.key === "ArrowRight") turn(1); if (event.key === "ArrowLeft") turn(-1); } }, names.map(([name, label]) =>
        h("button", { key: name, id: "tab-" + name, type: "button", role: "tab", "aria-selected": String(tab === name), "aria-controls": "tabpanel", tabindex: tab === name ? "0" : "-1", onclick: () => { tab = name; view.draw(); } }, label))),
      h("div", { class: "panel", id: "tabpanel", role: "tabpanel", "aria-labelledby": "tab-" + tab, key: "panel-" + tab + (tab === "log" ? logOf : "") }, panel(step)));
  }

  function facts(step) {
    const one = step.tries.find((each) => each.id === chosen) || step;
    return [one.exitCode !== undefined && "exit " + one.exitCode, duration(one), one.usage && one.usage.peakMemoryBytes && bytes(one.usage.peakMemoryBytes), one.queue && "queue " + one.queue].filter(Boolean).join(" · ");
  }

  function panel(step) {
    const one = step && (step.tries.find((each) => each.id === chosen) || step);
    if (tab === "yaml") return h("pre", { class: "code card", tabindex: "0" }, toYaml(submitted(job)));
    if (!one) return h("p", { class: "soft" }, "Nothing has begun.");
    if (tab === "log") {
      if (!log) return h("p", { class: "soft" }, isParent(one) ? "Choose one of the steps inside it to see its log." : "No log.");
      return h("div", { key: "log" + logOf, own: true, class: "loghost", made: (el) => el.replaceChildren(log.element) });
    }
    if (tab === "result") return one.result || job.result
      ? [one.result ? [h("h3", {}, "Of this step"), h("pre", { class: "code card", tabindex: "0" }, one.result)] : null, job.result ? [h("h3", {}, "Of the job"), h("pre", { class: "code card", tabindex: "0" }, job.result)] : null]
      : h("p", { class: "soft" }, "No result.");
    return details(one);
  }

  const moment = (at) => at && when(at, exact(at));

  function details(one) {
    const pairs = [["State", mark(one.state)], ["Error", one.error && h("pre", {}, lastLines(one.error, 30))], ["Waits", one.waiting && sentence(one.waiting.message)],
      ["Image", one.image], ["Queue", one.queue], ["Node", one.nodeId && h("a", { href: "#/workers" }, one.nodeId)],
      ["Exit code", one.exitCode], ["Attempt", one.attempt && `${one.attempt}` + (one.retry ? ` of ${one.retry.limit + 1}` : "")],
      ["CPU", one.usage && lasted(one.usage.cpuSeconds)], ["Peak memory", one.usage && bytes(one.usage.peakMemoryBytes)],
      ["Created", moment(one.createdAt)], ["Started", moment(one.startedAt)], ["Ended", moment(one.completedAt || one.failedAt)],
      ["Timeout", one.timeout], ["Sub-job", one.subjob && one.subjob.id && h("a", { href: "#/jobs/" + seg(one.subjob.id) }, one.subjob.name || one.subjob.id)],
      ["Lost runs", one.runs && h("ul", {}, one.runs.map((run) => h("li", { key: run.number }, `run ${run.number} on ${run.nodeId || "?"}: ${run.why || "lost"}`)))],
      ["Log", one.logIncomplete && "some of it was lost"], ["Id", h("code", {}, one.id)]];
    return h("div", { class: "details" },
      h("dl", {}, pairs.filter(([, value]) => value || value === 0).map(([name, value]) => h("div", { key: name }, h("dt", {}, name), h("dd", {}, value)))),
      one.run ? [h("h3", {}, "Script"), h("pre", { class: "code card", tabindex: "0" }, one.run)] : null,
      one.cmd ? [h("h3", {}, "Command"), h("pre", { class: "code card", tabindex: "0" }, one.cmd.join(" "))] : null,
      one.env ? [h("h3", {}, "Environment"), h("pre", { class: "code card", tabindex: "0" }, Object.entries(one.env).map(([name, value]) => name + "=" + value).join("\n"))] : null);
  }

  return {
    get title() { return job ? `${job.state === "FAILED" ? "✕ " : job.state === "COMPLETED" ? "✓ " : ""}${job.name}` : "Job"; },
    load, draw, hear,
    changes: () => !over(),
    ticks: () => job && !over(),
    find: () => log && log.find.focus(),
    line: (number) => log && log.goTo(number),
    close: () => { if (log) log.close(); },
  };
}

const lastLines = (text, most) => tidy(text).trimEnd().split("\n").slice(-most).map((one) => one.slice(0, 2000)).join("\n");

/** What of a job was submitted, in the order in which one writes it. */
export function submitted(job) {
  const found = {};
  for (const name of ["name", "description", "tags", "inputs", "secrets", "defaults", "tasks", "output", "autoDelete", "webhooks", "permissions"]) if (job[name] !== undefined) found[name] = job[name];
  return found;
}

/** Asks for all tasks of a job that are in no other one. */
async function topOf(job, options) {
  const path = `/jobs/${seg(job)}/tasks?parentId=none&size=1000&page=`, found = await ask(path + 1, options);
  for (let page = 2; page <= found.totalPages; page++) found.items.push(...(await ask(path + page, options)).items);
  return found;
}

const asStep = (task) => ({ ...task, tries: [task] });

/** Steps out of attempts: those at the same place of a job are one step, the newest attempt is how it stands. */
function attempts(tasks) {
  const places = new Map();
  for (const task of tasks) {
    const place = task.path || task.id;
    if (!places.has(place)) places.set(place, []);
    places.get(place).push(task);
  }
  return [...places.values()].map((tries) => {
    tries.sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
    return { ...tries.at(-1), tries };
  });
}

// --- run again

/** Runs a job again: other inputs, from another step, with a preview of what is kept and what runs. */
export function rerunView(view, id) {
  let job = null, plan = null, problem = "";
  let from = new URLSearchParams(location.hash.split("?")[1] || "").get("from") || "";
  const inputs = {}, secrets = {};
  const wanted = () => ({ ...(Object.keys(inputs).length ? { inputs } : {}), ...(Object.keys(secrets).length ? { secrets } : {}), ...(from ? { from: Number(from) } : {}) });
  async function load(options) {
    job ||= await ask(`/jobs/${seg(id)}?execution=false`, options);
    try { plan = await post(`/jobs/${seg(id)}/rerun`, { ...wanted(), dryRun: true }, options); problem = ""; }
    catch (error) { if (!(error.status < 500)) throw error; plan = null; problem = error.message; }
  }
  const go = () => view.try(async () => { const made = await post(`/jobs/${seg(id)}/rerun`, wanted()); location.hash = "/jobs/" + made.id; });
  function draw() {
    if (!job) return [h("p", { class: "soft", key: "wait" }, "Loading…")];
    const field = (name, value, into, kind) => h("label", { key: kind + name, class: "field" }, h("span", {}, name),
      h("input", { type: kind === "secret" ? "password" : "text", autocomplete: "off", value: into[name] ?? value, placeholder: kind === "secret" ? "as before" : null, oninput: (event) => { if (event.target.value === value) delete into[name]; else into[name] = event.target.value; view.soon(200); } }));
    return [
      h("nav", { class: "crumbs", key: "crumbs", "aria-label": "Where this is" }, h("a", { href: "#/" }, "Jobs"), " / ", h("a", { href: "#/jobs/" + seg(id) }, job.name), " / run again"),
      h("div", { class: "title", key: "head" }, h("h1", {}, "Run again"), h("span", { class: "grow" }),
        h("a", { class: "button", href: "#/new?from=" + seg(id) }, "Edit as a new job"), h("button", { type: "button", class: "main", disabled: !plan, onclick: go }, "Run")),
      h("div", { class: "two even", key: "two" },
        h("form", { class: "card form", onsubmit: (event) => { event.preventDefault(); if (plan) go(); } },
          h("h2", {}, "Inputs"),
          Object.keys(job.inputs || {}).length ? Object.entries(job.inputs).map(([name, value]) => field(name, value, inputs, "input")) : h("p", { class: "soft" }, "This job takes no inputs."),
          job.secrets ? [h("h2", {}, "Secrets"), Object.keys(job.secrets).map((name) => field(name, "", secrets, "secret"))] : null,
          h("h2", {}, "Begin"),
          h("label", { class: "field" }, h("span", {}, "from"), h("select", { value: from, onchange: (event) => { from = event.target.value; view.anew(); } },
            h("option", { value: "", selected: !from }, "the beginning"), job.tasks.slice(1).map((task, at) => h("option", { key: at, value: String(at + 2), selected: from === String(at + 2) }, `step ${at + 2}: ${task.name || "task " + (at + 2)}`))))),
        h("section", { class: "card form", "aria-live": "polite" }, h("h2", {}, "What will happen"),
          problem ? h("p", { class: "bad", role: "alert" }, problem) : null,
          plan ? h("ul", { class: "plan" },
            plan.kept.map((step) => h("li", { key: "k" + step.position }, h("span", { class: "mark completed" }, "✓ kept"), h("span", {}, step.name), h("span", { class: "soft" }, step.reason))),
            plan.run.map((step) => h("li", { key: "r" + step.position }, h("span", { class: "mark running" }, "▶ runs"), h("span", {}, step.name), h("span", { class: "soft" }, step.reason)))) : null)),
    ];
  }
  return { title: "Run again", load, draw };
}
