// What stays here: the party's examples, and the logistic regression of app.py in JavaScript.

// As app.py says: a page is made for one app, as every participant is.
const EPOCHS = 5;
const LEARNING_RATE = 0.5;
const HELD_OUT = 0.2; // the share of the last examples, kept for judging

/** Return what `Participant.takePart` needs of a party; `text` has an example a line: measurements, then a label. */
export function localPart(app, text) {
  const rows = parsed(text);
  const kept = rows.length - Math.floor(rows.length * HELD_OUT);
  const [own, judged] = [rows.slice(0, kept), rows.slice(kept)];
  return {
    app,
    examples: own.length,
    heldOut: judged.length,
    train: (model) => train(model, own),
    evaluate: (model) => evaluate(model, judged),
  };
}

function parsed(text) {
  const lines = text.trim().split("\n").map((line) => line.split(",").map(Number));
  return lines.map((numbers, i) => {
    if (numbers.length < 2 || numbers.length !== lines[0].length || !numbers.every(Number.isFinite)) {
      throw new Error(`Line ${i + 1} of the examples must be numbers with commas between, as many as in line 1.`);
    }
    return { x: numbers.slice(0, -1), y: numbers.at(-1) };
  });
}

/** Descend the mean loss of all examples for some epochs; return the change of the model, and metric sums. */
function train(model, rows) {
  const before = parameters(model, rows);
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
  const now = parameters(model, rows);
  const logits = rows.map((row) => predicted(now, row));
  const right = rows.filter((row, i) => logits[i] > 0 === row.y > 0.5).length;
  const total = rows.reduce((sum, row, i) => sum + loss(logits[i], row.y), 0);
  return { tensors: { "metrics.accuracy": right, "metrics.examples": rows.length, "metrics.loss": total }, weight: 1 };
}

function parameters(model, rows) {
  const weight = Array.from(model["params.weight"].data);
  if (rows.some(({ x }) => x.length !== weight.length)) throw new Error(`The model takes ${weight.length} measurements.`);
  return { weight, bias: model["params.bias"].data[0] };
}

function predicted({ weight, bias }, { x }) {
  return weight.reduce((sum, w, i) => sum + w * x[i], bias);
}

function loss(logit, y) {
  return Math.max(logit, 0) + Math.log1p(Math.exp(-Math.abs(logit))) - y * logit; // log(1 + e^logit) - y logit
}
