// A participant of protocol v1 (docs/protocol.md) in a web page: fetch and WebCrypto, nothing else.
//
//   const participant = await Participant.enrol(link, "paris", await makeKeys());
//   const last = await participant.takePart(run, { app, examples, heldOut, train, evaluate }, tell);

import { base64url, concatenated, fromBase64url, fromHex, sha256, sign, utf8, verify } from "./signing.js";
import { readTensors, writeTensors } from "./tensors.js";

const WAIT_SECONDS = 30; // how long a long poll may stay unanswered
const ANSWER_SECONDS = 60; // how long any other call may take
const PAUSES_SECONDS = [0.5, 1, 2, 4, 8, 16, 30, 30, 30]; // between attempts: two minutes in all
const BUSY = [408, 425, 429]; // and whatever is a fault of the other side
const TRIES = 4; // of what arrives damaged or is no longer there
const MISSED = ["over", "not_asked", "conflict", "refused"]; // what a round says that goes on without this client
const LOST = ["unknown", "incomplete", "corrupt", "damaged", "signature"]; // what it is told to ask this client again for

/** An answer other than 2xx: its status, its code, and what the coordinator says to do. */
export class ProtocolError extends Error {
  constructor(status, { code, message, ...rest }) {
    super(message);
    Object.assign(this, { name: "ProtocolError", status, code, ...rest });
  }
}

/** Return `{url, token}` of a join link `https://HOST:PORT/join#ca=...&token=...`. */
export function parseLink(text) {
  const link = new URL(text.trim());
  const token = new URLSearchParams(link.hash.slice(1)).get("token");
  if (!token) throw new Error("A join link ends in #...token=TOKEN; this one has no token. Copy the whole link.");
  return { url: link.origin + link.pathname.replace(/\/?join\/?$/, ""), token };
}

/** Fail with words a person can act on: a browser does not tell a page why it cannot call a coordinator. */
export async function reached(url) {
  try {
    await request(url, "GET", "/healthz", {});
  } catch (error) {
    throw new Error(
      `${url} cannot be called from this page (${error.message}). Either it is not running, or the browser does not ` +
        `trust its certificate, or it was not started with --allow-origin ${globalThis.location?.origin}.`,
    );
  }
}

/** A party with its key: every call of the protocol, and the loop that takes part in a run. */
export class Participant {
  #session = null;

  /** `url` is the coordinator's address, `coordinator` its public key, `client` who this party is to it. */
  constructor({ url, coordinator, client, keys }) {
    Object.assign(this, { url, coordinator, client, keys });
  }

  /** Register `keys` under `name` with a join link; again with the same three gives the same client. */
  static async enrol(link, name, keys) {
    const { url, token } = parseLink(link);
    const key = base64url(await crypto.subtle.exportKey("raw", keys.publicKey));
    const signature = await sign(keys, "enrol", await sha256(utf8(token)), name, key);
    const json = { token, name, kind: keys.kind, key, signature };
    const { client, coordinator } = await call(url, "POST", "/v1/enrol", { json });
    return new Participant({ url, coordinator, client, keys });
  }

