// What the network says of windows -> labels and how probable they are, a row of pixels at a time, as the program does it on a processor.
//
// A view is {size, windows: {tops, lefts, size}, grids: [row][column] of {maps, votes}, grid: [height, width, channels], flipped}; sizes are
// [height, width], maps Float32Array of the grid, votes of channels x classes or null.

import { taps } from "./resample.js";

/** One view, read row by row. */
class Reader {
  constructor(view, output, classes) {
    const { size, windows, grid } = view;
    Object.assign(this, { ...view, classes, output });
    this.windowTaps = [taps(grid[0], windows.size[0]), taps(grid[1], windows.size[1])];
    this.plain = size[0] === output[0] && size[1] === output[1] && !view.flipped;
    this.outputTaps = this.plain ? null : [taps(size[0], output[0]), taps(size[1], output[1])];
    this.cells = new Float32Array(grid[1] * grid[2]);
    this.masks = new Float32Array(grid[2]);
    this.lines = [0, 1].map(() => ({ of: -1, values: new Float32Array(size[1] * classes) }));
    this.between = this.plain ? null : new Float32Array(size[1] * classes);
    this.counts = Int32Array.from({ length: size[1] }, (_, x) => windows.lefts.filter((left) => left <= x && x < left + windows.size[1]).length);
  }

  /** The scores of a row of the output: [width, classes]. */
  row(y, out) {
    if (this.plain) return this.blend(y, out);
    const [down, across] = this.outputTaps, { classes, between, flipped } = this;
    const rows = [[down.low[y], down.below[y]], [down.high[y], down.above[y]]].filter(([, weight]) => weight > 0);
    between.fill(0);
    for (const [source, weight] of rows) {
      const line = this.lines[source % 2];
      if (line.of !== source) {
        this.blend(source, line.values);
        line.of = source;
      }
      for (let i = 0; i < between.length; i += 1) between[i] += weight * line.values[i];
    }
    const width = this.output[1];
    for (let x = 0; x < width; x += 1) {
      const a = across.low[x] * classes, b = across.high[x] * classes, wa = across.below[x], wb = across.above[x];
      const o = (flipped ? width - 1 - x : x) * classes;
      for (let k = 0; k < classes; k += 1) out[o + k] = wa * between[a + k] + wb * between[b + k];
    }
    return out;
  }

  /** The scores of a row of the view: the mean over its windows. */
  blend(y, line) {
    const { windows, classes, size } = this;
    const rows = windows.tops.flatMap((top, i) => (top <= y && y < top + windows.size[0] ? [i] : []));
    line.fill(0);
    for (const i of rows) {
      windows.lefts.forEach((left, j) => {
        const { maps, votes } = this.grids[i][j];
        this.#cells(y - windows.tops[i], maps);
        const width = Math.min(windows.size[1], size[1] - left);
        if (votes) this.#addVotes(votes, left, width, line);
        else this.#add(left, width, line);
      });
    }
    if (rows.length * windows.lefts.length > 1) {
      for (let x = 0, o = 0; x < size[1]; x += 1) {
        const count = rows.length * this.counts[x];
        for (let k = 0; k < classes; k += 1, o += 1) line[o] /= count;
      }
    }
    return line;
  }

  /** A row of a window between the rows of its grid. */
  #cells(y, maps) {
    const { low, high, below, above } = this.windowTaps[0], { cells } = this, stride = cells.length;
    const a = low[y] * stride, b = high[y] * stride, wa = below[y], wb = above[y];
    for (let i = 0; i < stride; i += 1) cells[i] = wa * maps[a + i] + wb * maps[b + i];
  }

  #add(left, width, line) {
    const { low, high, below, above } = this.windowTaps[1], { cells, classes } = this;
    for (let x = 0; x < width; x += 1) {
      const a = low[x] * classes, b = high[x] * classes, wa = below[x], wb = above[x], o = (left + x) * classes;
      for (let k = 0; k < classes; k += 1) line[o + k] += wa * cells[a + k] + wb * cells[b + k];
    }
  }

  #addVotes(votes, left, width, line) {
    const { low, high, below, above } = this.windowTaps[1], { cells, classes, masks } = this, channels = masks.length;
    for (let x = 0; x < width; x += 1) {
      const a = low[x] * channels, b = high[x] * channels, wa = below[x], wb = above[x], o = (left + x) * classes;
      for (let c = 0; c < channels; c += 1) masks[c] = 1 / (1 + Math.exp(-(wa * cells[a + c] + wb * cells[b + c])));
      for (let c = 0; c < channels; c += 1) {
        const mask = masks[c];
        for (let k = 0; k < classes; k += 1) line[o + k] += mask * votes[c * classes + k];
      }
    }
  }
}

