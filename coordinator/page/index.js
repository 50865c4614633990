/* The page: a view per address after the #, each a function that draws into <main>. */

const main = document.getElementById("main");
const notice = document.getElementById("notice");
const ENDED = ["COMPLETED", "FAILED", "CANCELLED"];
const STATES = ["PENDING", "SCHEDULED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"];
const MAX_LINES = 5000;

let leave = null; // aborts what the view that is shown still does

function tell(what, good = false) {
  notice.textContent = what.message || String(what);
  notice.className = good ? "good" : "";
  notice.hidden = false;
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => { notice.hidden = true; }, 8000);
}

async function act(work) {
  try { await work(); } catch (error) { if (error.name !== "AbortError") tell(error); }
}

/** Draws again every few seconds, for as long as the view is shown and the tab is seen. */
function keep(seconds, signal, draw) {
  const again = async () => {
    if (signal.aborted) return;
    if (!document.hidden) await act(draw);
    if (!signal.aborted) setTimeout(again, seconds * 1000);
  };
  return again();
}

const state = (name) => make("span", { class: "state " + name }, name);
const moment = (text) => (text ? new Date(text).toLocaleString() : "");
const seg = encodeURIComponent;

function lasted(from, to) {
  if (!from) return "";
  const seconds = ((to ? new Date(to) : new Date()) - new Date(from)) / 1000;
  if (seconds < 60) return Math.max(0, seconds).toFixed(1) + " s";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min " + Math.floor(seconds % 60) + " s";
  return Math.floor(seconds / 3600) + " h " + Math.floor((seconds % 3600) / 60) + " min";
}

function table(heads, rows, nothing) {
  if (!rows.length) return make("div", { class: "card empty" }, nothing);
  const head = make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)));
  return make("div", { class: "card scroll" },
    make("table", {}, make("thead", {}, head), make("tbody", {}, rows)));
}

function openable(address, ...cells) {
  const go = () => { location.hash = address; };
  return make("tr", {
    class: "link", tabindex: "0", onclick: go,
    onkeydown: (event) => { if (event.key === "Enter") go(); },
  }, cells.map((cell) => make("td", {}, cell)));
}

/* --- jobs --------------------------------------------------------------------------------- */

function jobs(signal, query) {
  const list = make("div", {});
  const search = make("input", {
    type: "search", placeholder: "Search: words, tag:nightly, tags:a,b", value: query.get("q") || "",
    "aria-label": "Search jobs",
  });
  const chosen = make("select", { "aria-label": "State" },
    make("option", { value: "" }, "Any state"),
    STATES.map((name) => make("option", { value: name, selected: query.get("state") === name }, name)));
  const page = Number(query.get("page")) || 1;
  const go = (number) => {
    const next = new URLSearchParams();
    if (search.value) next.set("q", search.value);
    if (chosen.value) next.set("state", chosen.value);
    if (number > 1) next.set("page", number);
    location.hash = "/?" + next;
  };
  search.addEventListener("change", () => go(1));
  chosen.addEventListener("change", () => go(1));
  const start = make("button", { class: "main", onclick: () => { location.hash = "/new"; } }, "New job");
  main.replaceChildren(make("div", { class: "tools" }, search, chosen, start), list);
  return keep(3, signal, async () => {
    const asked = new URLSearchParams({ page, size: 20 });
    for (const name of ["q", "state"]) if (query.get(name)) asked.set(name, query.get(name));
    const found = await ask("/jobs?" + asked, { signal });
    const rows = found.items.map((job) => openable("/jobs/" + seg(job.id),
      [job.name, (job.tags || []).map((tag) => make("span", { class: "tag" }, tag)),
        make("div", { class: "soft mono" }, job.id)],
      state(job.state),
      [make("progress", { max: 100, value: job.progress, "aria-label": "Progress" }),
        make("div", { class: "soft" }, Math.round(job.progress) + " %")],
      moment(job.createdAt),
      lasted(job.startedAt, job.completedAt || job.failedAt)));
    const total = found.totalItems + (found.totalCapped ? "+" : "") + " jobs";
    list.replaceChildren(
      table(["Job", "State", "Progress", "Created", "Duration"], rows, "No jobs found."),
      make("div", { class: "pages" }, make("span", { class: "soft" }, total),
        make("button", { disabled: page <= 1, onclick: () => go(page - 1) }, "Newer"),
        make("button", { disabled: page >= found.totalPages, onclick: () => go(page + 1) }, "Older")));
  });
}

