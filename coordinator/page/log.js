/* The log of a task: all its lines, of which only those in sight are in the page. */
import { clean } from "./dom.js";
import { pieces, plain, settled } from "./ansi.js";
import { ask } from "./api.js";
import { followLog } from "./live.js";

const ROW = 19;
const MOST_PIXELS = 12_000_000; // browsers end an element somewhere above
const SHOWN = 4000; // characters of a line that are shown at once
const AROUND = 12;

const el = (tag, props, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name.startsWith("on")) made[name] = value;
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
};

export class LogView {
  /** `base`: the path of a task or job; `at`: the address of a line of it; `place`: goes there without a move; `line`: one to begin at. */
  constructor(base, { download, at, line, place, nothing }) {
    this.lines = []; // plain texts, settled
    this.coloured = new Map(); // line → text with its colours
    this.times = []; // [first line, time] of each part
    this.groups = []; // {start, end, name, shut}
    this.open = [];
    this.visible = null; // indices of lines in sight when groups are shut, null: all
    this.tops = null; // with wrapping: how many rows stand above each visible line
    this.hits = []; this.hit = -1; this.query = "";
    this.unfolded = new Set();
    this.at = at; this.nothing = nothing; this.marked = line || 0; this.place = place;
    this.following = !line;
    this.build(download, base);
    this.stop = followLog(base + "/log/stream?format=parts", this);
  }

  build(download, base) {
    this.find = el("input", { type: "search", placeholder: "Find in log", "aria-label": "Find in log", class: "find" });
    this.find.oninput = () => this.search(this.find.value);
    this.find.onkeydown = (event) => {
      if (event.key === "Enter") { event.preventDefault(); this.step(event.shiftKey ? -1 : 1); }
      if (event.key === "Escape") { this.find.value = ""; this.search(""); this.pane.focus(); }
    };
    this.tally = el("span", { class: "tally", role: "status" });
    this.total = el("span", { class: "tally" }, "…");
    const toggle = (name, label, on, change) => {
      const box = el("input", { type: "checkbox" });
      box.checked = on;
      box.onchange = () => change(box.checked);
      return el("label", { class: "toggle" }, box, label);
    };
    this.wrapping = false; this.timed = false;
    this.more = el("button", { class: "more", type: "button", hidden: true, onclick: () => this.toEnd() });
    this.space = el("div", { class: "space" });
    this.rows = el("div", { class: "rows" });
    this.blank = el("p", { class: "blank" }, "Waiting for the first line…");
    this.pane = el("div", { class: "pane", tabindex: "0", role: "region", "aria-label": "Log lines" }, this.space, this.rows);
    this.pane.onscroll = () => {
      this.following = this.pane.scrollTop + this.pane.clientHeight >= this.pane.scrollHeight - ROW * 2;
      this.draw();
    };
    this.pane.onkeydown = (event) => {
      const jump = { Home: 0, End: this.pane.scrollHeight }[event.key];
      if (jump !== undefined) { this.pane.scrollTop = jump; event.preventDefault(); }
    };
    const button = (label, title, onclick) => el("button", { type: "button", class: "quiet", title, "aria-label": title, onclick }, label);
    this.element = el("div", { class: "log" },
      el("div", { class: "logbar" }, this.find, button("↑", "Hit before", () => this.step(-1)), button("↓", "Next hit", () => this.step(1)),
        this.tally, el("span", { class: "grow" }), this.total,
        toggle("times", "times", false, (on) => { this.timed = on; this.element.classList.toggle("timed", on); this.drawn = ""; this.lay(); }),
        toggle("wrap", "wrap", false, (on) => { this.wrapping = on; this.element.classList.toggle("wrapped", on); this.lay(); }),
        download ? el("a", { href: download, download: "", title: "Download the whole log of the job", onclick: (event) => this.save(event, base) }, "download") : ""),
      el("div", { class: "panewrap" }, this.pane, this.blank, this.more));
    this.sized = new ResizeObserver(() => this.lay());
    this.sized.observe(this.pane);
  }

  /** Downloads once it is sure that one is signed in: the browser would ask for a password in a window of its own. */
  async save(event, base) {
    if (event.target.sure) { event.target.sure = false; return; }
    event.preventDefault();
    await ask(base).then(() => { event.target.sure = true; event.target.click(); }, () => null);
  }