/** {ids, confidence}: Uint8Array of height x width, the most probable class (the first of equals) and its probability x 255. */
export function labels(views, [height, width], classes) {
  const readers = views.map((view) => new Reader(view, [height, width], classes));
  const ids = new Uint8Array(height * width), confidence = new Uint8Array(height * width);
  const votes = views[0].grids[0][0].votes !== null, alone = views.length === 1;
  const row = new Float32Array(width * classes), sum = alone ? row : new Float32Array(width * classes);
  for (let y = 0; y < height; y += 1) {
    if (!alone) sum.fill(0);
    for (const reader of readers) {
      reader.row(y, row);
      if (alone) break;
      if (votes) for (let i = 0; i < row.length; i += 1) sum[i] += row[i];
      else addSoftmax(row, classes, sum);
    }
    for (let x = 0, o = 0; x < width; x += 1, o += classes) {
      let best = 0;
      for (let k = 1; k < classes; k += 1) if (sum[o + k] > sum[o + best]) best = k;
      const top = sum[o + best];
      ids[y * width + x] = best;
      confidence[y * width + x] = Math.round(255 * probability(sum, o, classes, top, votes, alone, views.length));
    }
  }
  return { ids, confidence };
}

function probability(sum, o, classes, top, votes, alone, views) {
  if (!votes && !alone) return top / views;
  let all = 0;
  if (votes) for (let k = 0; k < classes; k += 1) all += sum[o + k];
  else for (let k = 0; k < classes; k += 1) all += Math.exp(sum[o + k] - top);
  return Math.min(1, (votes ? top : 1) / Math.max(all, 1e-30));
}

function addSoftmax(row, classes, sum) {
  for (let o = 0; o < row.length; o += classes) {
    let top = row[o], all = 0;
    for (let k = 1; k < classes; k += 1) top = Math.max(top, row[o + k]);
    for (let k = 0; k < classes; k += 1) all += row[o + k] = Math.exp(row[o + k] - top);
    for (let k = 0; k < classes; k += 1) sum[o + k] += row[o + k] / all;
  }
}

/** Pixels, regions and mean confidence of every class that occurs: [{id, pixels, regions, mean_confidence}]. */
export function statistics(ids, confidence, [height, width]) {
  const pixels = new Float64Array(256), sums = new Float64Array(256), regions = new Float64Array(256);
  for (let i = 0; i < ids.length; i += 1) {
    pixels[ids[i]] += 1;
    sums[ids[i]] += confidence[i] / 255;
  }
  // Runs of equal pixels, joined with those above that they touch.
  const parents = [];
  const root = (run) => {
    while (parents[run] !== run) run = parents[run] = parents[parents[run]];
    return run;
  };
  let above = [];
  for (let y = 0; y < height; y += 1) {
    const row = [];
    for (let x = 0; x < width;) {
      const start = x, id = ids[y * width + x];
      while (x < width && ids[y * width + x] === id) x += 1;
      row.push({ start, end: x, id, run: parents.push(parents.length) - 1 });
      regions[id] += 1;
    }
    for (let i = 0, j = 0; i < row.length && j < above.length;) {
      if (row[i].id === above[j].id && row[i].start < above[j].end && above[j].start < row[i].end) {
        const [a, b] = [root(row[i].run), root(above[j].run)];
        if (a !== b) {
          parents[a] = b;
          regions[row[i].id] -= 1;
        }
      }
      if (row[i].end < above[j].end) i += 1;
      else j += 1;
    }
    above = row;
  }
  return [...pixels.keys()].filter((id) => pixels[id] > 0)
    .map((id) => ({ id, pixels: pixels[id], regions: regions[id], mean_confidence: sums[id] / pixels[id] }));
}