function submission() {
  const text = make("textarea", { spellcheck: "false", "aria-label": "Job in YAML" });
  text.value = "name: hello\ntasks:\n  - name: say hello\n    image: alpine\n    run: echo hello world\n";
  const submit = async (dry) => {
    const path = dry ? "/jobs?dryRun=true" : "/jobs";
    const job = await ask(path, { method: "POST", body: text.value, headers: { "Content-Type": "text/yaml" } });
    if (dry) tell("“" + job.name + "” is valid.", true);
    else location.hash = "/jobs/" + seg(job.id);
  };
  main.replaceChildren(make("h1", {}, "New job"), make("p", { class: "soft" }, "Enter a job in YAML."), text,
    make("div", { class: "tools" },
      make("button", { class: "main", onclick: () => act(() => submit(false)) }, "Submit"),
      make("button", { onclick: () => act(() => submit(true)) }, "Validate")));
}

/* --- one job ------------------------------------------------------------------------------ */

function job(signal, query, id) {
  const top = make("div", {});
  const tasks = make("div", {});
  const log = logView("/jobs/" + seg(id), signal);
  main.replaceChildren(top, make("h2", {}, "Tasks"), tasks, log.element);
  let shown = "";
  return keep(2, signal, async () => {
    const found = await ask("/jobs/" + seg(id), { signal });
    const text = JSON.stringify(found);
    if (text === shown && ENDED.includes(found.state)) return;
    if (shown && ENDED.includes(JSON.parse(shown).state) && !ENDED.includes(found.state)) log.again();
    shown = text;
    const opened = [...top.querySelectorAll("details[open]")].map((one) => one.dataset.name);
    top.replaceChildren(...jobHead(found));
    for (const one of top.querySelectorAll("details")) one.open = opened.includes(one.dataset.name);
    tasks.replaceChildren(taskTable(found));
  });
}

