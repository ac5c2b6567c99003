// Read a tensor file from standard input with the page's reader, write its float32 tensors again with its writer.

import { buffer } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const { readTensors, writeTensors } = await import(pathToFileURL(process.argv[2]));
const tensors = readTensors(new Uint8Array(await buffer(process.stdin)));
if (process.argv[3] === "list") {
  const listed = Object.entries(tensors).map(([name, { shape, data }]) => [name, shape, Array.from(data, String)]);
  process.stdout.write(JSON.stringify(listed));
} else {
  process.stdout.write(writeTensors(tensors));
}
