// Runs the model beside the page, so that the page stays awake.
//
//   page -> worker: {start: {model, by: "wasm" or "webgpu"}} · {photo, id} · {cancel: id}
//   worker -> page: {progress} · {ready: {by}} · {failed: {code, cause, hint}} · {id, result} · {id, progress} · {id, problem}

import { readPng } from "./png.js";
import { cut, resize, starts, viewSizes } from "./resample.js";
import { labels, statistics } from "./labels.js";

/** Canvases of more pixels are not to be had everywhere. */
const LARGEST = 100e6;

let ort, session, model, by;
let queue = Promise.resolve();
const cancelled = new Set();

class Problem extends Error {
  constructor(code, cause, hint = null) {
    super(cause);
    Object.assign(this, { told: { code, cause, hint } });
  }
}

/** What a problem is called; others than ours keep their own words. */
const told = (error) => error.told ?? { code: "failed", cause: `the browser cannot run the model: ${error.message ?? error}`, hint: "copy the folder `ort` again, or try another browser, or a machine with more memory" };

addEventListener("message", ({ data }) => {
  if (data.cancel !== undefined) cancelled.add(data.cancel);
  else if (data.start) queue = start(data.start).then((ready) => postMessage({ ready }), (error) => postMessage({ failed: told(error) }));
  else queue = queue.then(() => answer(data));
});

async function answer({ id, photo }) {
  try {
    const result = await segment(photo, id);
    if (result) postMessage({ id, result }, [result.ids.buffer, result.confidence.buffer]);
  } catch (error) {
    postMessage({ id, problem: told(error) });
  } finally {
    cancelled.delete(id);
  }
}

/** Loads runtime and model, and asks the model what is known already. */
async function start(wanted) {
  model = wanted.model;
  const [entry, glue] = wanted.by === "webgpu" ? ["webgpu", ".asyncify"] : ["wasm", ""];
  const beside = (name) => new URL(`ort/${name}`, import.meta.url).href;
  ort = await import(beside(`ort.${entry}.min.mjs`)).catch(() => {
    throw new Problem("unreachable", "onnxruntime-web, which runs the model, cannot be loaded", "check that the folder `ort` was copied, and that the server sends .mjs files as JavaScript");
  });
  const threads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = { mjs: beside(`ort-wasm-simd-threaded${glue}.mjs`), wasm: beside(`ort-wasm-simd-threaded${glue}.wasm`) };
  const file = await load(new URL(model.file, import.meta.url), model.bytes);
  // Browsers offer the sum on pages from https and from this machine alone.
  if (model.sha256 && globalThis.crypto?.subtle) {
    const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", file));
    if (Array.from(sum, (byte) => byte.toString(16).padStart(2, "0")).join("") !== model.sha256) throw other();
  }
  postMessage({ progress: "Preparing the model" });
  session = await ort.InferenceSession.create(file, {
    executionProviders: [wanted.by],
    graphOptimizationLevel: "all",
    freeDimensionOverrides: { batch: 1 },
  });
  by = wanted.by === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  postMessage({ progress: "Checking the model" });
  await compare(wanted.by);
  return { by };
}

async function load(address, bytes) {
  const response = await fetch(address, { cache: "no-cache" });
  if (!response.ok) throw new Problem("unreachable", `the model cannot be loaded: the server answered ${response.status}`, "check that all files of the folder were copied");
  const file = new Uint8Array(bytes), reader = response.body.getReader(), size = (n) => (n / 1e6).toFixed(n < 1e7 ? 1 : 0);
  let at = 0, said = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > bytes) throw other();
    file.set(value, at);
    at += value.length;
    if (at - said > bytes / 50) postMessage({ progress: `Loading the model, ${size((said = at))} of ${size(bytes)} MB` });
  }
  if (at !== bytes) throw other();
  return file;
}

const other = () => new Problem("damaged", "`model.onnx` is not the file that belongs to this page", "copy the whole folder again, and reload the page without its cache");

