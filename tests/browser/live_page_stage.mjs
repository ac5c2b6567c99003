// What the scenarios of the live page stand on: made-up statuses, the stand-in that serves them, and the browser.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const require = createRequire(import.meta.url); // looks along NODE_PATH, as import does not
export const [chromiumPath, address, token, ...wanted] = process.argv.slice(2);
export const scenarios = new Map();
export const scenario = (name, run) => scenarios.set(name, run);
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
export const axe = need("axe-core");

// ---- the stand-in ----

export async function control(wish) {
  const options = wish && { method: "POST", body: JSON.stringify(wish) };
  const answer = await fetch(`${address}/stand-in`, { ...options, signal: AbortSignal.timeout(10000) });
  return answer.json();
}

export const record = (round, more = {}) => ({
  round, cohort: 3, seconds: 1.2, refused: {}, lost: {},
  train_loss: 0.3 + 0.4 / round, train_accuracy: 0.9 - 0.3 / round,
  loss: 0.35 + 0.4 / round, accuracy: 0.85 - 0.3 / round,
  accuracy_mean: 0.85 - 0.3 / round, accuracy_worst: 0.8 - 0.3 / round, accuracy_spread: 0.04, ...more,
});

export const client = (name, more = {}) => ({
  client: `c-${name}`, name, standing: "asked", seconds_since_heard: 12, train_examples: 100,
  bytes_received: 4100000, bytes_sent: 8250000, upload_bytes_per_second: 1250000, last_round_seconds: 1.1,
  rounds_done: 4, last_error: null, ...more,
});

export const run = (more = {}) => ({
  run: "r-1c20", name: "heart", algorithm: "fedavg", app: "0123456789abcdef".repeat(4), state: "training",
  waits_for: "2 of 3 updates of round 9: lyon, nice (last heard of 12 s ago)", round: 8, rounds: 100, stopped: null,
  digest: null, open: { round: 9, purpose: "train", asked: 3, arrived: 1, attempt: 2, seconds_left: 41 },
  history: [1, 2, 3, 4, 5, 6, 7, 8].map((i) => record(i, i === 5 ? { lost: { nice: "late: nothing came within 60 s" } } :
    i === 6 ? { refused: { lyon: ["params.dense.kernel", "params.dense.bias"] } } : {})),
  clients: [client("paris", { standing: "arrived" }), client("lyon"),
    client("nice", { standing: "late", last_error: "nothing came within 60 s", upload_bytes_per_second: null })],
  ...more,
});

export const party = (name, more = {}) => ({ client: `c-${name}`, name, kind: "ed25519", revoked: false, seconds_since_heard: 12, ...more });

export const status = (...runs) => ({
  version: "0.1.0", url: address, seconds: 3723, runs: runs.length ? runs : [run()],
  clients: [party("paris"), party("lyon", { kind: "p256" }), party("nice"), party("oslo", { revoked: true })],
  invitations_open: 1,
});

// ---- the browser ----

export const profile = mkdtempSync(join(tmpdir(), "koinon-live-page-"));
const flags = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--disable-gpu"];
export const browser = await chromium.launch({ executablePath: chromiumPath, headless: true, args: ["--no-sandbox", ...flags],
  env: { ...process.env, HOME: profile } });

// A page whose console stays clean; a scenario that expects complaints clears them.
export async function open(options = {}, place = "/") {
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

export async function watching(options, now = status(), mode = {}) {
  await control({ status: now, mode, drop: true, forget: true });
  const page = await open(options, `/#token=${token}`);
  await page.locator("#board").waitFor();
  return page;
}

export const text = (page, selector) => page.locator(selector).first().innerText();
export const shows = (page, words) => page.getByText(words).filter({ visible: true }).first().waitFor();
export const until = async (what, check, seconds = 10) => {
  for (const end = Date.now() + seconds * 1000; ;) {
    if (await check()) return;
    assert.ok(Date.now() < end, `not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};
// The lengths of the waits between tries, from now on: where the countdown begins anew.
export const waits = async (page) => {
  await page.evaluate(() => {
    window.countdown = [];
    const node = document.getElementById("countdown");
    const read = () => window.countdown.push(Number(node.textContent.match(/\d+/)?.[0] ?? 0));
    new MutationObserver(read).observe(node, { childList: true, characterData: true, subtree: true });
  });
  return async () => (await page.evaluate(() => window.countdown)).filter((left, i, all) => left > (all[i - 1] ?? 0));
};
export const calls = async () => (await control()).calls.filter((call) => call.startsWith("POST"));
export const fits = async (page) => {
  const [inner, most] = await page.evaluate(() => [innerWidth, document.scrollingElement.scrollWidth]);
  assert.ok(most <= inner, `the page is ${most} px wide in a window of ${inner} px`);
};
export const picture = async (page, name) => {
  if (!pictures) return;
  mkdirSync(pictures, { recursive: true });
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
};
