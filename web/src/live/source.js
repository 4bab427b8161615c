// Where the live page's states come from: the server's stream of events, read with fetch so that a token can go along as
// a header (never in an address). Loses the connection: tries again, later and later. Asked for a token: says so.

const TOKEN = "profilemate-token";
const LATEST_MS = 15_000; // between two tries
const SILENT_MS = 10_000; // a state comes each second: without one so long the connection is gone

export function keptToken() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

export class Source {
  /** on.state(json), on.status(word, detail): connecting, live, lost (detail: seconds to the next try), token. */
  constructor(on) {
    this.on = on;
    this.token = keptToken();
    this.tries = 0;
    this.timer = 0;
    this.abort = null;
  }

  headers() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  setToken(token) {
    this.token = token;
    try {
      sessionStorage.setItem(TOKEN, token);
    } catch {
      // kept in this object, then
    }
    this.connect();
  }

  /** JSON of a path; throws what to tell the user. */
  async get(path, signal) {
    const answer = await fetch(path, { headers: this.headers(), signal, cache: "no-store" });
    if (answer.status === 401) this.on.status("token", !!this.token);
    if (!answer.ok) throw new Error((await answer.text()).trim().slice(0, 300) || `the server answered ${answer.status}`);
    return answer.json();
  }

  connect() {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.abort = new AbortController();
    this.run(this.abort);
  }

  async run(abort) {
    let silent = 0;
    const listen = () => {
      clearTimeout(silent);
      silent = setTimeout(() => abort.abort(), SILENT_MS);
    };
    this.on.status("connecting");
    try {
      listen();
      const answer = await fetch("events", { headers: this.headers(), signal: abort.signal, cache: "no-store" });
      if (answer.status === 401) {
        clearTimeout(silent);
        this.on.status("token", !!this.token);
        return;
      }
      if (!answer.ok) throw new Error((await answer.text()).trim().slice(0, 300));
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        listen();
        text += value;
        // An event ends with an empty line.
        for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
          const data = text
            .slice(0, end)
            .split("\n")
            .filter((line) => line.startsWith("data:"))
            .map((line) => line.slice(5).replace(/^ /, ""))
            .join("\n");
          text = text.slice(end + 2);
          if (!data) continue;
          this.tries = 0;
          this.on.status("live");
          this.on.state(JSON.parse(data));
        }
      }
      throw new Error("the server ended the stream");
    } catch (error) {
      clearTimeout(silent);
      if (abort !== this.abort) return; // another connection has taken over
      const wait = Math.min(LATEST_MS, 500 * 2 ** this.tries++);
      this.on.status("lost", { wait, why: error.name === "AbortError" ? "nothing came for ten seconds" : error.message });
      this.timer = setTimeout(() => this.connect(), wait);
    }
  }
}
