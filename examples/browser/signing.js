// Keys, signatures and digests as protocol v1 writes them, with WebCrypto.

const KINDS = {
  ed25519: { make: { name: "Ed25519" }, sign: { name: "Ed25519" } },
  p256: { make: { name: "ECDSA", namedCurve: "P-256" }, sign: { name: "ECDSA", hash: "SHA-256" } },
};

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

/** Return the signature of `keys` over a text of the protocol, in base64url. */
export async function sign({ kind, privateKey }, what, ...lines) {
  return base64url(await crypto.subtle.sign(KINDS[kind].sign, privateKey, signedText(what, lines)));
}

/** Return whether `signature` is that of `kind` and `key`, as the coordinator lists them, over a text of the protocol. */
export async function verify({ kind, key }, signature, what, ...lines) {
  const known = await crypto.subtle.importKey("raw", fromBase64url(key), KINDS[kind].make, false, ["verify"]);
  return crypto.subtle.verify(KINDS[kind].sign, known, fromBase64url(signature), signedText(what, lines));
}

/** Return what is signed: one line each, so that no two messages share a text. */
function signedText(what, lines) {
  return utf8([`koinon/1 ${what}`, ...lines].map((line) => `${line}\n`).join(""));
}

/** Return the SHA-256 in hex. */
export async function sha256(bytes) {
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

export function utf8(text) {
  return new TextEncoder().encode(text);
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function fromHex(text) {
  return Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));
}

export function concatenated(parts) {
  return new Uint8Array(parts.flatMap((part) => Array.from(part)));
}

export function base64url(bytes) {
  const text = Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join("");
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function fromBase64url(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
}