  close() { this.stop(); this.sized.disconnect(); cancelAnimationFrame(this.frame); this.frame = 0; this.gone = true; }

  // --- lines

  parts(texts) {
    let before = this.lines.length;
    for (const text of texts) {
      const part = JSON.parse(text);
      this.times.push([this.lines.length, part.createdAt]);
      const lines = part.contents.split("\n");
      if (part.number === 1) this.begun = "";
      if (this.begun) { lines[0] = this.begun + lines[0]; this.drop(); before = Math.min(before, this.lines.length); }
      this.begun = lines.at(-1);
      if (!this.begun) lines.pop();
      for (const raw of lines) this.add(raw);
    }
    if (this.query) for (let n = before; n < this.lines.length; n++) if (this.matches(this.lines[n])) this.hits.push(n);
    this.soon();
  }

  /** Takes the last line back, which was only the beginning of one. */
  drop() {
    const n = this.lines.length - 1;
    this.lines.pop();
    this.coloured.delete(n);
    this.drawn = "";
    for (const rows of [this.hits, this.visible || []]) if (rows.at(-1) === n) rows.pop();
    this.measured = Math.min(this.measured || 0, n); this.counted = Math.min(this.counted || 0, this.size);
    if (this.groups.at(-1)?.start === n) { this.groups.pop(); this.open.pop(); }
    const ended = this.groups.find((group) => group.end === n);
    if (ended) { ended.end = -1; this.open.push(ended); }
  }

  add(raw) {
    const n = this.lines.length;
    const line = settled(raw);
    const text = plain(line);
    if (line !== text) this.coloured.set(n, line);
    this.lines.push(text);
    const inside = this.open.some((group) => group.shut);
    if (text.startsWith("::group::")) { const group = { start: n, end: -1, shut: false }; this.open.push(group); this.groups.push(group); }
    else if (text.startsWith("::endgroup::") && this.open.length) this.open.pop().end = n;
    if (this.visible && !inside) this.visible.push(n);
  }

  end(what) {
    this.over = true;
    if (what.error && !this.lines.length) this.problem = what.error === 404 ? "There is no log." : "The log can't be read (" + what.error + ").";
    this.soon();
  }

