// The photo with its labels drawn over it, and what is read at a point of it.

const LONGEST = 2048; // pixels of the longer side that are drawn; files are written in full size
const BORDER = 0.5; // how much of the rest a line between two classes covers, as in the program's overlays
const NONE = 255;

/** "#rrggbb" -> [r, g, b] */
export const rgb = (color) => [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16));

/** Colours of a confidence of 0 to 255: red where it is low, yellow, and hardly anything where it is high. */
const heat = (value) => {
  const share = value / 255;
  return [235, Math.round(40 + 190 * share), 60, Math.round(255 * (1 - share ** 3))];
};

export class View {
  #photo;
  #labels;
  #bitmap = null;
  #result = null;
  #moment = null;
  #pending = 0;

  constructor(stage) {
    this.stage = stage;
    this.#photo = stage.querySelector(".photo");
    this.#labels = stage.querySelector(".labels");
    this.colors = new Map();
    this.opacity = 0.55;
    this.layer = "classes";
    this.isShown = () => true;
  }

  /** Shows a photo without labels; `null` for one that the browser cannot draw. */
  open(bitmap) {
    this.#bitmap?.close();
    this.#bitmap = bitmap;
    this.#result = this.#moment = null;
    this.#size(bitmap?.width ?? 4, bitmap?.height ?? 3);
    this.stage.classList.toggle("blind", !bitmap);
    if (!bitmap) return;
    const context = this.#photo.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, this.#photo.width, this.#photo.height);
  }

  /** Lays an answer over the photo; `null` takes it away. */
  label(result) {
    this.#result = result;
    this.#moment = null;
    if (result && !this.#bitmap) this.#size(result.width, result.height);
    this.draw();
  }

  /** Shows the labels of a block in place of the answer: {width, height, values, spans: [width, height] in pixels of the photo}. */
  at(moment) {
    this.#moment = moment;
    this.draw();
  }

  draw() {
    cancelAnimationFrame(this.#pending);
    this.#pending = requestAnimationFrame(() => this.#draw());
  }

  /** What is at a point given as shares of the stage: {x, y, id, confidence}, confidence `null` for a block. */
  read(shareX, shareY) {
    const result = this.#result;
    if (!result) return null;
    const x = Math.min(result.width - 1, Math.max(0, Math.floor(shareX * result.width)));
    const y = Math.min(result.height - 1, Math.max(0, Math.floor(shareY * result.height)));
    const at = y * result.width + x;
    const moment = this.#moment;
    if (!moment) return { x, y, id: result.ids[at], confidence: result.confidence[at] / 255 };
    const column = Math.min(moment.width - 1, Math.floor(((x + 0.5) / moment.spans[0]) * moment.width));
    const row = Math.min(moment.height - 1, Math.floor(((y + 0.5) / moment.spans[1]) * moment.height));
    return { x, y, id: moment.values[row * moment.width + column], confidence: null };
  }

  /** The photo with its labels as they are shown, in full size, as a PNG; `null` if the browser cannot. */
  async overlay() {
    const { width, height } = this.#result;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    if (!context || !this.#bitmap) return null;
    context.drawImage(this.#bitmap, 0, 0, width, height);
    const labels = document.createElement("canvas");
    [labels.width, labels.height] = [width, height];
    if (!this.#paint(labels)) return null;
    context.drawImage(labels, 0, 0);
    return new Promise((done) => { canvas.toBlob(done, "image/png"); });
  }

  get size() {
    return this.#result ? [this.#result.width, this.#result.height] : [this.#photo.width, this.#photo.height];
  }

  #size(width, height) {
    const scale = Math.min(1, LONGEST / Math.max(width, height));
    for (const canvas of [this.#photo, this.#labels]) {
      canvas.width = Math.max(1, Math.round(width * scale));
      canvas.height = Math.max(1, Math.round(height * scale));
    }
    this.stage.style.setProperty("--ratio", width / height);
  }

  #draw() {
    if (this.#result) this.#paint(this.#labels);
    else this.#labels.getContext("2d").clearRect(0, 0, this.#labels.width, this.#labels.height);
  }

  /** Paints labels over all of a canvas; false if it has no room for them. */
  #paint(canvas) {
    const context = canvas.getContext("2d");
    if (!context) return false;
    const { width, height } = canvas;
    const picture = context.createImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer);
    const result = this.#result, moment = this.#moment;
    const source = moment ?? { width: result.width, height: result.height, values: result.ids, spans: [result.width, result.height] };
    const columns = nearest(width, result.width / source.spans[0], source.width);
    const rows = nearest(height, result.height / source.spans[1], source.height);
    const confidence = this.layer === "confidence" && !moment;
    const [inside, border] = confidence ? this.#heat() : this.#table();
    for (let y = 0; y < height; y += 1) {
      const [above, row, below] = [Math.max(0, y - 1), y, Math.min(height - 1, y + 1)].map((line) => rows[line] * source.width);
      for (let x = 0; x < width; x += 1) {
        const column = columns[x], id = source.values[row + column];
        if (confidence) {
          pixels[y * width + x] = this.isShown(id) ? inside[result.confidence[row + column]] : 0;
          continue;
        }
        const edge = id !== source.values[above + column] || id !== source.values[below + column]
          || id !== source.values[row + columns[Math.max(0, x - 1)]] || id !== source.values[row + columns[Math.min(width - 1, x + 1)]];
        pixels[y * width + x] = (edge ? border : inside)[id];
      }
    }
    context.putImageData(picture, 0, 0);
    return true;
  }

  /** Pixels of every id inside of a region and on its border. Black is the background by custom and stays as it is. */
  #table() {
    const alpha = this.opacity, line = alpha === 0 ? 0 : alpha + (1 - alpha) * BORDER;
    const tables = [new Uint32Array(256), new Uint32Array(256)];
    for (const [id, color] of this.colors) {
      if (id === NONE || color === "#000000" || !this.isShown(id)) continue;
      tables.forEach((table, i) => { table[id] = pixel([...rgb(color), Math.round(255 * (i ? line : alpha))]); });
    }
    return tables;
  }

  #heat() {
    const table = Uint32Array.from({ length: 256 }, (_, value) => {
      const [r, g, b, a] = heat(value);
      return pixel([r, g, b, Math.round(a * this.opacity)]);
    });
    return [table, table];
  }
}

/** Which of `count` cells each of `length` pixels shows, if they show this share of them. */
const nearest = (length, share, count) => Int32Array.from({ length }, (_, i) => Math.min(count - 1, Math.floor(((i + 0.5) / length) * share * count)));

/** As the bytes of an image lie in a little-endian word, as all browsers' machines have it. */
const pixel = ([r, g, b, a]) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