function jobHead(job) {
  const path = "/jobs/" + seg(job.id);
  const put = (verb) => act(() => ask(path + "/" + verb, { method: "PUT" }));
  const remove = () => act(async () => {
    if (!window.confirm("Delete this job with its tasks and logs?")) return;
    await ask(path, { method: "DELETE" });
    location.hash = "/";
  });
  const over = ENDED.includes(job.state);
  const fact = (name, value) => (value === undefined || value === "" ? [] :
    make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  const code = (name, value) => value && make("details", { "data-name": name },
    make("summary", {}, name), make("pre", { class: "card" }, JSON.stringify(value, null, 2)));
  return [
    make("div", { class: "head" }, make("h1", {}, job.name), state(job.state), make("span", { class: "grow" }),
      !over && make("button", { class: "danger", onclick: () => put("cancel") }, "Cancel"),
      ["FAILED", "CANCELLED"].includes(job.state) && make("button", { onclick: () => put("restart") }, "Restart"),
      over && make("button", { class: "danger", onclick: remove }, "Delete")),
    job.description && make("p", { class: "soft" }, job.description),
    make("dl", { class: "card facts" },
      fact("ID", make("span", { class: "mono" }, job.id)),
      fact("Progress", make("progress", { max: 100, value: job.progress, "aria-label": "Progress" })),
      fact("Created", moment(job.createdAt) + " by " + job.createdBy.username),
      fact("Started", moment(job.startedAt)),
      fact("Duration", lasted(job.startedAt, job.completedAt || job.failedAt)),
      fact("Task", Math.min(job.position, job.taskCount) + " of " + job.taskCount)),
    job.error && make("div", { class: "card box fault" }, make("pre", {}, job.error)),
    job.result && [make("h2", {}, "Result"), make("pre", { class: "card box" }, job.result)],
    code("Inputs", job.inputs), code("As submitted", job.tasks),
  ].flat().filter(Boolean);
}

function taskTable(job) {
  const rows = job.execution.map((task) => openable("/tasks/" + seg(task.id),
    [make("span", {}, task.name), task.retry && task.retry.attempts
      ? make("span", { class: "tag" }, "attempt " + (task.retry.attempts + 1)) : null,
    task.error ? make("pre", { class: "fault" }, task.error) : null],
    state(task.state),
    task.parallel ? task.parallel.completions + " of " + task.parallel.tasks.length
      : task.each ? task.each.completions + " of " + (task.each.size ?? "?")
        : task.queue || (task.subjob ? "sub-job" : ""),
    moment(task.startedAt),
    lasted(task.startedAt, task.completedAt || task.failedAt)));
  return table(["Task", "State", "Queue or progress", "Started", "Duration"], rows, "No tasks have started yet.");
}

function task(signal, query, id) {
  const top = make("div", {});
  const log = logView("/tasks/" + seg(id), signal);
  main.replaceChildren(top, log.element);
  return keep(2, signal, async () => {
    const found = await ask("/tasks/" + seg(id), { signal });
    top.replaceChildren(
      make("div", { class: "head" }, make("h1", {}, found.name), state(found.state)),
      make("p", {}, make("a", { href: "#/jobs/" + seg(found.jobId) }, "Show job"),
        found.subjob && found.subjob.id
          ? [" · ", make("a", { href: "#/jobs/" + seg(found.subjob.id) }, "Show sub-job")] : []),
      make("details", { open: true }, make("summary", {}, "Details"),
        make("pre", { class: "card" }, JSON.stringify(found, null, 2))));
  });
}

/* --- logs --------------------------------------------------------------------------------- */

/** A live log. Reads the stream with fetch, because an EventSource can't send a key. */
function logView(path, signal) {
  const lines = make("div", { class: "log mono", tabindex: "0", role: "log", "aria-label": "Log" });
  const status = make("span", { class: "soft" });
  const link = path.startsWith("/jobs/") &&
    make("a", { href: path + "/log/download", download: true }, "Download");
  const element = make("section", {},
    make("h2", {}, "Log ", status, link ? [" · ", link] : []), lines);
  const add = (texts) => {
    const follow = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 40;
    lines.append(...texts.map((text) => make("div", {}, text)));
    while (lines.childElementCount > MAX_LINES) lines.firstElementChild.remove();
    if (follow) lines.scrollTop = lines.scrollHeight;
  };
  const run = async () => {
    let last = "";
    let over = false;
    while (!over && !signal.aborted) {
      try {
        status.textContent = "live";
        await readStream(path + "/log/stream", last, signal, (events) => {
          add(events.filter((event) => !event.name).map((event) => event.data));
          last = events.at(-1).id || last;
          over = events.some((event) => event.name === "end");
          return over;
        });
      } catch (error) {
        if (signal.aborted) return;
        status.textContent = error.message + "; reconnecting";
      }
      if (!over) await new Promise((done) => setTimeout(done, 2000));
    }
    status.textContent = "ended";
  };
  act(run);
  return { element, again: () => { lines.replaceChildren(); act(run); } };
}

async function readStream(path, last, signal, handle) {
  const headers = { Accept: "text/event-stream", ...credentials() };
  if (last) headers["Last-Event-ID"] = last;
  const response = await fetch(path, { headers, signal });
  if (!response.ok) throw new Error("HTTP " + response.status);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    const events = blocks.map(readEvent).filter((event) => event.data !== null);
    if (events.length && handle(events)) return void reader.cancel();
  }
}

function readEvent(block) {
  const event = { name: "", id: "", data: null };
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    const field = line.slice(0, at);
    const value = line.slice(at + 1).replace(/^ /, "");
    if (field === "data") event.data = event.data === null ? value : event.data + "\n" + value;
    else if (field === "id") event.id = value;
    else if (field === "event") event.name = value;
  }
  return event;
}

/* --- the plant ---------------------------------------------------------------------------- */

