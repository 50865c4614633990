/* Scheduled jobs: when they fire, what became of the last firings, and how to run, pause and change them. */
import { h } from "./dom.js";
import { ask, drop, post, put, seg } from "./api.js";
import { cronWords, mark, pages, when, zone } from "./format.js";

export function schedulesView(view) {
  let page = null, number = 1;
  const last = new Map();
  async function load(options) {
    page = await ask(`/scheduled-jobs?size=20&page=${number}`, options);
    view.draw();
    await Promise.all(page.items.map(async ({ id }) => { last.set(id, (await ask(`/jobs?scheduleId=${seg(id)}&size=12`, options)).items); }));
  }
  const { act } = view;
  let armed = "";
  function hear(event) {
    if (event.taskId || !event.schedule) return;
    if (!page || page.items.some((one) => one.id === event.schedule.id)) view.soon(1000);
  }
  function draw() {
    if (!page) return [h("p", { class: "soft", key: "wait" }, "Loading…")];
    return [
      h("div", { class: "title", key: "title" }, h("h1", {}, "Schedules"), h("span", { class: "grow" }), h("a", { class: "button main", href: "#/new?kind=schedule&example=every%20night" }, "New schedule")),
      page.items.length ? h("ul", { class: "list card schedules", key: "list" }, page.items.map((one) => h("li", { key: one.id, class: "schedule" },
        h("div", { class: "schedulehead" }, mark(one.state), h("strong", {}, one.name), (one.tags || []).map((tag) => h("span", { class: "tag" }, tag)), h("span", { class: "grow" }),
          h("div", { class: "actions" },
            h("button", { type: "button", onclick: act(async () => { const made = await post(`/scheduled-jobs/${seg(one.id)}/run`, undefined); view.tell(`Run now: job ${made.id.slice(0, 8)}.`); }) }, "Run now"),
            one.state === "ACTIVE" ? h("button", { key: "p", type: "button", onclick: act(() => put(`/scheduled-jobs/${seg(one.id)}/pause`)) }, "Pause") : null,
            one.state === "PAUSED" ? h("button", { key: "r", type: "button", onclick: act(() => put(`/scheduled-jobs/${seg(one.id)}/resume`)) }, "Resume") : null,
            h("a", { class: "button", href: "#/schedules/" + seg(one.id) }, "Edit"),
            h("button", { type: "button", class: "danger", onclick: armed === one.id ? act(() => drop(`/scheduled-jobs/${seg(one.id)}`)) : () => { armed = one.id; view.draw(); setTimeout(() => { armed = ""; view.draw(); }, 4000); } }, armed === one.id ? "Really delete" : "Delete"))),
        h("div", { class: "soft" }, one.cron ? [h("span", { title: one.cron }, cronWords(one.cron)), one.timezone && one.timezone !== "UTC" ? ` (${one.timezone})` : " (UTC)"] : one.at ? ["once, ", when(one.at, new Date(one.at).toLocaleString())] : null,
          one.state === "ACTIVE" ? [" · next ", (one.next || [one.nextAt]).filter(Boolean).slice(0, 3).map((at, n) => [n ? ", " : "", when(at, new Date(at).toLocaleString(undefined, { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }))]), ` (${zone()})`] : null),
        one.error ? h("p", { class: "bad", key: "e" }, one.error) : null,
        h("div", { class: "runs" }, (last.get(one.id) || []).slice().reverse().map((job) => h("a", { key: job.id, href: "#/jobs/" + seg(job.id), class: "run " + job.state.toLowerCase(), title: `${job.state.toLowerCase()} · ${new Date(job.createdAt).toLocaleString()}`, "aria-label": `${job.state.toLowerCase()}, ${new Date(job.createdAt).toLocaleString()}` }, mark(job.state, { word: false }))),
          last.get(one.id) && !last.get(one.id).length ? h("span", { class: "soft" }, "has not run yet") : null,
          last.get(one.id) && last.get(one.id).length ? h("a", { href: "#/?scheduleId=" + seg(one.id) }, "all runs") : null))))
        : h("p", { class: "empty card", key: "none" }, "No schedules. A job with a ", h("code", {}, "schedule"), " runs by itself, again and again."),
      pages(page, "schedule", (to) => { number = to; view.anew(); }),
    ];
  }
  return { title: "Schedules", load, draw, hear, changes: () => true };
}
