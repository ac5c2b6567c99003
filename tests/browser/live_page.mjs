// Scenarios of the live page in Chromium: node live_page.mjs CHROMIUM ADDRESS TOKEN SCENARIO...
// One line of JSON a scenario: {"name", "failure"}. Status 3: a package is missing, standard error says which.

import { rmSync } from "node:fs";

import "./live_page_real.mjs";
import "./live_page_shown.mjs";
import { browser, profile, scenarios, wanted } from "./live_page_stage.mjs";
import "./live_page_use.mjs";

for (const name of wanted) {
  let failure = null;
  try {
    await scenarios.get(name)();
  } catch (error) {
    failure = `${error.stack ?? error}`.slice(0, 3000);
  }
  for (const context of browser.contexts()) await context.close();
  console.log(JSON.stringify({ name, failure }));
}
await browser.close();
rmSync(profile, { recursive: true, force: true });
