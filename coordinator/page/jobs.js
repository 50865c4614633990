/* The list of jobs. */
import { h } from "./dom.js";
import { ask, seg, sendYaml } from "./api.js";
import { cronWords, duration, isOver, lastLine, mark, pages, reason, sentence, when } from "./format.js";
import { EXAMPLES } from "./examples.js";

const STATES = ["RUNNING", "FAILED", "COMPLETED", "SCHEDULED", "PENDING", "CANCELLED"];
const SIZE = 20;
const SOON = 1500; // milliseconds that changes are gathered before the list is asked for again

/** A view: `load` asks, `draw` describes, `hear` takes events; `changes` says whether what it shows still can, `ticks` whether times go on. */
export function jobsView(view, query) {
  let page = null, counts = { states: {}, tags: {} }, grouped = false, loading = true;
  const asked = () => {
    const params = new URLSearchParams({ page: query.get("page") || "1", size: SIZE });
    for (const name of ["q", "state", "tag", "scheduleId"]) if (query.get(name)) params.set(name, query.get(name));
    if (!query.get("q") && !query.get("subjobs")) params.set("parentId", "none");
    return params;
  };
  const filtered = () => ["q", "state", "tag", "scheduleId"].some((name) => query.get(name)) || Number(query.get("page") || 1) > 1;

  async function load(options) {
    const params = asked(), same = params.has("parentId") ? "?parentId=none" : "";
    [page, counts] = await Promise.all([ask("/jobs?" + params, options), ask("/jobs/counts" + same, options)]);
    loading = false;
  }

  function hear(event) {
    if (event.taskId) return;
    const at = page ? page.items.findIndex((job) => job.id === event.jobId) : -1;
    if (at < 0) { if (!page || !event.parentId || query.get("q")) view.soon(SOON); return; }
    const had = page.items[at];
    const { type, jobId, at: moment, taskId, ...summary } = event;
    page.items[at] = { ...had, ...summary, waiting: summary.state === "SCHEDULED" ? had.waiting : undefined };
    view.draw();
    if (had.state !== event.state || view.asks()) view.soon(SOON); // an answer under way may be older than this
  }

  const change = (name, value) => {
    const next = new URLSearchParams(query);
    if (value && next.get(name) !== value) next.set(name, value); else next.delete(name);
    if (name !== "page") next.delete("page");
    for (const old of [...query.keys()]) query.delete(old);
    for (const [key, one] of next) query.set(key, one);
    view.place("#/" + (next.size ? "?" + next : ""));
    view.anew();
    view.draw();
  };

  let typing = null;
  const typed = (event) => {
    const text = event.target.value.trim();
    clearTimeout(typing);
    typing = setTimeout(() => { if ((query.get("q") || "") !== text) change("q", text); }, 250);
  };

  const chip = (name, value, label, number) => h("button", {
    key: name + value, type: "button", class: "chip", "aria-pressed": String(query.get(name) === value), onclick: () => change(name, value),
  }, label, number === undefined ? null : h("span", { class: "number" }, number >= 10000 ? "10,000+" : number));

  function draw() {
    const states = STATES.filter((state) => counts.states[state] || query.get("state") === state);
    const tags = Object.entries(counts.tags).slice(0, 8);
    return [
      h("div", { class: "title", key: "title" }, h("h1", {}, "Jobs"), h("span", { class: "grow" }),
        h("a", { class: "button main", href: "#/new" }, "New job")),
      h("div", { class: "filters", key: "filters" },
        h("input", { type: "search", id: "search", class: "search", placeholder: "Search names, tags, states", "aria-label": "Search jobs", value: query.get("q") || "", oninput: typed }),
        h("div", { class: "chips", role: "group", "aria-label": "Filters" },
          states.map((state) => chip("state", state, mark(state), counts.states[state] || 0)),
          tags.map(([tag, number]) => chip("tag", tag, "#" + tag, counts.tagsCapped && number < 10000 ? number + "+" : number)),
          query.get("scheduleId") ? chip("scheduleId", query.get("scheduleId"), "one schedule") : null,
          page && page.items.some((job) => job.schedule) ? h("button", { key: "group", type: "button", class: "chip", "aria-pressed": String(grouped), onclick: () => { grouped = !grouped; view.draw(); } }, "group by schedule") : null)),
      loading ? h("p", { key: "wait", class: "soft" }, "Loading…") : page.items.length ? list() : nothing(),
      pages(page, "job", (number) => change("page", number > 1 ? String(number) : "")),
    ];
  }

  function list() {
    if (!grouped) return h("ul", { class: "list card", key: "list" }, page.items.map(line));
    const groups = new Map();
    for (const job of page.items) {
      const key = job.schedule ? job.schedule.id : "";
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(job);
    }
    return h("div", { key: "groups" }, [...groups].map(([key, jobs]) => h("section", { key: "g" + key },
      h("h2", {}, key ? `${jobs[0].name} · ${cronWords(jobs[0].schedule.cron)}` : "Without a schedule"),
      h("ul", { class: "list card" }, jobs.map(line)))));
  }

  const nothing = () => (filtered()
    ? h("p", { class: "empty card", key: "none" }, "No job fits. ", h("button", { type: "button", onclick: () => { for (const name of [...query.keys()]) query.delete(name); change("page", ""); } }, "Show all jobs"))
    : h("div", { class: "empty card", key: "none" },
      h("h2", {}, "No jobs yet"), h("p", {}, "Run one of these to see what happens, or start from it:"),
      h("ul", { class: "examples" }, EXAMPLES.slice(0, 3).map((one) => h("li", { key: one.name },
        h("strong", {}, one.name), h("span", { class: "soft" }, one.about), h("span", { class: "grow" }),
        h("button", { type: "button", onclick: () => view.try(async () => { const made = await sendYaml("POST", "/jobs", one.text); location.hash = "/jobs/" + made.id; }) }, "Run"),
        h("a", { class: "button", href: "#/new?example=" + seg(one.name) }, "Edit")))),
      h("p", { class: "soft" }, "Or on the command line: ", h("code", {}, "haulier submit job.yaml"))));

  return { title: "Jobs", load, draw, hear, changes: () => true, ticks: () => page && page.items.some((job) => !isOver(job)), close: () => clearTimeout(typing) };
}

/** One job in one line. */
export function line(job) {
  const said = job.state === "FAILED" ? reason(job) : job.waiting ? sentence(job.waiting.message) : lastLine(job.result);
  return h("li", { key: job.id }, h("a", { class: "line", href: "#/jobs/" + seg(job.id) },
    mark(job.state),
    h("span", { class: "what" }, h("span", { class: "name" }, job.name),
      (job.tags || []).map((tag) => h("span", { class: "tag" }, tag)),
      said ? h("span", { class: "said" + (job.state === "FAILED" ? " bad" : "") }, job.failedTask ? job.failedTask.name + ": " : "", said) : null),
    job.state === "RUNNING" && job.taskCount > 1 ? h("span", { class: "soft part" }, Math.round(job.progress) + " %") : h("span", { class: "part" }),
    h("span", { class: "took" }, job.startedAt ? duration(job) : ""),
    h("span", { class: "ago" }, when(job.createdAt))));
}
