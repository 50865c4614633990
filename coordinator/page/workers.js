/* Queues and nodes: first what is wrong. */
import { h } from "./dom.js";
import { ask, askIfAllowed, drop, post, put, seg } from "./api.js";
import { count, duration, mark, when } from "./format.js";

const EVERY = 5000; // nodes and queues make no events
const KEPT = 60;
const SYSTEM = new Set(["claims", "completed", "dead", "error", "events", "heartbeat", "jobs", "logs", "progress"]);

export function workersView(view) {
  let nodes = null, queues = [], dead = [];
  const cpu = new Map(), shown = new Map();
  async function load(options) {
    const runs = async (id) => { shown.set(id, (await ask("/tasks?size=100&nodeId=" + seg(id), options)).items); };
    [nodes, queues] = await Promise.all([ask("/nodes", options), ask("/queues", options)]);
    for (const node of nodes) cpu.set(node.id, [...(cpu.get(node.id) || []), node.cpuPercent].slice(-KEPT));
    const grave = queues.find((queue) => queue.name === "dead");
    dead = grave && grave.size ? await askIfAllowed("/queues/dead/messages", options) || [] : [];
    await Promise.all([...shown.keys()].map(runs));
    if (!document.hidden) view.soon(EVERY);
  }
  const { act } = view;

  const system = (name) => /^(x-|events-[0-9a-f]{32}$)/.test(name) || SYSTEM.has(name);
  const slots = (name) => workers().reduce((sum, node) => sum + (alive(node) ? (node.queues || {})[name] || 0 : 0), 0);
  const workers = () => nodes.filter((node) => Object.keys(node.queues || {}).length);
  const alive = (node) => node.status !== "OFFLINE";

  function draw() {
    if (!nodes) return [h("p", { class: "soft", key: "wait" }, "Loading…")];
    const mine = queues.filter((queue) => !system(queue.name));
    const lost = (queue) => queue.size > 0 && !queue.subscribers;
    mine.sort((a, b) => lost(b) - lost(a) || b.size - a.size || (a.name < b.name ? -1 : 1));
    const others = queues.filter((queue) => system(queue.name));
    const up = nodes.filter(alive), gone = nodes.filter((node) => !alive(node));
    return [
      h("div", { class: "title", key: "title" }, h("h1", {}, "Workers")),
      h("h2", { key: "qh" }, "Queues"),
      mine.length ? h("ul", { class: "list card", key: "queues" }, mine.map(queueRow)) : h("p", { class: "empty card", key: "noq" }, "No queues yet: a worker makes them."),
      dead.length ? h("section", { key: "dead" }, h("h2", {}, "Dead letters"), h("ul", { class: "list card" }, dead.map((one) => h("li", { key: one.id, class: "line" }, h("span", { class: "what" }, h("strong", {}, one.queue), h("span", { class: "said bad" }, one.reason)),
        h("button", { type: "button", onclick: act(() => post(`/queues/dead/messages/${seg(one.id)}/resend`, {})) }, "Send again"), h("button", { type: "button", class: "danger", onclick: act(() => drop(`/queues/dead/messages/${seg(one.id)}`)) }, "Discard"))))) : null,
      h("details", { key: "system", class: "folded" }, h("summary", {}, `System queues (${others.length})`), h("ul", { class: "list card" }, others.map(queueRow))),
      h("h2", { key: "nh" }, "Nodes"),
      h("ul", { class: "list card", key: "nodes" }, up.map(nodeRow)),
      gone.length ? h("details", { key: "gone", class: "folded" }, h("summary", {}, `Offline (${gone.length})`), h("ul", { class: "list card" }, gone.map(nodeRow))) : null,
    ];
  }

  function queueRow(queue) {
    const all = slots(queue.name), problem = queue.size > 0 && !queue.subscribers;
    return h("li", { key: queue.name, class: "line" }, h("span", { class: "what" }, h("strong", {}, queue.name),
      problem ? h("span", { class: "said bad" }, "✕ " + count(queue.size, "task") + " waiting, nobody takes from it") : h("span", { class: "soft" }, queue.size ? count(queue.size, system(queue.name) ? "message" : "task") + " waiting" : "nothing waits")),
    all ? h("span", { class: "meterbox" }, h("meter", { min: "0", max: String(all), value: String(Math.min(all, queue.unacked || 0)), "aria-label": "Slots of " + queue.name + " in use" }), h("span", { class: "soft" }, `${queue.unacked ?? "?"} of ${count(all, "slot")}`)) : h("span", { class: "soft" }, count(queue.subscribers, "subscriber")));
  }

  function nodeRow(node) {
    const worker = Object.keys(node.queues || {}).length > 0, seen = shown.get(node.id);
    const samples = cpu.get(node.id) || [];
    const points = samples.map((value, at) => `${at * 100 / (KEPT - 1)},${24 - Math.min(100, value) * 0.22}`).join(" ");
    return h("li", { key: node.id, class: "node" }, h("div", { class: "line" }, mark(node.status),
      h("span", { class: "what" }, h("strong", {}, node.name || node.id), h("span", { class: "soft" }, `${worker ? "worker" : "coordinator"} on ${node.hostname} · ${node.version} · up since `, when(node.startedAt)), worker ? h("span", { class: "soft" }, Object.entries(node.queues).map(([name, number]) => `${name} ×${number}`).join(", ")) : null),
      h("span", { class: "cpu", title: "CPU over the last minutes" }, h("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", role: "img", "aria-label": `CPU ${Math.round(node.cpuPercent)} %` }, h("polyline", { points })), h("span", { class: "soft" }, Math.round(node.cpuPercent) + " %")),
      worker ? h("button", { type: "button", class: "quiet", "aria-expanded": String(shown.has(node.id)), onclick: () => { if (!shown.delete(node.id)) shown.set(node.id, null); view.anew(); view.draw(); } }, count(node.taskCount, "task")) : h("span", {}),
      worker ? (node.status === "DRAINING" ? h("button", { type: "button", onclick: act(() => put(`/nodes/${seg(node.id)}/resume`)) }, "Resume") : h("button", { type: "button", onclick: act(() => put(`/nodes/${seg(node.id)}/drain`)) }, "Drain")) : null),
    seen ? h("ul", { class: "sublist" }, seen.length ? seen.map((task) => h("li", { key: task.id }, h("a", { href: `#/jobs/${seg(task.jobId)}?task=${seg(task.id)}` }, task.name), h("span", { class: "soft" }, " " + duration(task)))) : h("li", { class: "soft" }, "It runs nothing.")) : null);
  }
  return { title: "Workers", load, draw, changes: () => true, ticks: () => true };
}
