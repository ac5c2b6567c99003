// What the coordinator signed about the run: is its chain whole, and does it hold what this participant sent?

import { sha256, utf8, verify } from "./signing.js";

/**
 * Return what does not hold, as a list of texts; an empty list if everything does.
 *
 * `receipts` are all of a run's, from its first round on; `sent` is what this client committed,
 * `{round, purpose, root}` each.
 */
export async function checkReceipts(receipts, { run, app, coordinator, client }, sent) {
  const wrong = [];
  let previous = await sha256(utf8(canonical({ run, app, coordinator })));
  for (const [i, { receipt, signature }] of receipts.entries()) {
    const own = await sha256(utf8(canonical(receipt)));
    const authentic = await verify({ kind: "ed25519", key: coordinator }, signature, "receipt", own);
    if (!authentic) wrong.push(`The receipt of round ${receipt.round} is not signed by the coordinator.`);
    if (receipt.round !== i + 1 || receipt.run !== run || receipt.app !== app || receipt.previous !== previous) {
      wrong.push(`The receipt of round ${receipt.round} does not follow the one before it.`);
    }
    previous = own;
  }
  for (const { round, purpose, root } of sent) {
    const entry = receipts[round - 1]?.receipt[purpose].find((one) => one.client === client);
    if (entry?.commit?.root !== root) wrong.push(`Round ${round}, ${purpose}: what was sent is not in the receipt.`);
    else if (entry.reason !== null) wrong.push(`Round ${round}, ${purpose}: it was left out. ${entry.reason}`);
  }
  return wrong;
}

/** Return JSON with sorted keys and no spaces. */
function canonical(value) {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  const fields = Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`);
  return `{${fields.join(",")}}`;
}
