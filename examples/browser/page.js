// The page of participant.html: its form, what it shows, and its identity in the browser's own store.

import { localPart } from "./logistic.js";
import { Participant, parseLink, reached } from "./participant.js";
import { checkReceipts } from "./receipts.js";
import { makeKeys } from "./signing.js";

const form = document.getElementById("form");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  form.inert = true;
  try {
    show(await takePart(Object.fromEntries(new FormData(form))));
  } catch (error) {
    show(`Stopped. ${error.message}`);
    form.inert = false;
  }
});

async function takePart({ link, name, app, examples, p256 }) {
  const local = localPart(app, examples);
  const participant = await enrolled(link, name, p256 ? "p256" : undefined);
  const [run] = await participant.runs();
  if (!run) throw new Error("The coordinator has no run yet. Ask its operator, then press the button again.");
  show(`${name} is ${participant.client}, signs with ${participant.keys.kind}, and takes part in ${run.name}.`);
  const sent = [];
  const last = await participant.takePart(run.run, local, ({ kind, work, weight, root, error }) => {
    const what = `round ${work.round}, ${work.purpose}`;
    if (kind === "committed") sent.push({ round: work.round, purpose: work.purpose, root });
    log(kind === "committed" ? `${what}: sent, with weight ${weight}` : `${what}: not sent. ${error.message}`);
  });
  const receipts = await checked(participant, run, sent);
  await participant.leave(run.run, last);
  const ended = last.state === "finished" ? "Finished" : `The run was ${last.state}`;
  return `${ended}: ${last.stopped}. ${last.digest ? `Digest ${last.digest}. ` : ""}${receipts}`;
}

/** Return in words whether the coordinator's receipts hold what this page sent. */
async function checked(participant, { run, app }, sent) {
  const { coordinator, client } = participant;
  const receipts = await participant.receipts(run);
  const wrong = await checkReceipts(receipts, { run, app, coordinator, client }, sent);
  return wrong.length ? wrong.join(" ") : `All ${sent.length} answers of this page are in the signed receipts.`;
}

/** Return the party of a join link: as it enrolled on an earlier visit, or enrolled now. */
async function enrolled(link, name, kind) {
  await reached(parseLink(link).url);
  const place = [link, name];
  const kept = await inStore("readonly", (store) => store.get(place));
  if (kept?.client) return new Participant(kept);
  const known = kept && (!kind || kept.keys.kind === kind);
  const keys = known ? kept.keys : await makeKeys(kind);
  await inStore("readwrite", (store) => store.put({ keys }, place)); // first, so that no reload can lose the key
  const participant = await Participant.enrol(link, name, keys);
  await inStore("readwrite", (store) => store.put({ ...participant }, place));
  return participant;
}

/** Do one thing to the browser's own store, where a private key lies as a handle that no script can read. */
async function inStore(mode, act) {
  const opening = indexedDB.open("koinon", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore("parties");
  const database = await ended(opening, "success");
  try {
    const transaction = database.transaction("parties", mode);
    const request = act(transaction.objectStore("parties"));
    await ended(transaction, "complete");
    return request.result;
  } finally {
    database.close();
  }
}

function ended(work, well) {
  return new Promise((resolve, reject) => {
    work[`on${well}`] = () => resolve(work.result);
    work.onerror = work.onabort = () => reject(work.error);
  });
}

function show(text) {
  document.getElementById("status").textContent = text;
}

function log(text) {
  document.getElementById("log").append(Object.assign(document.createElement("li"), { textContent: text }));
}
