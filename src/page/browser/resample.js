// What lies between a photo and a window of it: sizes, resizing and the places of windows, to the last bit as the program has them.

const { fround, floor, max, min, trunc } = Math;

const clamp = (value, low, high) => max(low, min(high, value));

/** The sizes [height, width] at which an image is seen, one for each scale. */
export function viewSizes([height, width], { resize, scales }) {
  return scales.map(fround).map((scale) => {
    if (!resize) return [height, width].map((side) => max(1, trunc(side * scale + 0.5)));
    const [a, b] = resize.map((side) => trunc(side * scale));
    const factor = min(max(a, b) / max(width, height), min(a, b) / min(width, height));
    return [height, width].map((side) => max(1, trunc(side * factor + 0.5)));
  });
}

/** Where windows begin along a side; the last is moved back to end at the border. */
export function starts(side, crop, stride) {
  const last = max(0, side - crop);
  return Array.from({ length: Math.ceil(last / stride) + 1 }, (_, i) => min(i * stride, last));
}

/** Two neighbours in the source and their weights, which sum to 2048, for each of `to` places. */
function fixedTaps(to, from, pinned) {
  const scale = 1 / (to / from), last = from - 1;
  return Array.from({ length: to }, (_, at) => {
    const position = fround((at + 0.5) * scale - 0.5), part = fround(position - floor(position));
    const first = floor(position);
    // Beyond the first and last pixel of a row, that pixel alone counts.
    if (pinned && (first < 0 || first >= last)) return [clamp(first, 0, last), clamp(first + 1, 0, last), 2048, 0];
    return [clamp(first, 0, last), clamp(first + 1, 0, last), even(fround(1 - part) * 2048), even(part * 2048)];
  });
}

/** The nearest whole number; of two equally near ones, the even one. */
function even(value) {
  const low = floor(value), rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}

/** Pixels of four bytes -> those of three in another size: bilinear in fixed point, as OpenCV does it to 8-bit images. */
export function resize({ width, height, data }, [toHeight, toWidth]) {
  const pixels = new Uint8Array(toHeight * toWidth * 3);
  if (toHeight === height && toWidth === width) {
    for (let i = 0, o = 0; i < data.length; i += 4, o += 3) {
      pixels[o] = data[i];
      pixels[o + 1] = data[i + 1];
      pixels[o + 2] = data[i + 2];
    }
    return { width, height, pixels };
  }
  const columns = fixedTaps(toWidth, width, true), rows = fixedTaps(toHeight, height, false);
  let lines = [{ of: -1, values: new Int32Array(toWidth * 3) }, { of: -1, values: new Int32Array(toWidth * 3) }];
  rows.forEach(([upper, lower, above, below], y) => {
    if (lines[1].of === upper) lines.reverse();
    [upper, lower].forEach((source, i) => {
      if (lines[i].of === source) return;
      lines[i].of = source;
      stretch(data, source * width * 4, columns, lines[i].values);
    });
    const [a, b] = lines.map((line) => line.values);
    for (let i = 0, o = y * toWidth * 3; i < toWidth * 3; i += 1, o += 1) {
      // The products lose their low bits one by one.
      pixels[o] = (((above * (a[i] >> 4)) >> 16) + ((below * (b[i] >> 4)) >> 16) + 2) >> 2;
    }
  });
  return { width: toWidth, height: toHeight, pixels };
}

function stretch(data, row, columns, out) {
  columns.forEach(([left, right, a, b], x) => {
    for (let c = 0; c < 3; c += 1) out[x * 3 + c] = data[row + left * 4 + c] * a + data[row + right * 4 + c] * b;
  });
}

/** A window of an image; what lies beyond its right and lower border is its mirror image. */
export function cut({ width, height, pixels }, [top, left], [rows, columns], flipped) {
  const out = new Uint8Array(rows * columns * 3);
  const sources = Int32Array.from({ length: columns }, (_, x) => {
    const seen = mirrored(left + x, width);
    return (flipped ? width - 1 - seen : seen) * 3;
  });
  for (let y = 0, o = 0; y < rows; y += 1) {
    const row = mirrored(top + y, height) * width * 3;
    for (let x = 0; x < columns; x += 1, o += 3) {
      const at = row + sources[x];
      out[o] = pixels[at];
      out[o + 1] = pixels[at + 1];
      out[o + 2] = pixels[at + 2];
    }
  }
  return out;
}

/** a b c -> a b c c b a a b c … */
function mirrored(at, side) {
  const place = at % (2 * side);
  return place < side ? place : 2 * side - 1 - place;
}

/** The two samples that each of `to` places lies between, and the weight of each: bilinear, corners not aligned. */
export function taps(from, to) {
  const scale = fround(from / to), last = from - 1;
  const low = new Int32Array(to), high = new Int32Array(to), below = new Float32Array(to), above = new Float32Array(to);
  for (let i = 0; i < to; i += 1) {
    const place = max(0, fround(fround(scale * (i + 0.5)) - 0.5));
    low[i] = min(floor(place), last);
    high[i] = min(low[i] + 1, last);
    above[i] = clamp(fround(place - low[i]), 0, 1);
    below[i] = fround(1 - above[i]);
  }
  return { low, high, below, above };
}
