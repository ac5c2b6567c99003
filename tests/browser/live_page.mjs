// Scenarios of the live page in Chromium: node live_page.mjs CHROMIUM ADDRESS TOKEN SCENARIO...
// One line of JSON a scenario: {"name", "failure"}. Status 3: a package is missing, standard error says which.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const require = createRequire(import.meta.url); // looks along NODE_PATH, as import does not
const [chromiumPath, address, token, ...wanted] = process.argv.slice(2);
const scenarios = new Map();
const scenario = (name, run) => scenarios.set(name, run);
const pictures = process.env.KOINON_SCREENSHOTS;

function need(name) {
  try {
    return require(name);
  } catch {
    console.error(`${name} is not found: npm install it somewhere and name its node_modules in NODE_PATH`);
    process.exit(3);
  }
}

const { chromium } = need("playwright-core");
const axe = need("axe-core");

// ---- the stand-in ----

async function control(wish) {
  const options = wish && { method: "POST", body: JSON.stringify(wish) };
  const answer = await fetch(`${address}/stand-in`, { ...options, signal: AbortSignal.timeout(10000) });
  return answer.json();
}

const record = (round, more = {}) => ({
  round, cohort: 3, seconds: 1.2, refused: {}, lost: {},
  train_loss: 0.3 + 0.4 / round, train_accuracy: 0.9 - 0.3 / round,
  loss: 0.35 + 0.4 / round, accuracy: 0.85 - 0.3 / round,
  accuracy_mean: 0.85 - 0.3 / round, accuracy_worst: 0.8 - 0.3 / round, accuracy_spread: 0.04, ...more,
});

const client = (name, more = {}) => ({
  client: `c-${name}`, name, standing: "asked", seconds_since_heard: 12, train_examples: 100,
  bytes_received: 4100000, bytes_sent: 8250000, upload_bytes_per_second: 1250000, last_round_seconds: 1.1,
  rounds_done: 4, last_error: null, ...more,
});

const run = (more = {}) => ({
  run: "r-1c20", name: "heart", algorithm: "fedavg", app: "0123456789abcdef".repeat(4), state: "training",
  waits_for: "2 of 3 updates of round 9: lyon, nice (last heard of 12 s ago)", round: 8, rounds: 100, stopped: null,
  digest: null, open: { round: 9, purpose: "train", asked: 3, arrived: 1, attempt: 2, seconds_left: 41 },
  history: [1, 2, 3, 4, 5, 6, 7, 8].map((i) => record(i, i === 5 ? { lost: { nice: "late: nothing came within 60 s" } } :
    i === 6 ? { refused: { lyon: ["params.dense.kernel", "params.dense.bias"] } } : {})),
  clients: [client("paris", { standing: "arrived" }), client("lyon"),
    client("nice", { standing: "late", last_error: "nothing came within 60 s", upload_bytes_per_second: null })],
  ...more,
});

const party = (name, more = {}) => ({ client: `c-${name}`, name, kind: "ed25519", revoked: false, seconds_since_heard: 12, ...more });

const status = (...runs) => ({
  version: "0.1.0", url: address, seconds: 3723, runs: runs.length ? runs : [run()],
  clients: [party("paris"), party("lyon", { kind: "p256" }), party("nice"), party("oslo", { revoked: true })],
  invitations_open: 1,
});

// ---- the browser ----

const profile = mkdtempSync(join(tmpdir(), "koinon-live-page-"));
const flags = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--disable-gpu"];
const browser = await chromium.launch({ executablePath: chromiumPath, headless: true, args: ["--no-sandbox", ...flags],
  env: { ...process.env, HOME: profile } });

// A page whose console stays clean; a scenario that expects complaints clears them.
async function open(options = {}, place = "/") {
  const context = await browser.newContext({ viewport: { width: 1100, height: 900 }, ...options });
  context.setDefaultTimeout(10000);
  const page = await context.newPage();
  page.complaints = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && page.complaints.push(message.text()));
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("dialog", (dialog) => {
    page.complaints.push(`a script said: ${dialog.message()}`);
    dialog.dismiss();
  });
  if (options.clock) await page.clock.install();
  await page.goto(address + place);
  return page;
}

