// The door, the bar that says how fresh everything is, and what the buttons do.

const STORED = "koinon operator token"; // in this tab only: sessionStorage
const AT_MOST_EVERY = 300; // milliseconds between two drawings
const AT_WORK = new Set(["training", "evaluating"]);
const by = (id) => document.getElementById(id);

const page = {
  token: null, ends: null, view: null, status: null, received: 0, drawn: 0, due: null,
  again: null, lost: false, problem: "", held: false, pending: new Set(), states: new Map(),
};

function say(text) {
  by("said").textContent = "";
  setTimeout(() => write(by("said"), text), 50); // an emptied region speaks again even when the words are the same
}

// A tab without storage asks for the token again after a reload; nothing else is lost.
function remember(token) {
  try {
    if (token) sessionStorage.setItem(STORED, token);
    else sessionStorage.removeItem(STORED);
  } catch {}
}

function remembered() {
  try {
    return sessionStorage.getItem(STORED);
  } catch {
    return null;
  }
}

function shut(problem) {
  remember(null);
  page.ends?.abort();
  clearTimeout(page.due);
  Object.assign(page, { token: null, ends: null, view: null, status: null, due: null, states: new Map() });
  by("question").close();
  by("board").replaceChildren();
  by("bar").hidden = by("board").hidden = by("foot").hidden = true;
  by("door").hidden = false;
  document.title = "koinon coordinator";
  write(by("problem"), "");
  write(by("door-problem"), problem);
  by("token").value = "";
  by("token").focus();
}

function enter(token) {
  page.ends?.abort();
  remember(token);
  Object.assign(page, { token, ends: new AbortController(), view: board({ change, cancel, revoke }) });
  write(by("door-problem"), "");
  by("door").hidden = true;
  by("bar").hidden = by("foot").hidden = false;
  by("board").replaceChildren(page.view.root);
  watch(token, page.ends.signal, { connecting, onStatus, wait, refused });
}

const refused = (reason) => shut(`The coordinator refused the token: ${reason}`);

function connection(text, kind) {
  write(by("connection"), text);
  by("bar").dataset.kind = by("board").dataset.kind = kind;
  by("again").hidden = kind !== "lost";
  if (kind !== "lost") write(by("countdown"), "");
  page.lost = kind !== "live";
}

const connecting = (again) => connection(again ? "Connection lost, trying now" : "Connecting…", "waiting");

// Resolve after `seconds`, at a press of "Try now", or when somebody looks at the page again.
function wait(problem, seconds) {
  const ends = performance.now() + seconds * 1000;
  page.problem = problem;
  connection("Connection lost,", "lost");
  render();
  say(`Connection lost. ${problem}`);
  return new Promise((resolve) => {
    const timer = setInterval(left, 250);
    function done() {
      clearInterval(timer);
      page.again = null;
      resolve();
    }
    function left() {
      const rest = Math.ceil((ends - performance.now()) / 1000);
      if (rest <= 0) return done();
      write(by("countdown"), `trying again in ${rest} s.`);
    }
    page.again = done;
    page.ends.signal.addEventListener("abort", done, { once: true });
    left();
  });
}

function onStatus(text) {
  try {
    const status = JSON.parse(text);
    page.problem = "";
    if (!Array.isArray(status?.runs)) throw new Error("it has no list of runs");
    Object.assign(page, { status, received: performance.now() });
    connection("Live", "live");
    news(status);
  } catch (error) {
    connection(`A status could not be read: ${error.message}.`, "waiting");
  }
  page.due ??= setTimeout(render, Math.max(0, page.drawn + AT_MOST_EVERY - performance.now()));
}

// Changes of a state are said aloud; rounds are not, a second may bring several.
function news(status) {
  for (const { run, name, state } of status.runs) {
    const said = AT_WORK.has(state) ? "at work" : state;
    if (page.states.has(run) && page.states.get(run) !== said) say(`${name}: ${said}`);
    page.states.set(run, said);
  }
}

function render() {
  clearTimeout(page.due);
  page.due = null;
  if (!page.status) return;
  const run = page.status.runs.find(({ state }) => !OVER.has(state)) ?? page.status.runs[0];
  document.title = `${page.lost ? "? " : ""}${run ? `${words(run.name)}: ${run.state}, round ${run.round}` : "koinon coordinator"}`;
  const old = (performance.now() - page.received) / 1000;
  const age = page.lost || page.held ? `Figures of ${ticking(old)} ago.` : "";
  write(by("age"), page.lost ? `${page.problem} ${age}` : age);
  by("board").hidden = false;
  if (page.held) return;
  page.drawn = performance.now();
  try {
    page.view.show(page.status, old);
  } catch (error) {
    write(by("problem"), `This page cannot show all of a status: ${error.message}`);
    throw error;
  }
}

// The dialog keeps the focus inside, on the no at first, and gives it back afterwards; Escape is a no.
function ask(title, text, yes, no) {
  const dialog = by("question");
  for (const [id, said] of Object.entries({ "question-title": title, "question-text": text, yes, no })) write(by(id), said);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

// A button stays enabled while its call is under way, so that it keeps the focus; a second press does nothing.
async function send(address, wish, answer) {
  if (page.pending.has(address)) return;
  page.pending.add(address);
  write(by("problem"), "");
  try {
    await post(`v1/admin/${address}`, page.token);
    say(answer);
  } catch (error) {
    if (error instanceof TokenRefused) refused(error.message);
    else write(by("problem"), `${wish} failed: ${problemOf(error)}`);
  } finally {
    page.pending.delete(address);
  }
}

const runCall = (run, what) => `runs/${encodeURIComponent(run.run)}/${what}`;

function change(run, what) {
  const [wish, answer] = what === "pause" ? ["Pausing", "asked to pause"] : ["Resuming", "asked to go on"];
  return send(runCall(run, what), `${wish} ${run.name}`, `${run.name} is ${answer}`);
}

async function cancel(run) {
  const text = "Its clients stop and it cannot be resumed. Finished rounds and their models are kept.";
  if (await ask(`Cancel the run ${run.name}?`, text, "Cancel the run", "Keep it running"))
    await send(runCall(run, "cancel"), `Cancelling ${run.name}`, `${run.name} is asked to stop`);
}

async function revoke(party) {
  const text = `${party.client} is shut out of every run at once. To take part again it needs a new join link.`;
  if (await ask(`Revoke ${party.name}?`, text, "Revoke", "Leave it"))
    await send(`clients/${encodeURIComponent(party.client)}/revoke`, `Revoking ${party.name}`, `${party.name} is revoked`);
}

// A token in the address is taken out of it at once: addresses are kept, shown and sent on.
function tokenOfAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", location.pathname + location.search);
  return token?.trim();
}

function begin() {
  write(by("place"), location.host);
  by("door").addEventListener("submit", (event) => {
    event.preventDefault();
    enter(by("token").value.trim());
  });
  by("leave").addEventListener("click", () => shut("The token is forgotten."));
  by("again").addEventListener("click", () => page.again?.());
  by("hold").addEventListener("click", () => {
    page.held = !page.held;
    by("hold").setAttribute("aria-pressed", page.held);
    render();
  });
  by("yes").addEventListener("click", () => by("question").close("yes"));
  by("no").addEventListener("click", () => by("question").close());
  addEventListener("online", () => page.again?.());
  addEventListener("visibilitychange", () => document.hidden || page.again?.());
  addEventListener("hashchange", () => {
    const token = tokenOfAddress();
    if (token) enter(token);
  });
  setInterval(render, 1000);
  const token = tokenOfAddress() || remembered();
  if (token) enter(token);
  else shut("");
}

begin();
