// The page of participant.html: its form, its identity, and a logistic regression on the numbers in the form.

import { Participant, parseLink } from "./participant.js";
import { checkReceipts } from "./receipts.js";
import { makeKeys } from "./signing.js";

// What app.py says of the training; a page is made for one app, as every participant is.
const EPOCHS = 5;
const LEARNING_RATE = 0.5;
const HELD_OUT = 0.2; // the last examples, kept for judging

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
  const rows = parsed(examples);
  const participant = await enrolled(link, name, p256 ? "p256" : undefined);
  const [run] = await participant.runs();
  if (!run) throw new Error("The coordinator has no run. Ask its operator, then press the button again.");
  show(`${name} is ${participant.client}, signs with ${participant.keys.kind}, and takes part in ${run.name}.`);
  const kept = Math.floor(rows.length * HELD_OUT);
  const [own, judged] = [rows.slice(0, rows.length - kept), rows.slice(rows.length - kept)];
  const local = {
    app,
    examples: own.length,
    heldOut: judged.length,
    train: (model) => train(model, own),
    evaluate: (model) => evaluate(model, judged),
  };
  const sent = [];
  const last = await participant.takePart(run.run, local, ({ kind, work, weight, root, error }) => {
    const what = `round ${work.round}, ${work.purpose}`;
    if (kind === "committed") sent.push({ round: work.round, purpose: work.purpose, root });
    log(kind === "committed" ? `${what}: sent, with weight ${weight}` : `${what}: not sent. ${error.message}`);
  });
  if (last.state === "cancelled") return "The run was cancelled.";
  return `Finished: ${last.stopped}. Digest ${last.digest}. ${await checked(participant, run, sent)}`;
}

/** Return in words whether the coordinator's receipts hold what this page sent. */
async function checked(participant, { run, app }, sent) {
  const { coordinator, client } = participant;
  const receipts = await participant.receipts(run);
  const wrong = await checkReceipts(receipts, { run, app, coordinator, client }, sent);
  return wrong.length ? wrong.join(" ") : `All ${sent.length} answers of this page are in the signed receipts.`;
}

/** Descend the mean loss of all examples for some epochs; return the change of the model, and metric sums. */
function train(model, rows) {
  const before = parameters(model);
  let now = before;
  let seen = 0;
  for (let epoch = 0; epoch < EPOCHS; epoch++) {
    const gradient = { weight: now.weight.map(() => 0), bias: 0 };
    for (const row of rows) {
      const logit = predicted(now, row);
      const slope = (1 / (1 + Math.exp(-logit)) - row.y) / rows.length;
      row.x.forEach((x, i) => (gradient.weight[i] += slope * x));
      gradient.bias += slope;
      seen += loss(logit, row.y);
    }
    now = {
      weight: now.weight.map((w, i) => w - LEARNING_RATE * gradient.weight[i]),
      bias: now.bias - LEARNING_RATE * gradient.bias,
    };
  }
  const tensors = {
    "update.params.bias": now.bias - before.bias,
    "update.params.weight": { shape: [now.weight.length], data: now.weight.map((w, i) => w - before.weight[i]) },
    "metrics.examples": EPOCHS * rows.length,
    "metrics.loss": seen,
  };
  return { tensors, weight: rows.length };
}

/** Return metric sums over the held-out examples. */
function evaluate(model, rows) {
  const now = parameters(model);
  const logits = rows.map((row) => predicted(now, row));
  const right = rows.filter((row, i) => logits[i] > 0 === row.y > 0.5).length;
  const total = rows.reduce((sum, row, i) => sum + loss(logits[i], row.y), 0);
  return { tensors: { "metrics.accuracy": right, "metrics.examples": rows.length, "metrics.loss": total }, weight: 1 };
}

function parameters(model) {
  return { weight: Array.from(model["params.weight"].data), bias: model["params.bias"].data[0] };
}

function predicted({ weight, bias }, { x }) {
  return weight.reduce((sum, w, i) => sum + w * x[i], bias);
}

function loss(logit, y) {
  return Math.max(logit, 0) + Math.log1p(Math.exp(-Math.abs(logit))) - y * logit; // log(1 + e^logit) - y logit
}

function parsed(text) {
  return text.trim().split("\n").map((line, i) => {
    const numbers = line.split(",").map(Number);
    if (numbers.length !== 3 || !numbers.every(Number.isFinite)) {
      throw new Error(`Line ${i + 1} of the examples must be three numbers with commas between; found "${line}".`);
    }
    return { x: numbers.slice(0, 2), y: numbers[2] };
  });
}

/** Return this party as the coordinator knows it: from an earlier visit, or enrolled now. */
async function enrolled(link, name, kind) {
  const { url } = parseLink(link);
  const kept = (await remembered(url, name)) ?? { keys: await makeKeys(kind) };
  if (kept.client) return new Participant(kept);
  await remember(url, name, kept); // before the one-time token is used, so that no reload can lose the key
  const participant = await Participant.enrol(link, name, kept.keys);
  await remember(url, name, { ...participant });
  return participant;
}

const remembered = (...place) => inStore("readonly", (store) => store.get(place));
const remember = (url, name, value) => inStore("readwrite", (store) => store.put(value, [url, name]));

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
