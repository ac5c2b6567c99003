// The token, the connection, the buttons and the keys of the live page.

import assert from "node:assert/strict";

import {
  address, calls, control, open, party, picture, record, run, scenario, shows, status, text, token, until, waits,
  watching,
} from "./live_page_stage.mjs";

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
});

scenario("a token in the address is taken out of it", async () => {
  const page = await watching();
  assert.equal(page.url(), `${address}/`);
  assert.equal(await page.evaluate(() => history.length), 2, "the blank page and this one, none with the token");
  await page.goBack();
  await page.goForward();
  assert.equal(page.url(), `${address}/`);
});

scenario("a refused token is said, forgotten and not tried again", async () => {
  await control({ status: status(), mode: {}, drop: true, forget: true });
  const page = await open({}, "/#token=wrong");
  await shows(page, "The coordinator refused the token: The operator's token is another. Look into admin.json.");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.waitForTimeout(1500);
  assert.deepEqual((await control()).calls, ["GET /v1/admin/events"]);
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
});

scenario("a coordinator that says when to come again is obeyed", async () => {
  const failing = { status: 429, message: "Too many requests.", headers: { "Retry-After": "7" } };
  const page = await watching();
  const lengths = await waits(page);
  await control({ mode: { failing }, drop: true });
  await until("two waits", async () => (await lengths()).length === 2);
  assert.deepEqual(await lengths(), [1, 7]);
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
});

scenario("events cut anywhere are read whole, unreadable ones are said", async () => {
  const page = await watching({}, status(run({ name: "Zürich 北京 🫀" })), { chunk: 7 });
  await shows(page, "Zürich 北京 🫀");
  await control({ mode: { text: "{\"runs\": NaN" } });
  await shows(page, /A status could not be read/);
  await control({ mode: {}, status: status(run({ round: 33 })) });
  await shows(page, "Round 33 of 100");
  await shows(page, "Live");
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
});

scenario("a second press while a call is under way does nothing", async () => {
  const page = await watching({}, status(), { call_seconds: 0.8 });
  await page.getByRole("button", { name: "Pause" }).dblclick();
  await until("said", async () => (await text(page, "#said")) === "heart is asked to pause");
  assert.deepEqual(await calls(), ["POST /v1/admin/runs/r-1c20/pause"]);
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
});

scenario("a participant is revoked after a question", async () => {
  const page = await watching({}, { ...status(), clients: [party("paris", { client: "c-/../x" }), party("oslo", { revoked: true })] });
  assert.equal(await page.getByRole("button", { name: /^Revoke/ }).count(), 1, "not twice");
  await page.getByRole("button", { name: "Revoke paris" }).click();
  await page.getByRole("button", { name: "Revoke", exact: true }).click();
  await until("the call", async () => (await calls()).length === 1);
  assert.deepEqual(await calls(), ["POST /v1/admin/clients/c-/../x/revoke"]);
});

scenario("a call that fails says why, in the coordinator's words", async () => {
  const page = await watching();
  await control({ mode: { failing: { status: 409, message: "The run has finished. Start another." } } });
  await page.getByRole("button", { name: "Pause" }).click();
  await shows(page, "Pausing heart failed: The run has finished. Start another.");
  assert.equal(await page.locator("#problem").getAttribute("role"), "alert");
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
  assert.deepEqual(reached, ["Freeze page", "Pause", "Cancel…", "Loss over rounds", "Accuracy over rounds", "Clients",
    "Left out of a round", "Every round's figures", "Everybody who has enrolled", "Revoke lyon", "Revoke nice",
    "Revoke paris", "Forget the token"]);
});

scenario("a frozen page does not change", async () => {
  const page = await watching();
  await page.getByRole("button", { name: "Freeze page" }).click();
  await control({ status: status(run({ round: 50 })) });
  await shows(page, /Figures of \d s ago/);
  await page.waitForTimeout(1200);
  assert.ok(await page.getByText("Round 8 of 100").isVisible());
  await page.getByRole("button", { name: "Freeze page" }).click();
  await shows(page, "Round 50 of 100");
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
});
