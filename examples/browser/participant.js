// A participant of protocol v1 (docs/protocol.md) in a web page: fetch and WebCrypto, nothing else.
//
//   const participant = await Participant.enrol(link, "paris");
//   await participant.takePart(run, {app, examples, heldOut, train, evaluate}, tell);

import { readTensors, writeTensors } from "./tensors.js";

const WAIT_SECONDS = 30; // how long a long poll may stay unanswered
const ANSWER_SECONDS = 60; // how long any other call may take
const PAUSES_SECONDS = [0.5, 1, 2, 4, 8, 16, 30, 30, 30]; // between attempts: two minutes in all
const KINDS = {
  ed25519: { make: { name: "Ed25519" }, sign: { name: "Ed25519" } },
  p256: { make: { name: "ECDSA", namedCurve: "P-256" }, sign: { name: "ECDSA", hash: "SHA-256" } },
};

/** An answer other than 2xx: its status, its code, and what the coordinator says to do. */
export class ProtocolError extends Error {
  constructor(status, { code, message, ...rest }) {
    super(message);
    Object.assign(this, { name: "ProtocolError", status, code, ...rest });
  }
}

/** Return `{coordinator, token}` of a join link `https://HOST:PORT/join#ca=...&token=...`. */
export function parseLink(text) {
  const link = new URL(text.trim());
  const token = new URLSearchParams(link.hash.slice(1)).get("token");
  if (!token) throw new Error("A join link ends in #...token=TOKEN; this one has no token. Copy the whole link.");
  return { coordinator: link.origin + link.pathname.replace(/\/?join\/?$/, ""), token };
}

/** Return a new key pair whose private half cannot leave the browser; Ed25519 where it is known, else P-256. */
export async function makeKeys(kind) {
  for (const name of kind ? [kind] : ["ed25519", "p256"]) {
    try {
      return { kind: name, ...(await crypto.subtle.generateKey(KINDS[name].make, false, ["sign", "verify"])) };
    } catch (error) {
      if (name === kind || name === "p256") throw error;
    }
  }
}

/** A party with its key: every call of protocol v1, and the loop that takes part in a run. */
export class Participant {
  #session = null;

  constructor({ coordinator, client, keys }) {
    Object.assign(this, { coordinator, client, keys });
  }

  /** Register `keys` under `name` with a join link; again with the same three gives the same client. */
  static async enrol(link, name, keys) {
    const { coordinator, token } = parseLink(link);
    await reached(coordinator);
    const key = base64url(await crypto.subtle.exportKey("raw", keys.publicKey));
    const signature = await sign(keys, "enrol", await sha256(utf8(token)), name, key);
    const body = { token, name, kind: keys.kind, key, signature };
    const { client } = await (await call(coordinator, "POST", "/v1/enrol", { json: body })).json();
    return new Participant({ coordinator, client, keys });
  }