/** The stored image must get the stored labels, or this machine computes something else than the model. */
async function compare(wanted) {
  const read = async (name) => {
    const response = await fetch(new URL(name, import.meta.url), { cache: "no-cache" });
    if (!response.ok) throw new Problem("unreachable", `\`${name}\` cannot be loaded: the server answered ${response.status}`, "check that all files of the folder were copied");
    return response.blob();
  };
  const [image, known] = [await read(model.golden.image), await read(model.golden.labels)];
  const { values } = await readPng(new Uint8Array(await known.arrayBuffer()));
  const picture = await decode(image), size = [picture.height, picture.width];
  const found = labels([await look(resize(picture, size), false)], size, model.classes.length).ids;
  const differ = found.reduce((count, id, i) => count + (id !== values[i]), 0);
  if (found.length !== values.length || differ > Math.max(1, Math.floor((1 - model.golden.same) * values.length))) {
    const share = ((100 * differ) / values.length).toFixed(2);
    const cause = `this browser gives other labels than the model does: ${share} % of those of a stored image differ (${wanted === "webgpu" ? "WebGPU" : "WebAssembly"})`;
    throw new Problem("disagrees", cause, "try another browser; protection against fingerprinting alters pixels in some");
  }
}

/** A file -> its pixels as they are stored, upright: {width, height, data: RGBA}. */
async function decode(photo) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(photo, { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" });
  } catch {
    throw new Problem("not_an_image", "this browser cannot read the photo", "choose a JPEG, PNG or WebP");
  }
  const { width, height } = bitmap;
  if (width * height > LARGEST) throw new Problem("image_too_large", `the photo has ${width} x ${height} pixels; at most ${LARGEST / 1e6} million are possible here`, "save it smaller, or cut it into tiles");
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Problem("image_too_large", `the browser has no room for ${width} x ${height} pixels`, "save it smaller");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}

/** What the network says of all windows of a view; `step` is called before each and may end it. */
async function look(view, flipped, step = async () => true) {
  const { crop, stride } = model.settings, size = [view.height, view.width];
  const [tops, lefts] = [0, 1].map((side) => starts(size[side], crop[side], stride[side]));
  const grids = [];
  let grid;
  for (const top of tops) {
    const row = [];
    for (const left of lefts) {
      if (!(await step())) return null;
      const image = new ort.Tensor("uint8", cut(view, [top, left], crop, flipped), [1, ...crop, 3]);
      const { maps, votes } = await session.run({ image });
      grid = maps.dims.slice(1);
      row.push({ maps: maps.data, votes: votes?.data ?? null });
    }
    grids.push(row);
  }
  return { size, windows: { tops, lefts, size: crop }, grids, grid, flipped };
}

/** Gives way to messages, of which one may cancel. */
const breathe = () => new Promise((done) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => { port1.close(); done(); };
  port2.postMessage(null);
});

async function segment(photo, id) {
  if (cancelled.has(id)) return null;
  const times = [performance.now()], mark = () => times.push(performance.now());
  const picture = await decode(photo), output = [picture.height, picture.width];
  const sizes = viewSizes(output, model.settings), flips = model.settings.flip ? [true, false] : [false];
  const { crop, stride } = model.settings;
  const count = (size) => [0, 1].reduce((product, side) => product * starts(size[side], crop[side], stride[side]).length, flips.length);
  const all = sizes.reduce((sum, size) => sum + count(size), 0);
  let done = 0;
  const step = async () => {
    await breathe();
    if (cancelled.has(id)) return false;
    done += 1;
    if (all > 1) postMessage({ id, progress: `Labelling, window ${done} of ${all}` });
    return true;
  };
  mark();
  const views = [];
  for (const size of sizes) {
    const view = resize(picture, size);
    for (const flipped of flips) {
      const seen = await look(view, flipped, step);
      if (!seen) return null;
      views.push(seen);
    }
  }
  mark();
  const { ids, confidence } = labels(views, output, model.classes.length);
  const classes = statistics(ids, confidence, output).map((one) => ({ ...model.classes[one.id], ...one, share: one.pixels / ids.length }));
  mark();
  const [decoding, network, labelling] = [1, 2, 3].map((i) => times[i] - times[i - 1]);
  return { model: model.name, width: output[1], height: output[0], classes, ignored: 0, ids, confidence, tokens: null, by, timing: { decode: decoding, network, labels: labelling } };
}
