// Tensors as bytes, in the safetensors layout: 8 bytes of header length, a JSON header, the numbers without gaps.
// A tensor is {shape, data}: a list of whole numbers and a typed array.

const TYPES = {
  F32: Float32Array, F64: Float64Array, I8: Int8Array, U8: Uint8Array, I16: Int16Array, U16: Uint16Array,
  I32: Int32Array, U32: Uint32Array, I64: BigInt64Array, U64: BigUint64Array, BF16: Uint16Array,
};
const LENGTH_BYTES = 8;
const HEADER_BYTES = 4 << 20; // the protocol's limit

/** Return the tensors of a file by name. Throws unless they cover it exactly. */
export function readTensors(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = Number(view.getBigUint64(0, true));
  if (length > Math.min(HEADER_BYTES, file.length - LENGTH_BYTES)) throw new Error(`The header claims ${length} bytes.`);
  const begin = LENGTH_BYTES + length;
  const { __metadata__: _, ...header } = JSON.parse(new TextDecoder().decode(file.subarray(LENGTH_BYTES, begin)));
  const entries = Object.entries(header).sort(([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0] || a.data_offsets[1] - b.data_offsets[1]);
  const tensors = {};
  let place = 0;
  for (const [name, { dtype, shape, data_offsets: [start, stop] }] of entries) {
    const count = shape.reduce((product, size) => product * size, 1);
    if (!TYPES[dtype]) throw new Error(`Tensor ${name} has type ${dtype}, which this page does not know.`);
    if (start !== place || stop - start !== count * TYPES[dtype].BYTES_PER_ELEMENT) {
      throw new Error(`Tensor ${name} of ${dtype}[${shape}] does not lie at bytes ${start} to ${stop}.`);
    }
    tensors[name] = { shape, data: new TYPES[dtype](file.slice(begin + start, begin + stop).buffer) };
    place = stop;
  }
  if (begin + place !== file.length) throw new Error(`The tensors end at byte ${begin + place} of ${file.length}.`);
  return tensors;
}

/** Return the file of float32 tensors; a plain number is a tensor without dimensions. `metadata` maps names to texts. */
export function writeTensors(tensors, metadata) {
  const header = metadata ? { __metadata__: metadata } : {};
  let place = 0;
  const arrays = Object.entries(tensors).map(([name, tensor]) => {
    const { shape, data } = typeof tensor === "number" ? { shape: [], data: [tensor] } : tensor;
    header[name] = { dtype: "F32", shape, data_offsets: [place, (place += 4 * data.length)] };
    return Float32Array.from(data);
  });
  const text = new TextEncoder().encode(JSON.stringify(header));
  const begin = LENGTH_BYTES + Math.ceil(text.length / 8) * 8; // the first tensor is aligned
  const file = new Uint8Array(begin + place).fill(0x20, LENGTH_BYTES + text.length, begin);
  new DataView(file.buffer).setBigUint64(0, BigInt(begin - LENGTH_BYTES), true);
  file.set(text, LENGTH_BYTES);
  let end = begin;
  for (const array of arrays) {
    file.set(new Uint8Array(array.buffer), end);
    end += array.byteLength;
  }
  return file;
}
