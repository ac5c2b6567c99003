// The stream of statuses. EventSource cannot send an Authorization header, so the events are read with fetch.

const QUIET_SECONDS = 45; // three missed heartbeats
const WAITS = [1, 2, 4, 8, 15, 30]; // seconds before the next try
const LONGEST_EVENT = 64e6; // characters

class TokenRefused extends Error {}
class TryLater extends Error {
  constructor(message, seconds) {
    super(message);
    this.seconds = seconds;
  }
}

// The coordinator says what is wrong in words; anything else on the way answers in a form of its own.
async function reasonOf(response) {
  const answer = await response.json().catch(() => null);
  return String(answer?.error?.message ?? `The answer was ${[response.status, response.statusText].filter(Boolean).join(" ")}.`).slice(0, 500);
}

async function checked(response) {
  if (response.ok) return response;
  const reason = await reasonOf(response);
  if (response.status === 401 || response.status === 403) throw new TokenRefused(reason);
  throw new TryLater(reason, Number(response.headers.get("Retry-After")) || 0);
}

// A browser does not say why it could not reach somebody.
const problemOf = (error) => (error instanceof TypeError ? "The coordinator cannot be reached." : error.message);

async function post(address, token) {
  const headers = { Authorization: `Bearer ${token}` };
  const signal = AbortSignal.timeout(15000);
  await checked(await fetch(address, { method: "POST", headers, redirect: "error", cache: "no-store", signal }));
}

// Yield the data of each `status` event.
async function* statuses(body, touched) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let [rest, kind, data] = ["", "", []];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    touched();
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (rest.length > LONGEST_EVENT) throw new Error("A status was longer than this page reads.");
    for (const line of lines.map((ended) => ended.replace(/\r$/, ""))) {
      if (line.startsWith("event:")) kind = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      else if (line === "") {
        if (kind === "status" && data.length) yield data.join("\n");
        [kind, data] = ["", []];
      }
    }
  }
}

// Read one connection to its end; every wait in it has a limit.
async function follow(token, signal, onStatus) {
  const silence = new AbortController();
  const stop = () => silence.abort(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  let timer;
  const touched = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(new Error(`Nothing was heard for ${QUIET_SECONDS} s.`)), QUIET_SECONDS * 1000);
  };
  touched();
  try {
    const headers = { Authorization: `Bearer ${token}`, Accept: "text/event-stream" };
    const options = { headers, redirect: "error", cache: "no-store", signal: silence.signal };
    const response = await checked(await fetch("v1/admin/events", options));
    const type = response.headers.get("Content-Type") ?? "nothing";
    if (!type.startsWith("text/event-stream")) throw new Error(`Events were asked for, the answer was ${type.slice(0, 80)}.`);
    for await (const status of statuses(response.body, touched)) onStatus(status);
    throw new Error("The coordinator ended the connection.");
  } catch (error) {
    throw silence.signal.aborted ? silence.signal.reason : error; // the stream's own words for it differ by browser
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    silence.abort();
  }
}

// Follow the coordinator until `signal` ends it or the token is refused.
// `wait(problem, seconds)` resolves when it is time to try again.
async function watch(token, signal, { connecting, onStatus, wait, refused }) {
  let failures = 0;
  while (!signal.aborted) {
    connecting(failures > 0);
    try {
      await follow(token, signal, (status) => {
        failures = 0;
        onStatus(status);
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof TokenRefused) return refused(error.message);
      const seconds = Math.max(WAITS[Math.min(failures, WAITS.length - 1)], Math.min(error.seconds ?? 0, 300));
      failures += 1;
      await wait(problemOf(error), seconds);
    }
  }
}