function nodes(signal) {
  const list = make("div", {});
  main.replaceChildren(list);
  const draw = async () => {
    const found = await ask("/nodes", { signal });
    const rows = found.map((node) => {
      const verb = node.status === "DRAINING" ? "resume" : "drain";
      const change = () => act(async () => {
        await ask("/nodes/" + seg(node.id) + "/" + verb, { method: "PUT" });
        await draw();
      });
      return make("tr", {}, [
        [node.name, make("div", { class: "soft mono" }, node.id)], state(node.status), node.hostname,
        node.cpuPercent.toFixed(0) + " %", String(node.taskCount), node.version, moment(node.lastHeartbeatAt),
        node.queue ? make("button", { onclick: change }, verb) : "",
      ].map((cell) => make("td", {}, cell)));
    });
    list.replaceChildren(
      table(["Node", "Status", "Host", "CPU", "Tasks", "Version", "Last heartbeat", ""], rows, "No nodes."));
  };
  return keep(3, signal, draw);
}

function queues(signal) {
  const list = make("div", {});
  main.replaceChildren(list);
  return keep(3, signal, async () => {
    const rows = (await ask("/queues", { signal })).map((queue) => make("tr", {},
      make("td", { class: "mono" }, queue.name),
      [queue.size, queue.unacked, queue.subscribers].map((n) => make("td", { class: "number" }, String(n ?? "")))));
    list.replaceChildren(table(["Queue", "Waiting", "In progress", "Subscribers"], rows, "No queues."));
  });
}

function schedules(signal, query) {
  const list = make("div", {});
  main.replaceChildren(list);
  const page = Number(query.get("page")) || 1;
  const go = (number) => { location.hash = "/schedules?page=" + number; };
  const draw = async () => {
    const found = await ask("/scheduled-jobs?size=20&page=" + page, { signal });
    const rows = found.items.map((item) => {
      const verb = item.state === "ACTIVE" ? "pause" : "resume";
      const change = () => act(async () => {
        await ask("/scheduled-jobs/" + seg(item.id) + "/" + verb, { method: "PUT" });
        await draw();
      });
      return make("tr", {}, [
        [item.name, make("div", { class: "soft mono" }, item.id)], state(item.state),
        make("span", { class: "mono" }, item.cron + " " + item.timezone), moment(item.nextAt),
        make("button", { onclick: change }, verb),
      ].map((cell) => make("td", {}, cell)));
    });
    list.replaceChildren(
      table(["Scheduled job", "State", "Schedule", "Next run", ""], rows, "No scheduled jobs."),
      make("div", { class: "pages" },
        make("button", { disabled: page <= 1, onclick: () => go(page - 1) }, "Newer"),
        make("button", { disabled: page >= found.totalPages, onclick: () => go(page + 1) }, "Older")));
  };
  return keep(4, signal, draw);
}

async function health() {
  const shown = document.getElementById("health");
  try {
    const found = await (await fetch("/health")).json();
    shown.textContent = found.status === "UP" ? "v" + found.version : "DOWN: " + found.message;
    shown.className = found.status === "UP" ? "soft" : "fault";
  } catch {
    shown.textContent = "The coordinator does not respond";
    shown.className = "fault";
  }
  setTimeout(health, 10000);
}

/* --- which view --------------------------------------------------------------------------- */

const VIEWS = [
  [/^\/$/, jobs, "jobs"],
  [/^\/new$/, submission, "jobs"],
  [/^\/jobs\/([^/]+)$/, job, "jobs"],
  [/^\/tasks\/([^/]+)$/, task, "jobs"],
  [/^\/schedules$/, schedules, "schedules"],
  [/^\/nodes$/, nodes, "nodes"],
  [/^\/queues$/, queues, "queues"],
];

function route() {
  if (leave) leave.abort();
  leave = new AbortController();
  const [path, query] = (location.hash.slice(1) || "/").split("?");
  for (const [pattern, view, tab] of VIEWS) {
    const match = pattern.exec(path);
    if (!match) continue;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.tab === tab) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    let id = "";
    try { id = decodeURIComponent(match[1] || ""); } catch { break; }
    return void act(() => view(leave.signal, new URLSearchParams(query), id));
  }
  main.replaceChildren(make("div", { class: "card empty" }, "Page not found."));
}

window.addEventListener("hashchange", route);
route();
health();
