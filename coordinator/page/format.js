/* How states, times and figures are said. */
import { tidy } from "./ansi.js";
import { h } from "./dom.js";

export const ENDED = ["COMPLETED", "FAILED", "CANCELLED"];
export const isOver = (thing) => ENDED.includes(thing.state) || thing.state === "SKIPPED";
const ICONS = {
  COMPLETED: "✓", FAILED: "✕", CANCELLED: "⊘", RUNNING: "▶", SCHEDULED: "◷", PENDING: "◌", CREATED: "◌", SKIPPED: "↷",
  UP: "✓", DOWN: "✕", OFFLINE: "✕", DRAINING: "◷", ACTIVE: "▶", PAUSED: "⏸",
};

/** The icon and the word of a state: never the colour alone. */
export function mark(state, { word = true } = {}) {
  const said = state.toLowerCase();
  return h("span", { class: "mark " + said, title: word ? null : said },
    h("span", { class: "icon", "aria-hidden": "true" }, ICONS[state] || "·"),
    h("span", { class: word ? "word" : "unseen" }, said));
}

export function lasted(seconds) {
  if (!isFinite(seconds) || seconds < 0) return "";
  if (seconds < 1) return Math.round(seconds * 1000) + " ms";
  if (seconds < 60) return seconds.toFixed(1) + " s";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min " + Math.floor(seconds % 60) + " s";
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h " + Math.floor((seconds % 3600) / 60) + " min";
  return Math.floor(seconds / 86400) + " d " + Math.floor((seconds % 86400) / 3600) + " h";
}

/** How far the server's clock is ahead of this one, in milliseconds: durations of what runs are by the server's. */
let ahead = 0;
export function noteServerTime(response) {
  const said = Date.parse(response.headers.get("Date") || "");
  if (said && Math.abs(said + 500 - Date.now() - ahead) > 1500) ahead = said + 500 - Date.now();
}
export const now = () => Date.now() + ahead;

export function endOf(thing) {
  const said = thing.completedAt || thing.failedAt;
  return said ? Date.parse(said) : now();
}
export function duration(thing) {
  if (!thing.startedAt) return isOver(thing) ? "" : thing.state.toLowerCase();
  return lasted((endOf(thing) - Date.parse(thing.startedAt)) / 1000);
}

