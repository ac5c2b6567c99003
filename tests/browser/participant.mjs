// Drive examples/browser/participant.html in Chromium: one browser context a party, as one browser a party would be.
//
// Reads a scenario as JSON from standard input, writes what each party saw as JSON to standard output:
// {"url", "seconds", "parties": [{"link", "name", "app", "examples", "p256", "reload", "greeting"}]}
// -> [{"status", "log", "console", "asked", "greeted"}]
//
// With "reload", the page is loaded anew after that line of its log. With "greeting", it sends those words to the
// other party in the first round before it takes part, and "greeted" is what it received.

import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const { chromium } = createRequire(import.meta.url)("playwright-core");
const ARGUMENTS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

const { url, seconds, parties } = JSON.parse(await text(process.stdin));
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ARGUMENTS });
try {
  process.stdout.write(JSON.stringify(await Promise.all(parties.map(visit))));
} finally {
  await browser.close();
}

async function visit(party) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true }); // as if the own CA had been installed
  context.setDefaultTimeout(seconds * 1000);
  const page = await context.newPage();
  const seen = { console: [], asked: [] };
  page.on("console", (message) => seen.console.push(message.text()));
  page.on("pageerror", (error) => seen.console.push(String(error)));
  page.on("request", (request) => seen.asked.push(asked(request)));
  if (party.greeting) seen.greeted = await greet(page, party);
  await take(page, party);
  if (party.reload) {
    await page.locator("#log li", { hasText: party.reload }).waitFor();
    await page.reload();
    await take(page, party);
  }
  const ended = page.locator("#status", { hasText: /^(Finished|Stopped|The run was)/ });
  await ended.waitFor().catch((error) => seen.console.push(String(error)));
  const status = await page.locator("#status").textContent();
  return { status, log: await page.locator("#log li").allTextContents(), ...seen };
}

async function take(page, { link, name, app, examples, p256 }) {
  if (page.url() !== url) await page.goto(url);
  for (const [field, value] of Object.entries({ link, name, app, examples })) await page.fill(`[name=${field}]`, value);
  await page.setChecked("[name=p256]", p256);
  await page.click("button");
}

function asked(request) {
  return { method: request.method(), path: new URL(request.url()).pathname, range: request.headers().range ?? null };
}
