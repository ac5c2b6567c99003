// The page's participant in Node.js over a network that loses, repeats and damages: each of it every so many times.
//
// Reads {"folder", "first", "parties": [{"link", "name", "app", "examples"}]} from standard input, writes
// [{"last", "told", "faults"}].

import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const { folder, first, parties } = JSON.parse(await text(process.stdin));
const load = (name) => import(new URL(name, pathToFileURL(`${folder}/`)));
const [{ localPart }, { Participant }, { makeKeys }] = await Promise.all(
  ["logistic.js", "participant.js", "signing.js"].map(load),
);

const EVERY = {
  lost: 29, unanswered: 31, repeated: 23, forgotten: 37, damagedUp: 7, damagedDown: 11,
  unannounced: 9, unjoined: 13, busy: 43,
};
const chances = Object.fromEntries(Object.keys(EVERY).map((what) => [what, first]));
const faults = Object.fromEntries(Object.keys(EVERY).map((what) => [what, 0]));
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
  if (happens("lost")) throw new TypeError("the request was lost");
  if (options.headers.Authorization && happens("forgotten")) {
    options = { ...options, headers: { ...options.headers, Authorization: "Bearer unknown" } };
  }
  if (options.method === "PUT" && happens("damagedUp")) options = { ...options, body: damaged(options.body) };
  if (options.method !== "GET" && happens("repeated")) await (await plain(url, options)).arrayBuffer();
  if (options.headers.Authorization && happens("busy")) return refusal(429, "rate", { "Retry-After": "1" });
  if (/\/(update\/\d+|commit)$/.test(path) && happens("unannounced")) return refusal(404, "unknown");
  if (path.endsWith("/work") && happens("unjoined")) return refusal(403, "not_joined");
  const answer = await plain(url, options);
  if (happens("unanswered")) {
    await answer.arrayBuffer();
    throw new TypeError("the answer was lost");
  }
  if (path.startsWith("/v1/blobs/") && answer.ok && happens("damagedDown")) {
    return new Response(damaged(new Uint8Array(await answer.arrayBuffer())), { status: answer.status });
  }
  return answer;
}

function refusal(status, code, headers = {}) {
  return Response.json({ error: { code, message: `A test says ${code}.` } }, { status, headers });
}

function happens(what) {
  const now = ++chances[what] % EVERY[what] === 0;
  if (now) faults[what] += 1;
  return now;
}

function damaged(bytes) {
  const changed = bytes.slice();
  changed[changed.length >> 1] ^= 1;
  return changed;
}