  soon() {
    if (this.frame || this.gone) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.lay(); });
  }

  // --- places

  get size() { return this.visible ? this.visible.length : this.lines.length; }
  line(row) { return this.visible ? this.visible[row] : row; }

  lay() {
    if (this.wrapping) this.count();
    else this.tops = null;
    const rows = this.tops ? this.tops[this.size] || 0 : this.size;
    this.height = Math.max(rows, 1) * ROW;
    this.scale = Math.max(1, this.height / MOST_PIXELS);
    const shown = Math.ceil(this.height / this.scale) + 8 + "px";
    if (this.space.style.height !== shown) this.space.style.height = shown;
    const long = this.wrapping ? 0 : this.longest();
    this.space.style.width = long ? `calc(${long}ch + 8rem)` : "";
    if (this.marked && this.lines.length >= this.marked) { const to = this.marked; this.marked = 0; this.mark = to - 1; this.show(to - 1); }
    else if (this.following) this.pane.scrollTop = this.pane.scrollHeight;
    this.blank.hidden = this.lines.length > 0;
    if (this.over) this.blank.textContent = this.problem || this.nothing();
    this.total.textContent = this.lines.length.toLocaleString() + (this.lines.length === 1 ? " line" : " lines") + (this.over ? "" : " · live");
    this.tell();
    this.draw(true);
  }

  longest() {
    for (let n = this.measured || 0; n < this.lines.length; n++) this.long = Math.max(this.long || 0, Math.min(this.lines[n].length, SHOWN));
    this.measured = this.lines.length;
    return this.long || 0;
  }

  count() {
    this.wide ||= this.letter();
    const room = Math.max(10, Math.floor((this.pane.clientWidth - (this.timed ? 190 : 96)) / this.wide));
    const by = [room, this.folds || 0, this.unfolded.size].join();
    const known = this.tops && by === this.by ? this.counted : 0; // a log that grows is not counted anew
    let tops = this.tops;
    if (!tops || tops.length <= this.size) { tops = new Float64Array(Math.ceil(this.size * 1.3) + 1); if (known) tops.set(this.tops); }
    for (let row = known; row < this.size; row++) {
      const n = this.line(row);
      const length = this.unfolded.has(n) ? this.lines[n].length : Math.min(this.lines[n].length, SHOWN);
      tops[row + 1] = tops[row] + Math.max(1, Math.ceil(length / room));
    }
    this.tops = tops; this.by = by; this.counted = this.size;
  }

  letter() {
    const probe = el("span", { class: "text" }, "0".repeat(100));
    this.rows.append(probe);
    const wide = probe.getBoundingClientRect().width / 100;
    probe.remove();
    this.drawn = "";
    return wide || 8;
  }

  rowAt(pixels) {
    const at = pixels / ROW;
    if (!this.tops) return Math.floor(at);
    let low = 0, high = this.size;
    while (low < high) { const mid = (low + high) >> 1; this.tops[mid + 1] <= at ? low = mid + 1 : high = mid; }
    return low;
  }
  topOf(row) { return (this.tops ? this.tops[Math.min(row, this.size)] : row) * ROW; }

  show(n) {
    for (const group of this.groups) if (group.shut && n > group.start && (group.end < 0 || n <= group.end)) this.fold(group, false);
    const row = this.visible ? this.visible.indexOf(n) : n;
    this.following = false;
    this.pane.scrollTop = Math.max(0, this.topOf(row) / this.scale - this.pane.clientHeight / 2);
    this.draw(true);
  }
  /** Shows a line by its number, as soon as it is there. */
  goTo(number) { this.marked = number; this.following = false; this.lay(); }
  toEnd() { this.following = true; this.pane.scrollTop = this.pane.scrollHeight; this.draw(true); }

  // --- drawing

  draw(anew) {
    const height = this.pane.clientHeight;
    const top = this.scale > 1 && this.pane.scrollHeight > height
      ? this.pane.scrollTop / (this.pane.scrollHeight - height) * (this.height - height) : this.pane.scrollTop;
    const first = Math.max(0, this.rowAt(top) - AROUND);
    const last = Math.min(this.size, this.rowAt(top + height) + AROUND + 1);
    if (this.following) this.seen = this.lines.length;
    const fresh = this.lines.length - (this.seen || 0);
    this.more.hidden = this.following || fresh <= 0;
    this.more.textContent = "↓ " + fresh.toLocaleString() + (fresh === 1 ? " new line" : " new lines");
    const drawn = [first, last, this.query, this.hit, this.mark, this.wrapping, this.timed, this.groups.length, this.folds || 0].join();
    this.rows.style.transform = `translateY(${this.pane.scrollTop - (top - this.topOf(first))}px)`;
    if (drawn === this.drawn && (!anew || last < this.size || this.drawnSize === this.size)) return;
    this.drawn = drawn; this.drawnSize = this.size;
    const had = new Map([...this.rows.children].map((row) => [row.token, row]));
    const wanted = [];
    for (let row = first; row < last; row++) {
      const n = this.line(row);
      const token = [n, this.lines[n].length, this.query, this.hits[this.hit] === n, this.mark === n, this.timed, this.wrapping && this.tops[row + 1] - this.tops[row], this.folds || 0, this.unfolded.has(n)].join();
      wanted.push(had.get(token) || this.row(n, row, token));
    }
    let at = this.rows.firstChild;
    for (const row of wanted) { if (row === at) at = at.nextSibling; else this.rows.insertBefore(row, at); }
    while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
  }

  row(n, row, token) {
    const number = el("a", { class: "number", href: this.at(n + 1), "aria-label": "Line " + (n + 1), tabindex: "-1" }, String(n + 1));
    number.onclick = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.place(this.at(n + 1));
      this.mark = n; this.draw(true);
    };
    const made = el("div", { class: "row" + (this.mark === n ? " marked" : "") + (this.hits[this.hit] === n ? " here" : "") }, number);
    if (this.timed) made.append(el("span", { class: "time" }, this.timeOf(n)));
    const group = this.groups.find((one) => one.start === n);
    const text = el("span", { class: "text", dir: "auto" });
    if (group) {
      text.append(el("button", { type: "button", class: "fold", "aria-expanded": String(!group.shut), onclick: () => this.fold(group, !group.shut) },
        (group.shut ? "▸ " : "▾ ") + clean(this.lines[n].slice(9) || "group")));
    } else this.write(text, n);
    made.append(text);
    if (this.wrapping) made.style.height = (this.tops[row + 1] - this.tops[row]) * ROW + "px";
    made.token = token;
    return made;
  }

  write(text, n) {
    const whole = this.lines[n];
    const most = this.unfolded.has(n) ? Infinity : SHOWN;
    let left = most, at = 0;
    const found = this.query ? ranges(whole, this.query) : [];
    for (const piece of this.coloured.has(n) ? pieces(this.coloured.get(n)) : [{ text: whole }]) {
      if (left <= 0) break;
      const shown = piece.text.slice(0, left);
      left -= shown.length;
      const span = "fore" in piece || piece.foreRgb || piece.bold || piece.dim || piece.italic || piece.under
        ? el("span", { class: ["fore" in piece && "c" + piece.fore, piece.bold && "bold", piece.dim && "dim", piece.italic && "italic", piece.under && "under"].filter(Boolean).join(" ") || null })
        : text;
      if (piece.foreRgb) span.style.color = piece.foreRgb;
      marked(span, shown, at, found);
      at += piece.text.length;
      if (span !== text) text.append(span);
    }
    if (whole.length > most) {
      text.append(el("button", { type: "button", class: "fold", onclick: () => this.unfold(n) },
        " … " + (whole.length - most).toLocaleString() + " more characters"));
    }
  }

  timeOf(n) {
    let low = 0, high = this.times.length - 1;
    while (low < high) { const mid = (low + high + 1) >> 1; this.times[mid][0] <= n ? low = mid : high = mid - 1; }
    return this.times.length ? new Date(this.times[low][1]).toLocaleTimeString() : "";
  }

  fold(group, shut) {
    group.shut = shut;
    this.folds = (this.folds || 0) + 1;
    const folded = this.groups.filter((one) => one.shut);
    this.visible = folded.length ? [] : null;
    for (let n = 0, next = 0, until = -1; this.visible && n < this.lines.length; n++) {
      for (; next < folded.length && folded[next].start < n; next++) until = Math.max(until, folded[next].end < 0 ? Infinity : folded[next].end);
      if (n > until) this.visible.push(n);
    }
    this.following = false;
    this.lay();
  }

  // --- finding

  matches(line) { return this.pattern.test(line); }

  search(query) {
    this.query = query;
    this.hits = []; this.hit = -1;
    if (query) {
      this.pattern = new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i");
      for (let n = 0; n < this.lines.length; n++) if (this.pattern.test(this.lines[n])) this.hits.push(n);
      if (this.hits.length) this.step(1);
    }
    this.tell();
    this.draw(true);
  }

  step(by) {
    if (!this.hits.length) return;
    this.hit = (this.hit + by + this.hits.length) % this.hits.length;
    const n = this.hits[this.hit];
    if (this.lines[n].length > SHOWN) this.unfold(n);
    this.show(n);
    this.rows.querySelector(".here mark")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.tell();
  }

  /** Shows all of a line that was cut. */
  unfold(n) { this.unfolded.add(n); this.drawn = ""; this.lay(); }

  tell() {
    const said = !this.query ? "" : this.hits.length ? (this.hit + 1).toLocaleString() + " of " + this.hits.length.toLocaleString() : "nothing found";
    if (this.tally.textContent !== said) this.tally.textContent = said;
  }
}

function ranges(line, query) {
  const low = line.toLowerCase(), wanted = query.toLowerCase(), found = [];
  if (low.length !== line.length) return found;
  for (let at = low.indexOf(wanted); at >= 0 && found.length < 500; at = low.indexOf(wanted, at + wanted.length)) found.push([at, at + wanted.length]);
  return found;
}

/** Writes a text into `span`, with what was found marked; `at` is where the text stands in its line. */
function marked(span, text, at, found) {
  let done = 0;
  for (const [from, to] of found) {
    const a = Math.max(0, from - at), b = Math.min(text.length, to - at);
    if (b <= 0 || a >= text.length) continue;
    if (a > done) span.append(clean(text.slice(done, a)));
    span.append(el("mark", {}, clean(text.slice(a, b))));
    done = b;
  }
  if (done < text.length) span.append(clean(text.slice(done)));
}
