/* Asks for what a view shows, again and again, in one place. */

const FIRST_PAUSE = 1500, LONGEST_PAUSE = 30_000; // milliseconds before one asks again what could not be answered

/** Asks one question at a time, so that no older answer comes after a newer one.

    `load` gets the options of its requests; `failed` is told of errors. What was not answered is asked for again,
    unless the answer was that it can't be. */
export class Loader {
  constructor(load, failed) {
    this.load = load; this.failed = failed;
    this.running = null; // the question under way
    this.next = null; // the one after it
    this.timer = null;
    this.pause = FIRST_PAUSE;
    this.ends = new AbortController();
    this.life = new AbortController();
  }

  /** Asks; what is asked for already may be older than what one wants to see. Returns when there was an answer. */
  now() {
    clearTimeout(this.timer);
    this.timer = null;
    return this.next ||= Promise.resolve(this.running).then(() => this.ask());
  }

  /** Asks for something else than before: the question under way is dropped. */
  anew() {
    this.ends.abort();
    return this.now();
  }

  /** Asks in `wait` milliseconds: what changes meanwhile is gathered. */
  soon(wait) { this.timer ||= setTimeout(() => this.now(), wait); }

  async ask() {
    this.next = null;
    if (this.life.signal.aborted) return;
    this.ends = new AbortController();
    const { signal } = this.ends;
    this.running = this.load({ signal }).then(() => { this.pause = FIRST_PAUSE; }, (error) => { if (!signal.aborted) this.again(error); });
    await this.running;
    this.running = null;
  }

  again(error) {
    this.failed(error);
    if (error.status < 500 && error.status !== 429) return;
    this.soon(this.pause);
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
  }

  stop() {
    clearTimeout(this.timer);
    this.life.abort();
    this.ends.abort();
  }
}