  /** Return the runs there are, `{run, app, name, state}` each. */
  async runs() {
    return (await this.#call("GET", "/v1/runs")).runs;
  }

  async description(run) {
    return this.#call("GET", `/v1/runs/${run}`);
  }

  async join(run, app, examples, heldOut) {
    const json = { app, train_examples: examples, held_out_examples: heldOut, codecs: [], versions: {} };
    await this.#call("POST", `/v1/runs/${run}/join`, { json });
  }

  /** Wait for work newer than `since`; null when nothing came. */
  async work(run, since, wait = WAIT_SECONDS) {
    const path = `/v1/runs/${run}/work?since=${since}&wait=${wait}`;
    const work = await this.#call("GET", path, { seconds: WAIT_SECONDS + ANSWER_SECONDS });
    return work.serial === undefined ? null : work;
  }

  /** Say that this client has all it wants of a run that is over with `work`: the coordinator may stop serving. */
  async leave(run, work) {
    await this.work(run, work.serial, 0);
  }

  /** Return the bytes of a blob, fetched piece by piece and checked against its name. */
  async blob(digest, size, pieceBytes) {
    return again(["damaged"], async () => {
      const bytes = new Uint8Array(size);
      for (let start = 0; start < size; start += pieceBytes) {
        const stop = Math.min(start + pieceBytes, size);
        const piece = await this.#call("GET", `/v1/blobs/${digest}`, { headers: { Range: `bytes=${start}-${stop - 1}` } });
        bytes.set(piece.subarray(0, stop - start), start); // a piece of another length shows in the digest
      }
      if ((await sha256(bytes)) === digest) return bytes;
      throw new ProtocolError(200, { code: "damaged", message: `The model arrived with another digest than ${digest}.` });
    });
  }

  /** Upload an answer to `work` chunk by chunk, then commit it under this client's signature. */
  async submit(run, work, bytes, weight, chunkBytes) {
    const path = `/v1/runs/${run}/rounds/${work.round}/${work.purpose}`;
    const chunks = [];
    for (let start = 0; start < bytes.length; start += chunkBytes) chunks.push(bytes.subarray(start, start + chunkBytes));
    const digests = await Promise.all(chunks.map(sha256));
    const root = await sha256(concatenated(digests.map(fromHex)));
    const signed = [run, work.round, work.purpose, this.client, work.model, root, bytes.length, weight];
    const commit = { root, weight, model: work.model, signature: await sign(this.keys, "update", ...signed) };
    const begin = { bytes: bytes.length, chunk_bytes: chunkBytes, digests };
    return again(["incomplete", "unknown"], async () => { // a coordinator that was restarted may have lost what it was told
      const { have } = await this.#call("POST", `${path}/update`, { json: begin });
      for (const i of chunks.keys()) {
        if (have.includes(i)) continue;
        await again(["corrupt"], () => this.#call("PUT", `${path}/update/${i}`, { bytes: chunks[i] }));
      }
      return { root, ...(await this.#call("POST", `${path}/commit`, { json: commit })) };
    });
  }

  /** Say that this client cannot do `work`, and why. */
  async fail(run, work, reason) {
    await this.#call("POST", `/v1/runs/${run}/rounds/${work.round}/${work.purpose}/failure`, { json: { reason } });
  }

  /** Send signed bytes in a stage of a round `to` a client, "server" or "all"; return their number. */
  async send(run, round, stage, to, bytes) {
    const signature = await sign(this.keys, "message", run, round, stage, this.client, to, await sha256(bytes));
    const json = { to, body: base64url(bytes), signature };
    return (await this.#call("POST", `/v1/runs/${run}/rounds/${round}/stages/${stage}/messages`, { json })).number;
  }

  /** Return `{messages, next}`: what a stage holds for this client since number `since`. Nothing of it is verified. */
  async receive(run, round, stage, since) {
    const path = `/v1/runs/${run}/rounds/${round}/stages/${stage}/messages?since=${since}&wait=${WAIT_SECONDS}`;
    const { messages, next } = await this.#call("GET", path, { seconds: WAIT_SECONDS + ANSWER_SECONDS });
    return { messages: messages.map((message) => ({ ...message, body: fromBase64url(message.body) })), next };
  }

  /** Return whether a message was signed by `sender`, one of the run's clients, for this very place and recipient. */
  async signed(run, round, stage, sender, { to, body, signature }) {
    return verify(sender, signature, "message", run, round, stage, sender.client, to, await sha256(body));
  }

  /** Return the clients of a run and their public keys, `{client, name, kind, key}` each. */
  async clients(run) {
    return (await this.#call("GET", `/v1/runs/${run}/clients`)).clients;
  }

  /** Return the coordinator's receipts from round `since` + 1 on; `checkReceipts` of receipts.js checks them. */
  async receipts(run, since = 0) {
    return (await this.#call("GET", `/v1/runs/${run}/receipts?since=${since}`)).receipts;
  }

  /**
   * Work until the run ends, and return the last work.
   *
   * `local` is what stays here: the `app` this participant was made for ("" for any), how many `examples` and
   * `heldOut` ones there are, and the functions `train` and `evaluate`, from `(tensors of the model, work)` to
   * `{tensors, weight}`. `tell` hears what happens.
   */
  async takePart(run, local, tell = () => {}) {
    const { app, chunk_bytes: chunkBytes } = await this.description(run);
    if (local.app && local.app !== app) {
      throw new Error(`This page was made for app ${local.app}, and the run is of ${app}. Open the page of that app.`);
    }
    const join = () => this.join(run, app, local.examples, local.heldOut);
    await join();
    for (let since = 0; ; ) {
      const work = await this.work(run, since).catch(async (error) => {
        if (error.code !== "not_joined") throw error;
        await join(); // the coordinator has lost what it knew of this client
        return this.work(run, 0);
      });
      if (!work) continue;
      since = work.serial;
      if (work.state === "train" || work.state === "evaluate") tell(await this.#answer(run, work, local, chunkBytes));
      else if (work.state !== "idle") return work; // finished, cancelled or failed
    }
  }

  /** Do one piece of work. What concerns this round alone is told and not thrown: the next one may go well. */
  async #answer(run, work, local, chunkBytes) {
    try {
      const model = readTensors(await this.blob(work.model, work.bytes, chunkBytes));
      const { tensors, weight } = await computed(() => local[work.state](model, work));
      const { root, duplicate } = await this.submit(run, work, writeTensors(tensors, { salt: salt() }), weight, chunkBytes);
      return { kind: "committed", work, weight, root, duplicate };
    } catch (error) {
      if (MISSED.includes(error.code)) return { kind: "lost", work, error };
      if (!(error instanceof ComputationError) && !LOST.includes(error.code)) throw error;
      await this.fail(run, work, error.message.slice(0, 500)).catch((other) => {
        if (!MISSED.includes(other.code)) throw other;
      });
      return { kind: "lost", work, error };
    }
  }

  /** Call with a session, and with a new one when the coordinator no longer knows it. */
  async #call(method, path, options = {}) {
    return again(["session"], async () => {
      this.#session ??= await this.#newSession();
      try {
        return await call(this.url, method, path, { ...options, token: this.#session });
      } catch (error) {
        if (error.code === "session") this.#session = null;
        throw error;
      }
    });
  }

  async #newSession() {
    const { url, client } = this;
    return again(["challenge"], async () => { // one whose answer was lost is used up
      const { challenge } = await call(url, "POST", "/v1/challenge", { json: { client } });
      const signature = await sign(this.keys, "session", client, challenge);
      return (await call(url, "POST", "/v1/session", { json: { client, challenge, signature } })).token;
    });
  }
}

/** Act again, a few times in all, while it fails with one of `codes`. */
async function again(codes, act) {
  for (let tries = 1; ; tries++) {
    try {
      return await act();
    } catch (error) {
      if (tries === TRIES || !codes.includes(error.code)) throw error;
    }
  }
}

class ComputationError extends Error {}

async function computed(compute) {
  try {
    return await compute();
  } catch (error) {
    throw new ComputationError(`${error.name}: ${error.message}`);
  }
}

/** Return the body of an answer; ask again where coordinator or network are busy, since that is always safe. */
async function call(url, method, path, options) {
  for (let attempt = 0; ; attempt++) {
    const pause = PAUSES_SECONDS[attempt];
    let asked = null;
    try {
      const { status, body, retryAfter } = await request(url, method, path, options);
      if (status < 300) return body;
      if (!pause || !(BUSY.includes(status) || status >= 500)) throw new ProtocolError(status, body?.error ?? { message: `Status ${status}.` });
      asked = Math.min(retryAfter, 60);
    } catch (error) {
      const network = error instanceof TypeError || error.name === "TimeoutError";
      if (!pause || !network) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, (asked || pause) * 1000 * (1 + Math.random())));
  }
}

async function request(url, method, path, { json, bytes, token, headers = {}, seconds = ANSWER_SECONDS }) {
  const sent = { ...headers };
  if (token) sent.Authorization = `Bearer ${token}`;
  if (json) sent["Content-Type"] = "application/json";
  if (bytes) sent["Content-Type"] = "application/octet-stream";
  const answer = await fetch(url + path, {
    method, headers: sent, body: json ? JSON.stringify(json) : bytes, signal: AbortSignal.timeout(seconds * 1000),
    cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
  });
  const received = new Uint8Array(await answer.arrayBuffer());
  const isJson = answer.headers.get("Content-Type")?.startsWith("application/json");
  const body = isJson && received.length ? JSON.parse(new TextDecoder().decode(received)) : received;
  return { status: answer.status, body, retryAfter: Number(answer.headers.get("Retry-After")) };
}

// Every party learns the digest of an update from the receipts: who guesses the update must not see that it is right.
function salt() {
  return Array.from(crypto.getRandomValues(new Uint8Array(32)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