export function ago(text) {
  if (!text) return "";
  const seconds = (now() - Date.parse(text)) / 1000;
  if (seconds < -5) return "in " + coarse(-seconds);
  return seconds < 10 ? "just now" : coarse(seconds) + " ago";
}
function coarse(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return Math.floor(seconds / size) + " " + unit;
  }
  return Math.floor(seconds) + " s";
}
export function exact(text) {
  return text ? new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : "";
}
export const when = (text, words) => h("time", { datetime: text, title: exact(text) + " · " + zone() }, words ?? ago(text));
export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;
export const lastLine = (text) => tidy((text || "").slice(-4000)).trimEnd().split("\n").at(-1).slice(0, 400);
/** Why something failed, in a line: what was found out, else the last that was printed. */
export const reason = (job) => { const error = stated(job), first = error.split("\n")[0]; return /^exit code \d+$/.test(first) ? lastLine(error).replace(/^\/\S+\/entrypoint: /, "") : first.slice(0, 400); };
/** The error of a job, without the name of the task that is said beside it. */
export const stated = (job) => { const error = job.error || "", name = job.failedTask ? `task '${job.failedTask.name}': ` : ""; return name && error.startsWith(name) ? error.slice(name.length) : error; };
/** A sentence of the server's: what stands between backticks is code. */
export const sentence = (text) => String(text).split(/`([^`]+)`/).map((part, at) => (at % 2 ? h("code", {}, part) : part));
export const count = (number, noun) => number + " " + noun + (number === 1 ? "" : "s");
/** The end of a list of many pages; `go` shows another. */
export const pages = (page, noun, go) => (page && page.totalPages > 1 ? h("div", { class: "pages", key: "pages" },
  h("span", { class: "soft" }, `Page ${page.number} of ${page.totalPages} · ` + count(page.totalItems, noun) + (page.totalCapped ? " or more" : "")),
  h("button", { type: "button", disabled: page.number <= 1, onclick: () => go(page.number - 1) }, "Newer"),
  h("button", { type: "button", disabled: page.number >= page.totalPages, onclick: () => go(page.number + 1) }, "Older")) : null);
export function bytes(size) {
  let at = 0;
  while (size >= 1024 && at < 4) { size /= 1024; at++; }
  return (at ? size.toFixed(size < 10 ? 1 : 0) : size) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][at];
}

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MACROS = { "@hourly": "every hour", "@daily": "every day at 00:00", "@midnight": "every day at 00:00",
  "@weekly": "every Sunday at 00:00", "@monthly": "on day 1 of each month at 00:00", "@yearly": "on 1 January at 00:00",
  "@annually": "on 1 January at 00:00" };

/** A cron expression in words; what is too odd for that stays as it is. */
export function cronWords(cron) {
  if (MACROS[cron]) return MACROS[cron];
  const fields = cron.trim().split(/\s+/);
  if (fields.length !== 5) return cron;
  const [minute, hour, day, month, weekday] = fields;
  const two = (text) => text.padStart(2, "0");
  const plain = (text) => /^\d+$/.test(text);
  let time;
  if (minute === "*" && hour === "*") time = "every minute";
  else if (/^\*\/\d+$/.test(minute) && hour === "*") time = "every " + minute.slice(2) + " minutes";
  else if (plain(minute) && hour === "*") time = "every hour at minute " + minute;
  else if (plain(minute) && /^\*\/\d+$/.test(hour)) time = "every " + hour.slice(2) + " hours at minute " + minute;
  else if (plain(minute) && /^\d+(,\d+)*$/.test(hour)) time = "at " + hour.split(",").map((one) => two(one) + ":" + two(minute)).join(", ");
  else return cron;
  if (month !== "*") return cron;
  if (day !== "*" && weekday !== "*") return cron;
  if (plain(day)) return time + " on day " + day + " of each month";
  if (weekday === "1-5" || /^mon-fri$/i.test(weekday)) return time + ", Monday to Friday";
  if (/^[0-7](,[0-7])*$/.test(weekday)) return time + " on " + weekday.split(",").map((one) => DAYS[one % 7]).join(", ");
  if (day !== "*" || weekday !== "*") return cron;
  return time.startsWith("at ") ? "every day " + time : time;
}

/** Plain data as YAML. */
export function toYaml(value, indent = "") {
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return value.map((item) => {
      const text = toYaml(item, indent + "  ");
      return indent + "- " + (holds(item) ? text.trimStart() : text);
    }).join("\n");
  }
  if (value && typeof value === "object") {
    const names = Object.keys(value);
    if (!names.length) return "{}";
    return names.map((name) => {
      const inner = value[name];
      const text = toYaml(inner, indent + "  ");
      return indent + scalar(name) + ":" + (holds(inner) ? "\n" + text : " " + text);
    }).join("\n");
  }
  return typeof value === "string" ? block(value, indent) : String(value);
}
const holds = (value) => value && typeof value === "object" && Object.keys(value).length > 0;
function block(text, indent) {
  if (!text.includes("\n") || /[^\t\n\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]/.test(text) || /^[\s]|[ \t]\n|\n\n$/.test(text)) return scalar(text);
  const body = text.replace(/\n$/, "").split("\n").map((line) => (line ? indent + line : "")).join("\n");
  return (text.endsWith("\n") ? "|" : "|-") + "\n" + body;
}
function scalar(text) {
  const simple = /^[A-Za-z_\/.][\w .,\/@+=()-]*$/.test(text) && !/\s$/.test(text) &&
    !/^(true|false|null|yes|no|on|off|y|n|~|\.inf|\.nan)$/i.test(text) && !/^[.\d][\d.eE_+-]*$/.test(text);
  return simple ? text : JSON.stringify(text);
}
