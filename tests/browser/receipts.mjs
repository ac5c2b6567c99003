// Check the receipts on standard input with the page's own code; write what does not hold.

import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const { checkReceipts } = await import(pathToFileURL(process.argv[2]));
const { receipts, opening, sent } = JSON.parse(await text(process.stdin));
process.stdout.write(JSON.stringify(await checkReceipts(receipts, opening, sent)));
