// What the page asks of a network, here answered by the browser itself. The other engine's file says what is exported; this one runs the
// model beside it, an ONNX file, by onnxruntime-web in a worker. No photo leaves the machine.

import { writePng } from "./png.js";

export class EngineError extends Error {
  constructor({ code, cause, hint = null }) {
    super(cause);
    Object.assign(this, { code, cause, hint, wait: null });
  }
}

export const promise = "The photo stays on this machine: the model runs in the browser.";

export const kinds = ["mask", "overlay"];

export const routes = null;

export const authorize = () => {};

export const command = () => null;

/** How long the graphics card may take to be ready, in milliseconds, before the processor does the work. */
const PATIENCE = 60_000;

let model = null, started = null, asked = 0;
/** Why the graphics card is not used, where it was tried. */
let declined = "";
/** What the worker does before it is ready, and who wants to know. */
let doing = "Loading the model", hear = () => {};

export async function models() {
  const response = await fetch("model.json", { cache: "no-cache" }).catch(() => null);
  if (!response?.ok) throw new EngineError({ code: "unreachable", cause: "the model's description `model.json` cannot be loaded", hint: "check that all files of the folder were copied" });
  model = await response.json().catch(() => null);
  if (!model?.file || !Array.isArray(model.classes)) throw new EngineError({ code: "damaged", cause: "the model's description `model.json` is damaged", hint: "copy the whole folder again, and reload the page without its cache" });
  if (typeof WebAssembly !== "object" || typeof OffscreenCanvas === "undefined") throw new EngineError({ code: "unsupported", cause: "this browser cannot run the model", hint: "use a current version of Firefox, Chrome, Edge or Safari" });
  ready().catch(() => {}); // loads while a photo is being chosen; whoever asks then learns what went wrong
  return { models: [{ ...model, default: true }], limits: {} };
}

/** The worker that has passed its check. One that failed is tried again when it is next asked for. */
function ready() {
  started ??= start().catch((error) => {
    started = null;
    throw error;
  });
  return started;
}

/** The graphics card where there is one and it says what the model says, else the processor. */
async function start() {
  const wish = new URLSearchParams(location.search).get("by"); // "wasm" or "webgpu", to compare them
  if (wish !== "wasm" && (await hasGraphics(wish === "webgpu"))) {
    try {
      return await launch("webgpu", PATIENCE);
    } catch (error) {
      console.info(`WebGPU is not used: ${error.message}`);
      declined = { disagrees: ", as WebGPU gives other labels", slow: ", as WebGPU was not ready in time" }[error.code] ?? ", as WebGPU failed";
    }
  }
  return launch("wasm");
}

async function hasGraphics(slow) {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && (slow || !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter));
}

function launch(by, patience = 0) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    let up = false;
    const end = (problem) => {
      worker.terminate();
      if (up) started = null; // the next photo gets another one
      reject(new EngineError(problem));
    };
    const timer = patience && setTimeout(() => end({ code: "slow", cause: `${by} is not ready after ${patience / 1000} s` }), patience);
    const waiting = new Map();
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      clearTimeout(timer);
      const problem = { code: "failed", cause: `the browser cannot run the model: ${event.message || "its files cannot be loaded"}`, hint: "check that all files of the folder were copied, or try another browser" };
      waiting.forEach(({ reject: fail }) => fail(new EngineError(problem)));
      end(problem);
    });
    worker.addEventListener("message", ({ data }) => {
      if (data.id !== undefined) return waiting.get(data.id)?.hear(data);
      if (data.progress) return hear((doing = data.progress));
      clearTimeout(timer);
      if (data.failed) end(data.failed);
      else {
        up = true;
        resolve({ worker, waiting });
      }
    });
    worker.postMessage({ start: { model, by } });
  });
}

export async function segment(photo, { signal, progress = () => {} } = {}) {
  hear = progress;
  progress(doing);
  const gone = () => new DOMException("cancelled", "AbortError");
  const { worker, waiting } = await orAborted(ready(), signal, gone);
  const id = (asked += 1);
  const answer = new Promise((resolve, reject) => {
    const stop = () => {
      worker.postMessage({ cancel: id });
      reject(gone());
    };
    signal?.addEventListener("abort", stop, { once: true });
    waiting.set(id, { reject, hear: (data) => {
      if (data.progress) progress(data.progress);
      else if (data.problem) reject(new EngineError(data.problem));
      else resolve(data.result);
    } });
    progress("Labelling");
    worker.postMessage({ id, photo });
  });
  try {
    const result = await answer, { width, height, ids } = result;
    return { ...result, by: result.by + declined, mask: await writePng({ width, height, values: ids }, palette()) };
  } finally {
    waiting.delete(id);
  }
}

const orAborted = (work, signal, gone) => Promise.race([work, new Promise((_, reject) => {
  if (signal?.aborted) reject(gone());
  signal?.addEventListener("abort", () => reject(gone()), { once: true });
})]);

/** As in the program's own masks: black for ids without a class. */
function palette() {
  const colors = model.classes.map(({ color }) => [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, id) => colors[id] ?? [0, 0, 0]);
}

export async function file() {
  throw new EngineError({ code: "unsupported", cause: "this browser cannot draw the picture", hint: "take the mask instead" });
}