  /** Return the runs that this client may see. */
  async runs() {
    return (await this.#json("GET", "/v1/runs")).runs;
  }

  async description(run) {
    return this.#json("GET", `/v1/runs/${run}`);
  }

  async join(run, app, examples, heldOut) {
    const body = { app, train_examples: examples, held_out_examples: heldOut, codecs: [], versions: {} };
    await this.#call("POST", `/v1/runs/${run}/join`, { json: body });
  }

  /** Wait for work newer than `since`; null when nothing came. */
  async work(run, since) {
    const path = `/v1/runs/${run}/work?since=${since}&wait=${WAIT_SECONDS}`;
    const answer = await this.#call("GET", path, { seconds: WAIT_SECONDS + ANSWER_SECONDS });
    return answer.status === 204 ? null : answer.json();
  }

  /** Return the bytes of a blob, fetched piece by piece and checked against their name. */
  async blob(digest, size, pieceBytes) {
    const bytes = new Uint8Array(size);
    for (let start = 0; start < size; start += pieceBytes) {
      const range = `bytes=${start}-${Math.min(start + pieceBytes, size) - 1}`;
      const answer = await this.#call("GET", `/v1/blobs/${digest}`, { headers: { Range: range } });
      const piece = new Uint8Array(await answer.arrayBuffer());
      if (answer.status !== 206) throw new Error(`Asked for ${range}, found status ${answer.status}.`);
      bytes.set(piece, start); // throws where a piece is too long; too short shows in the digest
    }
    const found = await sha256(bytes);
    if (found !== digest) throw new Error(`The model should have the digest ${digest}, and has ${found}. Try again.`);
    return bytes;
  }

  /** Upload an update chunk by chunk, then commit it under this client's signature. */
  async submit(run, work, bytes, weight, chunkBytes) {
    const path = `/v1/runs/${run}/rounds/${work.round}/${work.purpose}`;
    const chunks = [];
    for (let start = 0; start < bytes.length; start += chunkBytes) chunks.push(bytes.subarray(start, start + chunkBytes));
    const digests = await Promise.all(chunks.map(sha256));
    const root = await sha256(concatenated(digests.map(fromHex)));
    const signed = [run, work.round, work.purpose, this.client, work.model, root, bytes.length, weight];
    const json = { root, weight, model: work.model, signature: await sign(this.keys, "update", ...signed) };
    const begun = { bytes: bytes.length, chunk_bytes: chunkBytes, digests };
    for (let attempt = 0; ; attempt++) {
      const { have } = await this.#json("POST", `${path}/update`, { json: begun });
      try {
        for (const i of chunks.keys()) {
          if (!have.includes(i)) await this.#call("PUT", `${path}/update/${i}`, { bytes: chunks[i] });
        }
        return await this.#json("POST", `${path}/commit`, { json });
      } catch (error) {
        if (attempt === 2 || !["corrupt", "incomplete"].includes(error.code)) throw error;
      }
    }
  }

  /** Say that this client cannot do the round, and why. */
  async fail(run, work, reason) {
    await this.#call("POST", `/v1/runs/${run}/rounds/${work.round}/${work.purpose}/failure`, { json: { reason } });
  }

  /** Send signed bytes to another client (or the coordinator) in a stage of a round; return their number. */
  async send(run, round, stage, to, bytes) {
    const signature = await sign(this.keys, "message", run, round, stage, this.client, to, await sha256(bytes));
    const json = { to, body: base64url(bytes), signature };
    return (await this.#json("POST", `/v1/runs/${run}/rounds/${round}/stages/${stage}/messages`, { json })).number;
  }

  /** Return `{messages, next}` of a stage to this client from number `since` on; check signatures with `verify`. */
  async receive(run, round, stage, since) {
    const path = `/v1/runs/${run}/rounds/${round}/stages/${stage}/messages?since=${since}&wait=${WAIT_SECONDS}`;
    const found = await this.#json("GET", path, { seconds: WAIT_SECONDS + ANSWER_SECONDS });
    return { ...found, messages: found.messages.map((m) => ({ ...m, body: fromBase64url(m.body) })) };
  }

  /** Return the clients of a run, `{client, name, kind, key}` each. */
  async clients(run) {
    return (await this.#json("GET", `/v1/runs/${run}/clients`)).clients;
  }

  /** Work until the run ends; return the last work. `tell` hears what happens; `local` is what stays here. */
  async takePart(run, local, tell = () => {}) {
    const { app, chunk_bytes: chunkBytes } = await this.description(run);
    if (local.app && local.app !== app) {
      throw new Error(`This page was made for app ${local.app}, and the run is of ${app}. Get the page of that app.`);
    }
    await this.join(run, app, local.examples, local.heldOut);
    for (let since = 0; ; ) {
      const work = await this.work(run, since);
      if (!work) continue;
      since = work.serial;
      tell({ kind: "work", work });
      if (work.state === "finished" || work.state === "cancelled") return work;
      if (work.state === "train" || work.state === "evaluate") tell(await this.#answer(run, work, local, chunkBytes));
    }
  }

  /** Do one piece of work. What concerns this round alone is told and not thrown: the next round may go well. */
  async #answer(run, work, local, chunkBytes) {
    try {
      const model = readTensors(await this.blob(work.model, work.bytes, chunkBytes));
      const { tensors, weight } = await computed(() => local[work.state](model, work));
      const { duplicate } = await this.submit(run, work, writeTensors(tensors), weight, chunkBytes);
      return { kind: "committed", work, weight, duplicate };
    } catch (error) {
      const ours = error instanceof ComputationError;
      if (ours) await this.fail(run, work, error.message.slice(0, 500));
      if (ours || ["over", "conflict", "refused"].includes(error.code)) return { kind: "lost", work, error };
      throw error;
    }
  }

  async #json(method, path, options) {
    return (await this.#call(method, path, options)).json();
  }

  /** Call with a session, and once more with a new one when the coordinator no longer knows it. */
  async #call(method, path, options = {}) {
    for (let attempt = 0; ; attempt++) {
      this.#session ??= await this.#newSession();
      try {
        return await call(this.coordinator, method, path, { ...options, token: this.#session });
      } catch (error) {
        if (error.status !== 401 || attempt === 1) throw error;
        this.#session = null;
      }
    }
  }

  async #newSession() {
    const { client } = this;
    const { challenge } = await (await call(this.coordinator, "POST", "/v1/challenge", { json: { client } })).json();
    const signature = await sign(this.keys, "session", client, challenge);
    const json = { client, challenge, signature };
    return (await (await call(this.coordinator, "POST", "/v1/session", { json })).json()).token;
  }
}

/** Return whether `signature` is that of `kind` and `key`, as the coordinator lists them, over a text of the protocol. */
export async function verify({ kind, key }, signature, what, ...lines) {
  const known = await crypto.subtle.importKey("raw", fromBase64url(key), KINDS[kind].make, false, ["verify"]);
  return crypto.subtle.verify(KINDS[kind].sign, known, fromBase64url(signature), signedText(what, lines));
}

class ComputationError extends Error {}

async function computed(compute) {
  try {
    return await compute();
  } catch (error) {
    throw new ComputationError(`${error.name}: ${error.message}`);
  }
}

/** Fail with words a person can act on: a browser does not tell a page why a call to elsewhere failed. */
async function reached(coordinator) {
  try {
    await fetch(`${coordinator}/healthz`, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_SECONDS * 1000) });
  } catch (error) {
    throw new Error(
      `${coordinator} cannot be called from this page (${error.message}). Either it is not running, or the browser does not ` +
        `trust its certificate, or it was not started with --allow-origin ${globalThis.location?.origin}.`,
    );
  }
}

/** Call the coordinator; try again where it or the network is busy, since sending again is always safe. */
async function call(coordinator, method, path, options = {}) {
  for (let attempt = 0; ; attempt++) {
    const last = attempt === PAUSES_SECONDS.length;
    let pause = PAUSES_SECONDS[attempt];
    try {
      const answer = await request(coordinator, method, path, options);
      if (answer.ok) return answer;
      const { error } = await answer.json().catch(() => ({ error: { code: "unknown", message: answer.statusText } }));
      if (last || ![408, 429, 500, 502, 503, 504].includes(answer.status)) throw new ProtocolError(answer.status, error);
      pause = Math.min(Number(answer.headers.get("Retry-After")) || pause, 60);
    } catch (error) {
      if (last || error instanceof ProtocolError) throw error; // what remains is the network's: TypeError, TimeoutError
    }
    await new Promise((resolve) => setTimeout(resolve, pause * 1000 * (0.5 + Math.random())));
  }
}

function request(coordinator, method, path, { json, bytes, token, headers = {}, seconds = ANSWER_SECONDS }) {
  const sent = { ...headers };
  if (token) sent.Authorization = `Bearer ${token}`;
  if (json) sent["Content-Type"] = "application/json";
  if (bytes) sent["Content-Type"] = "application/octet-stream";
  const body = json ? JSON.stringify(json) : bytes;
  const signal = AbortSignal.timeout(seconds * 1000);
  const plain = { cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer" };
  return fetch(coordinator + path, { ...plain, method, headers: sent, body, signal });
}

async function sign({ kind, privateKey }, what, ...lines) {
  return base64url(await crypto.subtle.sign(KINDS[kind].sign, privateKey, signedText(what, lines)));
}

function signedText(what, lines) {
  return utf8([`koinon/1 ${what}`, ...lines].map((line) => `${line}\n`).join(""));
}

async function sha256(bytes) {
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

function utf8(text) {
  return new TextEncoder().encode(text);
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text) {
  return Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));
}

function concatenated(parts) {
  return new Uint8Array(parts.flatMap((part) => Array.from(part)));
}

function base64url(bytes) {
  const text = Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join("");
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function fromBase64url(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
}