async function watching(options, now = status(), mode = {}) {
  await control({ status: now, mode, drop: true, forget: true });
  const page = await open(options, `/#token=${token}`);
  await page.locator("#board").waitFor();
  return page;
}

const text = (page, selector) => page.locator(selector).first().innerText();
const shows = (page, words) => page.getByText(words).filter({ visible: true }).first().waitFor();
const until = async (what, check, seconds = 10) => {
  for (const end = Date.now() + seconds * 1000; ;) {
    if (await check()) return;
    assert.ok(Date.now() < end, `not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};
// The lengths of the waits between tries, from now on: where the countdown begins anew.
const waits = async (page) => {
  await page.evaluate(() => {
    window.countdown = [];
    const node = document.getElementById("countdown");
    const read = () => window.countdown.push(Number(node.textContent.match(/\d+/)?.[0] ?? 0));
    new MutationObserver(read).observe(node, { childList: true, characterData: true, subtree: true });
  });
  return async () => (await page.evaluate(() => window.countdown)).filter((left, i, all) => left > (all[i - 1] ?? 0));
};
const calls = async () => (await control()).calls.filter((call) => call.startsWith("POST"));
const fits = async (page) => {
  const [inner, most] = await page.evaluate(() => [innerWidth, document.scrollingElement.scrollWidth]);
  assert.ok(most <= inner, `the page is ${most} px wide in a window of ${inner} px`);
};
const picture = async (page, name) => {
  if (!pictures) return;
  mkdirSync(pictures, { recursive: true });
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
};

// ---- the scenarios ----

scenario("without a token nothing is asked and nothing is shown", async () => {
  await control({ status: status(), mode: {}, drop: true, forget: true });
  const page = await open();
  await shows(page, "Operator's token");
  assert.equal(await page.evaluate(() => document.activeElement.id), "token");
  await page.waitForTimeout(300);
  assert.deepEqual((await control()).calls, []);
  const body = await page.locator("body").innerText();
  for (const secret of ["heart", "paris", "fedavg"]) assert.ok(!body.includes(secret), secret);
  assert.deepEqual(page.complaints, []);
  await picture(page, "door");
  return page;
});

scenario("a token is typed, kept in this tab only, and forgotten when asked", async () => {
  await control({ status: status(), mode: {}, drop: true, forget: true });
  const page = await open();
  await page.keyboard.type(token);
  await page.keyboard.press("Enter");
  await shows(page, "Round 8 of 100");
  assert.equal(page.url(), `${address}/`);
  const kept = () => page.evaluate(() => [Object.values(sessionStorage), Object.values(localStorage), document.cookie]);
  assert.deepEqual(await kept(), [[token], [], ""]);
  await page.reload();
  await shows(page, "Round 8 of 100");
  assert.equal((await control()).streams, 1);
  await page.getByRole("button", { name: "Forget the token" }).click();
  await shows(page, "The token is forgotten.");
  assert.deepEqual(await kept(), [[], [], ""]);
  assert.ok(!(await page.content()).includes("paris"), "what was shown is gone");
  await until("the stream is closed", async () => (await control()).streams === 0);
  assert.deepEqual(page.complaints, []);
  return page;
});

scenario("a token in the address is taken out of it", async () => {
  const page = await watching();
  assert.equal(page.url(), `${address}/`);
  assert.equal(await page.evaluate(() => history.length), 2, "the blank page and this one, none with the token");
  await page.goBack();
  await page.goForward();
  assert.equal(page.url(), `${address}/`);
  return page;
});

scenario("a refused token is said, forgotten and not tried again", async () => {
  await control({ status: status(), mode: {}, drop: true, forget: true });
  const page = await open({}, "/#token=wrong");
  await shows(page, "The coordinator refused the token: The operator's token is another. Look into admin.json.");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.waitForTimeout(1500);
  assert.deepEqual((await control()).calls, ["GET /v1/admin/events"]);
  return page;
});

scenario("everything of a run is shown", async () => {
  const page = await watching();
  for (const words of ["heart", "training", "Waits for: 2 of 3 updates of round 9: lyon, nice", "Round 8 of 100",
    /Round 9, training: 1 of 3 arrived, attempt 2, (41|40|39) s left/, "fedavg · run r-1c20 · app 0123456789ab",
    "late: nothing came within 60 s", "Lower the learning rate", "params.dense.kernel, params.dense.bias", "1.25 MB/s", "4.1 MB", "8.25 MB",
    /1[2-4] s ago/, "1.1 s", "1 h 2 min", "0.1.0"]) await shows(page, words);
  const charts = page.locator(".curves svg[role=img]");
  assert.equal(await charts.count(), 2);
  assert.equal(await charts.first().getAttribute("aria-label"), "Loss over rounds. training: 0.7000 in round 1, " +
    "0.3500 in round 8; held-out: 0.7500 in round 1, 0.4000 in round 8.");
  assert.deepEqual(await page.locator(".curves .legend").nth(1).locator("li").allInnerTexts(),
    ["training 0.8625", "held-out 0.8125", "worst client 0.7625"]);
  await shows(page, "shaded: clients' mean ± standard deviation");
  const names = await page.getByRole("table", { name: "3 clients" }).getByRole("rowheader").allInnerTexts();
  assert.deepEqual(names, ["lyon", "nice", "paris"], "by name, whoever came first");
  const left = await page.getByRole("table", { name: "2 updates are missing" }).getByRole("row").allInnerTexts();
  assert.deepEqual(left.map((row) => row.split(/\s+/).slice(0, 3).join(" ")), ["round client what", "6 lyon refused", "5 nice lost"]);
  await page.getByText("Every round's figures").click();
  const everyRound = page.getByRole("table", { name: "Every round" }).getByRole("row");
  await until("a row for each round", async () => (await everyRound.count()) === 9);
  assert.equal(await page.title(), "heart: training, round 8");
  assert.deepEqual(page.complaints, []);
  await picture(page, "desktop");
  return page;
});

scenario("time goes on between two statuses", async () => {
  const page = await watching({ clock: true });
  await page.clock.runFor(10000);
  await shows(page, /3[01] s left/);
  await shows(page, /2[23] s ago/);
  await page.clock.runFor(35000);
  return page;
});

scenario("new rounds change the curves, a change of state is said aloud", async () => {
  const page = await watching();
  const line = () => page.locator(".curves svg[role=img] path.line.first").first().getAttribute("d");
  const before = await line();
  const more = run({ round: 9, history: [...run().history, record(9, { loss: null })], state: "paused", waits_for: null });
  await control({ status: status(more) });
  await shows(page, "Round 9 of 100");
  await until("a new curve", async () => (await line()) !== before);
  assert.match(await page.locator(".curves svg[role=img]").first().getAttribute("aria-label"), /0\.3444 in round 9; .* 0\.4000 in round 8/);
  await until("said", async () => (await text(page, "#said")) === "heart: paused");
  assert.equal(await page.locator(".lead").count(), 1);
  const done = run({ state: "finished", stopped: "converged: loss has not improved for 10 rounds", digest: "ab".repeat(32), open: null });
  await control({ status: status(done) });
  await shows(page, "converged: loss has not improved for 10 rounds");
  await shows(page, "ab".repeat(32));
  assert.equal(await page.getByRole("button", { name: /Pause|Resume|Cancel/ }).count(), 0);
  assert.deepEqual(page.complaints, []);
  return page;
});

scenario("runs without rounds, several runs and no run have their page", async () => {
  const empty = run({ run: "r-0", name: "young", round: 0, rounds: null, history: [], clients: [], open: null, waits_for: "3 clients to join", state: "waiting" });
  const page = await watching({}, status(run(), empty));
  await shows(page, "Waits for: 3 clients to join");
  await shows(page, "0 rounds");
  assert.deepEqual(await page.locator(".run h2").allInnerTexts(), ["heart", "young"]);
  await control({ status: { ...status(), runs: [], clients: [] } });
  await shows(page, "No run yet.");
  assert.equal(await page.locator(".run").count(), 0);
  assert.deepEqual(page.complaints, []);
  return page;
});

const HOSTILE = ["<img src=x onerror=\"document.title='taken'\">", "</script><script>alert(1)</script>", "__proto__",
  "\u202eevil\u0007", "'\"><svg onload=alert(1)>", "x".repeat(3000), "&lt;b&gt;"];

function hostileStatus() {
  const clients = HOSTILE.map((name, i) => client(name, { client: `c-${i}${name}`, standing: name, last_error: name, train_examples: name }));
  const reasons = JSON.parse(`{"__proto__": "a reason", "${"y".repeat(300)}": "late"}`);
  const figures = Object.fromEntries(HOSTILE.map((name) => [`accuracy ${name}`, 0.5]));
  const history = [1, 2].map((i) => ({ ...record(i), ...figures, lost: reasons, refused: { [HOSTILE[0]]: HOSTILE[0] } }));
  const bad = HOSTILE.slice(0, 6).map((name, i) => run({ run: `r${i}${name}`, name, algorithm: name, app: name, waits_for: name,
    history: i ? [] : history, clients: i ? [] : clients, open: { round: name, purpose: name, asked: 3, arrived: name, attempt: 1, seconds_left: name } }));
  const parties = HOSTILE.map((name, i) => party(name, { client: `c-${i}${name}`, kind: name }));
  return { ...status(...bad), clients: parties, version: HOSTILE[0] };
}

scenario("nothing from the status becomes markup", async () => {
  const page = await watching({ viewport: { width: 360, height: 740 } }, hostileStatus());
  await shows(page, HOSTILE[0]);
  await shows(page, "a reason");
  await page.getByText("Every round's figures").first().click();
  assert.equal(await page.locator("main img, main script, main [onload], main [onerror]").count(), 0);
  assert.ok(!(await page.title()).startsWith("taken"));
  assert.ok(!(await page.locator("body").innerText()).includes("\u202e"), "a name cannot turn the words around it");
  await page.getByRole("button", { name: `Revoke ${HOSTILE[0]}` }).click();
  await shows(page, `Revoke ${HOSTILE[0]}?`);
  await fits(page);
  await page.keyboard.press("Escape");
  assert.deepEqual(page.complaints, []);
  await picture(page, "hostile");
  return page;
});

scenario("the browser enforces the policy", async () => {
  const page = await watching();
  const outcome = await page.evaluate(async () => {
    const script = document.createElement("script");
    const found = {};
    try { script.textContent = "window.ran = true"; document.body.append(script); } catch { found.script = "refused"; }
    try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); found.markup = "made"; } catch { found.markup = "refused"; }
    try { setTimeout("window.ran = true", 0); } catch { found.timer = "refused"; }
    found.elsewhere = await fetch("http://127.0.0.1:9/").then(() => "asked", () => "refused");
    await new Promise((resolve) => setTimeout(resolve, 100));
    return { ...found, ran: window.ran ?? false };
  });
  assert.equal(outcome.ran, false);
  assert.equal(outcome.markup, "refused");
  const blocked = page.complaints.join("\n");
  assert.match(blocked, /Content Security Policy/);
  assert.match(blocked, /127\.0\.0\.1:9/);
  return page;
});

scenario("a lost connection is said with the seconds to the next try, which grow", async () => {
  const page = await watching();
  let lengths = await waits(page);
  await control({ mode: { failing: { status: 503, message: "The coordinator is starting." } }, drop: true });
  await shows(page, "Connection lost, trying again in 1 s. The coordinator ended the connection.");
  await shows(page, "Connection lost, trying again in 2 s. The coordinator is starting.");
  await shows(page, "trying again in 4 s");
  assert.deepEqual(await lengths(), [1, 2, 4]);
  await shows(page, /Figures of \d s ago/);
  await until("said", async () => (await text(page, "#said")).startsWith("Connection lost"));
  assert.ok(await page.getByText("Round 8 of 100").isVisible(), "the last figures stay");
  await picture(page, "lost");
  await control({ mode: {}, status: status(run({ round: 20 })) });
  await page.getByRole("button", { name: "Try now" }).click();
  await shows(page, "Round 20 of 100");
  await shows(page, "Live");
  assert.equal((await control()).streams, 1);
  lengths = await waits(page);
  await control({ drop: true });
  await until("another try", async () => (await lengths()).length && (await text(page, "#connection")) === "Live");
  assert.deepEqual(await lengths(), [1], "a connection that worked begins anew");
  return page;
});

scenario("a coordinator that says when to come again is obeyed", async () => {
  const failing = { status: 429, message: "Too many requests.", headers: { "Retry-After": "7" } };
  const page = await watching();
  const lengths = await waits(page);
  await control({ mode: { failing }, drop: true });
  await until("two waits", async () => (await lengths()).length === 2);
  assert.deepEqual(await lengths(), [1, 7]);
  return page;
});

scenario("a connection without a sound for 45 seconds is given up", async () => {
  const page = await watching({ clock: true });
  await control({ mode: { silent: true } });
  await page.clock.runFor(44000);
  assert.equal(await text(page, "#connection"), "Live");
  await page.clock.runFor(2500);
  await shows(page, "Nothing was heard for 45 s.");
  await control({ mode: { hang: true, silent: true }, drop: true });
  await page.clock.runFor(1500);
  await shows(page, "Connection lost, trying now");
  await page.clock.runFor(46000);
  await shows(page, "Nothing was heard for 45 s.");
  return page;
});

scenario("events cut anywhere are read whole, unreadable ones are said", async () => {
  const page = await watching({}, status(run({ name: "Zürich 北京 🫀" })), { chunk: 7 });
  await shows(page, "Zürich 北京 🫀");
  await control({ mode: { text: "{\"runs\": NaN" } });
  await shows(page, /A status could not be read/);
  await control({ mode: {}, status: status(run({ round: 33 })) });
  await shows(page, "Round 33 of 100");
  await shows(page, "Live");
  return page;
});

scenario("pause and resume are one button that keeps the focus", async () => {
  const page = await watching();
  const button = page.getByRole("button", { name: "Pause" });
  await button.focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  await until("said", async () => (await text(page, "#said")) === "heart is asked to pause");
  await control({ status: status(run({ state: "paused" })) });
  await page.getByRole("button", { name: "Resume" }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Resume");
  await page.keyboard.press("Space");
  await until("both calls", async () => (await calls()).length >= 2);
  const made = await calls();
  assert.equal(made[0], "POST /v1/admin/runs/r-1c20/pause");
  assert.equal(made.at(-1), "POST /v1/admin/runs/r-1c20/resume");
  return page;
});

scenario("a second press while a call is under way does nothing", async () => {
  const page = await watching({}, status(), { call_seconds: 0.8 });
  await page.getByRole("button", { name: "Pause" }).dblclick();
  await until("said", async () => (await text(page, "#said")) === "heart is asked to pause");
  assert.deepEqual(await calls(), ["POST /v1/admin/runs/r-1c20/pause"]);
  return page;
});

scenario("cancel asks first, and no is no", async () => {
  const page = await watching();
  const button = page.getByRole("button", { name: "Cancel…" });
  await button.click();
  await shows(page, "Cancel the run heart?");
  assert.equal(await page.evaluate(() => document.activeElement.id), "no");
  await picture(page, "cancel");
  await page.keyboard.press("Escape");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Cancel…");
  await button.click();
  await page.getByRole("button", { name: "Keep it running" }).click();
  await page.waitForTimeout(200);
  assert.deepEqual(await calls(), []);
  await button.click();
  await page.getByRole("button", { name: "Cancel the run" }).click();
  await until("the call", async () => (await calls()).length === 1);
  assert.deepEqual(await calls(), ["POST /v1/admin/runs/r-1c20/cancel"]);
  return page;
});

scenario("a participant is revoked after a question", async () => {
  const page = await watching({}, { ...status(), clients: [party("paris", { client: "c-/../x" }), party("oslo", { revoked: true })] });
  assert.equal(await page.getByRole("button", { name: /^Revoke/ }).count(), 1, "not twice");
  await page.getByRole("button", { name: "Revoke paris" }).click();
  await page.getByRole("button", { name: "Revoke", exact: true }).click();
  await until("the call", async () => (await calls()).length === 1);
  assert.deepEqual(await calls(), ["POST /v1/admin/clients/c-/../x/revoke"]);
  return page;
});

scenario("a call that fails says why, in the coordinator's words", async () => {
  const page = await watching();
  await control({ mode: { failing: { status: 409, message: "The run has finished. Start another." } } });
  await page.getByRole("button", { name: "Pause" }).click();
  await shows(page, "Pausing heart failed: The run has finished. Start another.");
  assert.equal(await page.locator("#problem").getAttribute("role"), "alert");
  return page;
});

scenario("statuses leave the focus, an opened table and the place on the page alone", async () => {
  const page = await watching();
  await page.getByText("Every round's figures").click();
  const revoke = page.getByRole("button", { name: "Revoke nice" });
  await revoke.focus();
  await page.evaluate(() => { window.rows = [...document.querySelectorAll("tr")]; window.place = scrollY; });
  for (const round of [9, 10, 11]) {
    const history = Array.from({ length: round }, (_, i) => record(i + 1));
    await control({ status: { ...status(run({ round, history })), clients: [party("aix"), ...status().clients] } });
    await shows(page, `Round ${round} of 100`);
  }
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Revoke nice");
  const everyRound = page.getByRole("table", { name: "Every round" }).getByRole("row");
  await until("a row for each round", async () => (await everyRound.count()) === 12);
  assert.ok(await page.evaluate(() => window.rows.filter((row) => row.isConnected).length > 10), "rows are kept");
  return page;
});

scenario("the Tab key reaches everything that can be done", async () => {
  const page = await watching();
  const reached = [];
  for (let i = 0; i < 40; i += 1) {
    await page.keyboard.press("Tab");
    const name = await page.evaluate(() => {
      const { tagName, textContent, ariaLabel } = document.activeElement;
      return tagName === "BODY" ? null : `${ariaLabel ?? textContent}`.split(/[.,]/)[0];
    });
    if (name === null) break;
    reached.push(name);
  }
  assert.deepEqual(reached, ["Hold still", "Pause", "Cancel…", "Loss over rounds", "Accuracy over rounds", "Clients",
    "Left out of a round", "Every round's figures", "Everybody who has enrolled", "Revoke lyon", "Revoke nice",
    "Revoke paris", "Forget the token"]);
  return page;
});

scenario("hold still stops the page from changing", async () => {
  const page = await watching();
  await page.getByRole("button", { name: "Hold still" }).click();
  await control({ status: status(run({ round: 50 })) });
  await shows(page, /Figures of \d s ago/);
  await page.waitForTimeout(1200);
  assert.ok(await page.getByText("Round 8 of 100").isVisible());
  await page.getByRole("button", { name: "Hold still" }).click();
  await shows(page, "Round 50 of 100");
  return page;
});

scenario("curves are read off with the arrow keys and the pointer", async () => {
  const page = await watching();
  const chart = page.locator(".curves svg[role=img]").first();
  await chart.focus();
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  await shows(page, "in round 7");
  await until("said", async () => /^Round 7: training 0\.3571, held-out 0\.4071$/.test(await text(page, "#said")));
  await page.keyboard.press("Home");
  await shows(page, "in round 1");
  await page.keyboard.press("Escape");
  await chart.hover({ position: { x: 60, y: 80 } });
  await shows(page, /in round [12]$/);
  return page;
});

scenario("a phone of 360 pixels shows it all without sideways scrolling", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const page = await watching({ viewport: { width: 360, height: 740 }, colorScheme, hasTouch: true, isMobile: true });
    await page.getByText("Every round's figures").click();
    await fits(page);
    for (const words of ["nothing came within 60 s", "1.25 MB/s", "params.dense.kernel"]) {
      const box = await page.getByText(words).filter({ visible: true }).first().boundingBox();
      assert.ok(box && box.x >= 0 && box.x + box.width <= 360, words);
    }
    const small = await page.evaluate(() => [...document.querySelectorAll("button, summary")].filter((node) => node.checkVisibility() && node.getBoundingClientRect().height < 24).length);
    assert.equal(small, 0, "what is pressed is large enough for a thumb");
    await picture(page, `phone-${colorScheme}`);
    await page.getByRole("button", { name: "Cancel…" }).click();
    await fits(page);
    await page.context().close();
  }
});

scenario("axe finds nothing, in either scheme, at either width", async () => {
  for (const colorScheme of ["light", "dark"]) for (const width of [1100, 360]) {
    const page = await watching({ viewport: { width, height: 800 }, colorScheme, bypassCSP: true });
    await page.getByText("Every round's figures").click();
    await page.mouse.move(0, 0);
    const check = async (where) => {
      await page.evaluate(axe.source);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      const said = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target).slice(0, 3).join(" ")}`);
      assert.deepEqual(said, [], `${where}, ${colorScheme}, ${width} px`);
    };
    await check("board");
    if (width > 1000) await picture(page, `desktop-${colorScheme}`);
    await page.getByRole("button", { name: "Cancel…" }).click();
    await check("question");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Forget the token" }).click();
    await check("door");
    await page.context().close();
  }
});

