// The page's participant in Node.js over a network that loses, repeats and damages, by a seed.
//
// Reads {"folder", "seed", "parties": [{"link", "name", "app", "examples"}]} from standard input, writes
// [{"last", "told", "faults"}].

import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const { folder, seed, parties } = JSON.parse(await text(process.stdin));
const load = (name) => import(new URL(name, pathToFileURL(`${folder}/`)));
const [{ localPart }, { Participant }, { makeKeys }] = await Promise.all(
  ["logistic.js", "participant.js", "signing.js"].map(load),
);

let state = seed;
const draw = () => (state = (state * 48271) % 2147483647) / 2147483647; // Park and Miller
const faults = { lost: 0, unanswered: 0, repeated: 0, damagedUp: 0, damagedDown: 0, forgotten: 0 };
const plain = globalThis.fetch;
globalThis.fetch = unreliable;

process.stdout.write(JSON.stringify({ parties: await Promise.all(parties.map(take)), faults }));

async function take({ link, name, app, examples }) {
  const participant = await Participant.enrol(link, name, await makeKeys());
  const [{ run }] = await participant.runs();
  const told = [];
  const tell = ({ kind, work, error }) => told.push([kind, work.round, work.purpose, error?.message ?? null]);
  const last = await participant.takePart(run, localPart(app, examples), tell);
  return { last, told };
}

async function unreliable(url, options) {
  const path = new URL(url).pathname;
  if (happens("lost", 0.03)) throw new TypeError("the request was lost");
  if (options.headers.Authorization && happens("forgotten", 0.03)) {
    options = { ...options, headers: { ...options.headers, Authorization: "Bearer unknown" } };
  }
  if (options.method === "PUT" && happens("damagedUp", 0.1)) options = { ...options, body: damaged(options.body) };
  if (options.method !== "GET" && happens("repeated", 0.05)) await (await plain(url, options)).arrayBuffer();
  const answer = await plain(url, options);
  if (happens("unanswered", 0.03)) {
    await answer.arrayBuffer();
    throw new TypeError("the answer was lost");
  }
  if (path.startsWith("/v1/blobs/") && answer.ok && happens("damagedDown", 0.1)) {
    return new Response(damaged(new Uint8Array(await answer.arrayBuffer())), { status: answer.status });
  }
  return answer;
}

function happens(what, chance) {
  const now = draw() < chance;
  if (now) faults[what] += 1;
  return now;
}

function damaged(bytes) {
  const changed = bytes.slice();
  changed[Math.floor(draw() * changed.length)] ^= 1;
  return changed;
}
