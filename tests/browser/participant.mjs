// Drive examples/browser/participant.html in Chromium: one browser context a party, as one browser a party would be.
//
// Reads a scenario as JSON from standard input, writes what each party saw as JSON to standard output:
// {"url", "seconds", "parties": [{"link", "name", "app", "examples", "p256", "reload", "again", "greeting"}]}
// -> [{"status", "log", "console", "asked", "greeted"}]
//
// With "reload", the page is loaded anew after that line of its log. With "again", the party opens it in a second tab
// after that line, "older" is what the first tab shows then, and the rest is of the second. With "greeting", a party only sends those words to
// the other one in the first round, and "greeted" is what it received.

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
  if (party.greeting) {
    await page.goto(url);
    return { ...seen, greeted: await page.evaluate(greet, party) };
  }
  await take(page, party);
  if (party.reload) {
    await page.locator("#log li", { hasText: party.reload }).waitFor();
    await page.reload();
    await take(page, party);
  }
  if (party.again) {
    await page.locator("#log li", { hasText: party.again }).waitFor();
    const second = await context.newPage();
    await take(second, party);
    return { ...(await ended(second, seen)), older: (await ended(page, seen)).status };
  }
  return { ...(await ended(page, seen)), ...seen };
}

async function ended(page, seen) {
  const last = page.locator("#status", { hasText: /^(Finished|Stopped|The run was)/ });
  await last.waitFor().catch((error) => seen.console.push(String(error)));
  const status = await page.locator("#status").textContent();
  return { status, log: await page.locator("#log li").allTextContents() };
}

async function take(page, { link, name, app, examples, p256 }) {
  if (page.url() !== url) await page.goto(url);
  for (const [field, value] of Object.entries({ link, name, app, examples })) await page.fill(`[name=${field}]`, value);
  await page.setChecked("[name=p256]", p256);
  await page.click("button");
}

/** Runs in the page: exchange a message with the other party while the first round is open. */
async function greet({ link, name, p256, greeting }) {
  const [{ Participant }, { makeKeys }] = await Promise.all([import("./participant.js"), import("./signing.js")]);
  const party = await Participant.enrol(link, name, await makeKeys(p256 ? "p256" : "ed25519"));
  const [{ run, app }] = await party.runs();
  await party.join(run, app, 10, 0);
  let work = { serial: 0 };
  while (work.state !== "train") work = (await party.work(run, work.serial)) ?? work;
  const other = (await party.clients(run)).find(({ client }) => client !== party.client);
  await party.send(run, work.round, "greeting", other.client, new TextEncoder().encode(greeting));
  let found = { messages: [] };
  while (!found.messages.length) found = await party.receive(run, work.round, "greeting", 0);
  const [message] = found.messages;
  const place = [run, work.round, "greeting", other];
  return {
    number: message.number,
    from: other.name,
    words: new TextDecoder().decode(message.body),
    signed: await party.signed(...place, message),
    forged: await party.signed(...place, { ...message, body: new TextEncoder().encode("other words") }),
  };
}

function asked(request) {
  return { method: request.method(), path: new URL(request.url()).pathname, range: request.headers().range ?? null };
}
