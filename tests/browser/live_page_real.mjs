// The live page with a real coordinator; what is to be done to it meanwhile is asked for on standard output.

import assert from "node:assert/strict";

import { open, picture, scenario, shows, text, token, until } from "./live_page_stage.mjs";

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
});
