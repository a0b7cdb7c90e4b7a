// Reads the values of a PNG of one channel (grey, or palette indices; up to 8 bits; not interlaced) exactly: what a canvas gives back is
// altered by some browsers so that it does not identify the device. Writes palette indices.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/** Bytes of a PNG -> {width, height, values: Uint8Array of width x height}. Throws on any other kind of PNG. */
export async function readPng(bytes) {
  if (!SIGNATURE.every((value, i) => bytes[i] === value)) throw new Error("not a PNG");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = [];
  let width = 0, height = 0, depth = 0, color, interlaced;
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (type === "IHDR") {
      [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
      [depth, color, , , interlaced] = body.subarray(8);
      if (depth > 8 || (color !== 0 && color !== 3) || interlaced) throw new Error("a PNG of another kind");
    } else if (type === "IDAT") {
      data.push(body);
    }
    at += 12 + length;
  }
  const stream = new Blob(data).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(stream).arrayBuffer());
  const stride = Math.ceil((width * depth) / 8);
  if (!width || rows.length !== (stride + 1) * height) throw new Error("a PNG that is damaged");
  const values = unfilter(rows, stride, height);
  return { width, height, values: depth === 8 ? values : unpack(values, { width, height, depth, stride }) };
}

/** Indices into a palette of [r, g, b] -> a Blob of a PNG. */
export async function writePng({ width, height, values }, palette) {
  const rows = new Uint8Array((width + 1) * height); // each begins with its filter: none
  for (let y = 0; y < height; y += 1) rows.set(values.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header.set([8, 3, 0, 0, 0], 8);
  const chunks = [["IHDR", header], ["PLTE", Uint8Array.from(palette.flat())], ["IDAT", new Uint8Array(await new Response(stream).arrayBuffer())], ["IEND", new Uint8Array(0)]];
  return new Blob([Uint8Array.from(SIGNATURE), ...chunks.map(([type, body]) => chunk(type, body))], { type: "image/png" });
}

function chunk(type, body) {
  const bytes = new Uint8Array(12 + body.length), view = new DataView(bytes.buffer);
  view.setUint32(0, body.length);
  bytes.set([...type].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(body, 8);
  view.setUint32(8 + body.length, crc(bytes.subarray(4, 8 + body.length)));
  return bytes;
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** Undoes the filter that each row names in its first byte. */
function unfilter(rows, stride, height) {
  const out = new Uint8Array(stride * height);
  for (let y = 0; y < height; y += 1) {
    const from = y * (stride + 1), to = y * stride, filter = rows[from];
    for (let x = 0; x < stride; x += 1) {
      const left = x ? out[to + x - 1] : 0;
      const up = y ? out[to + x - stride] : 0;
      const corner = x && y ? out[to + x - stride - 1] : 0;
      const guess = filter === 0 ? 0 : filter === 1 ? left : filter === 2 ? up : filter === 3 ? (left + up) >> 1 : paeth(left, up, corner);
      out[to + x] = rows[from + 1 + x] + guess;
    }
  }
  return out;
}

/** Values of 1, 2 or 4 bits, the first in the highest bits of a byte. */
function unpack(bytes, { width, height, depth, stride }) {
  const out = new Uint8Array(width * height);
  for (let i = 0; i < out.length; i += 1) {
    const bit = (i % width) * depth;
    out[i] = (bytes[Math.floor(i / width) * stride + (bit >> 3)] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
  }
  return out;
}

/** Of left, up and corner, the one nearest to left + up - corner. */
function paeth(left, up, corner) {
  const a = Math.abs(up - corner), b = Math.abs(left - corner), c = Math.abs(left + up - 2 * corner);
  return a <= b && a <= c ? left : b <= c ? up : corner;
}