scenario("two thousand clients and five thousand rounds do not stop the page", async () => {
  const clients = Array.from({ length: 2000 }, (_, i) => client(`site-${i}`, { standing: i === 1777 ? "failed" : "idle" }));
  const history = Array.from({ length: 5000 }, (_, i) => record(i + 1, { lost: { [`site-${i % 2000}`]: "late" } }));
  const large = run({ round: 5000, rounds: 9000, history, clients });
  const page = await watching({}, status(large));
  await shows(page, "200 of 2000 clients");
  await shows(page, "The last 200");
  assert.equal(await page.getByRole("row", { name: /site-1777/ }).first().isVisible(), true, "trouble comes first");
  await page.getByLabel("Find a client").fill("site-199");
  await shows(page, "11 of 2000 clients");
  const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
  assert.ok(nodes < 12000, `${nodes} nodes`);
  const spent = await page.evaluate(() => { const start = performance.now(); render(); return performance.now() - start; });
  assert.ok(spent < 100, `a drawing without news takes ${spent} ms`);
  const path = await page.locator(".curves svg[role=img] path.line").first().getAttribute("d");
  assert.ok(path.split("L").length <= 401, "a line has no more points than can be seen");
  return page;
});

// ---- with a real coordinator: what it is to do meanwhile is asked for on standard output ----

