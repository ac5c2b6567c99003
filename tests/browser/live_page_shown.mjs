// What the live page shows of a status, to whom, and how much of it.

import assert from "node:assert/strict";

import {
  axe, client, control, fits, party, picture, record, run, scenario, shows, status, text, until, watching,
} from "./live_page_stage.mjs";

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
});

scenario("what has no result is said once, with its rounds", async () => {
  const [few, gone] = ["2 hold examples out: nobody judges the model", "nice fell silent before the sum was opened"];
  const history = Array.from({ length: 12 }, (_, i) => record(i + 1, { void: { evaluate: few, ...(i === 4 ? { train: gone } : {}) } }));
  const page = await watching({}, status(run({ history })));
  const rows = await page.getByRole("table", { name: "2 reasons" }).getByRole("row").allInnerTexts();
  assert.deepEqual(rows.map((row) => row.split(/\s*\t\s*/)), [["rounds", "of what", "reason"],
    ["1, 2, 3, 4, 5, 6, 7, 8 and 4 more", "evaluation", few], ["5", "training", gone]]);
  await page.getByText("Every round's figures").click();
  assert.equal(await page.getByRole("columnheader", { name: "void" }).count(), 0, "it is no figure");
  await page.close();
  const other = await watching();
  assert.equal(await other.getByText("Without a result").isVisible(), false);
  assert.deepEqual(page.complaints, []);
});

scenario("time goes on between two statuses", async () => {
  const page = await watching({ clock: true });
  await page.clock.runFor(10000);
  await shows(page, /3[01] s left/);
  await shows(page, /2[23] s ago/);
  await page.clock.runFor(35000);
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
  await control({ status: status(run({ state: "training" })) });
  await until("said", async () => (await text(page, "#said")) === "heart: at work");
  await control({ status: status(run({ state: "evaluating" })) });
  await shows(page, "evaluating");
  assert.equal(await text(page, "#said"), "heart: at work", "what changes several times a second is not said");
  assert.equal(await page.locator(".lead").count(), 1);
  const done = run({ state: "finished", stopped: "converged: loss has not improved for 10 rounds", digest: "ab".repeat(32), open: null });
  await control({ status: status(done) });
  await shows(page, "converged: loss has not improved for 10 rounds");
  await shows(page, "ab".repeat(32));
  assert.equal(await page.getByRole("button", { name: /Pause|Resume|Cancel/ }).count(), 0);
  assert.deepEqual(page.complaints, []);
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
});

const HOSTILE = ["<img src=x onerror=\"document.title='taken'\">", "</script><script>alert(1)</script>", "__proto__",
  "\u202eevil\u0007", "'\"><svg onload=alert(1)>", "x".repeat(3000), "&lt;b&gt;"];

function hostileStatus() {
  const clients = HOSTILE.map((name, i) => client(name, { client: `c-${i}${name}`, standing: name, last_error: name, train_examples: name }));
  const reasons = JSON.parse(`{"__proto__": "a reason", "${"y".repeat(300)}": "late"}`);
  const figures = Object.fromEntries(HOSTILE.map((name) => [`accuracy ${name}`, 0.5]));
  const history = [1, 2].map((i) => ({ ...record(i), ...figures, lost: reasons, void: { train: HOSTILE[i], [HOSTILE[0]]: HOSTILE[0] }, refused: { [HOSTILE[0]]: HOSTILE[0] } }));
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
});