const real = scenario;
const happens = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));
const round = async (page) => Number((await text(page, ".run .meter")).match(/^Round (\d+) of/)?.[1] ?? -1);
const goesOn = async (page, seconds = 30) => {
  const before = await round(page);
  await until("another round", async () => (await round(page)) > before, seconds);
};
const state = (page, word, seconds = 30) => until(word, async () => (await text(page, ".run .state")) === word, seconds);

real("a real run is watched, paused, resumed, found again after kill -9 and seen to end", async () => {
  const page = await open({}, `/#token=${token}`);
  for (const name of ["lyon", "nice", "paris"]) await page.getByRole("row", { name: new RegExp(name) }).first().waitFor();
  await goesOn(page);
  await page.getByRole("button", { name: "Pause" }).click();
  await state(page, "paused");
  await shows(page, /Waits for: the operator/);
  const paused = await round(page);
  await page.waitForTimeout(1500);
  assert.equal(await round(page), paused);
  await page.getByRole("button", { name: "Resume" }).click();
  await goesOn(page);
  assert.deepEqual(page.complaints, []);
  happens("kill");
  await shows(page, /Connection lost, trying again in/);
  happens("start");
  await until("live again", async () => (await text(page, "#connection")) === "Live", 40);
  await goesOn(page);
  assert.deepEqual(page.complaints.filter((said) => !/Failed to load resource: net::/.test(said)), []);
  await state(page, "finished", 90);
  const clients = page.getByRole("table", { name: "3 clients" }).getByRole("row");
  assert.match(await clients.nth(1).innerText(), /^lyon\s+idle\s/);
  await picture(page, "real");
  happens("ended", { digest: await text(page, ".run code"), round: await round(page) });
  return page;
});

real("a real participant is revoked and a real run cancelled, over TLS", async () => {
  const page = await open({ ignoreHTTPSErrors: true }, `/#token=${token}`);
  await goesOn(page);
  await page.getByRole("button", { name: "Revoke nice" }).click();
  await page.getByRole("button", { name: "Revoke", exact: true }).click();
  await until("revoked", async () => (await page.getByRole("button", { name: "Revoke nice" }).count()) === 0);
  await page.getByRole("button", { name: "Cancel…" }).click();
  await page.getByRole("button", { name: "Cancel the run" }).click();
  await state(page, "cancelled");
  assert.deepEqual(page.complaints, []);
  return page;
});

// ---- go ----

for (const name of wanted) {
  let failure = null;
  let page;
  try {
    page = await scenarios.get(name)();
  } catch (error) {
    failure = `${error.stack ?? error}`.slice(0, 3000);
  }
  for (const context of browser.contexts()) await context.close();
  console.log(JSON.stringify({ name, failure }));
}
await browser.close();
rmSync(profile, { recursive: true, force: true });
