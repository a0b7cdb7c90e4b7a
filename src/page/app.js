// The page: photos go in, an engine labels them, and the view, the legend and the tokens show what it answers.

import * as engine from "./engine.js";
import { listen } from "./input.js";
import { Legend } from "./legend.js";
import { Tokens } from "./tokens.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);

const stage = $("stage");
const view = new View(stage);
const legend = new Legend($("legend"), $("all"), () => view.draw());
const tokens = new Tokens($("tokens"), $("scrub"), showMoment);
view.isShown = (id) => legend.isShown(id);

/** Failures that the same photo meets again. */
const HOPELESS = new Set(["not_an_image", "image_damaged", "image_too_large", "body_too_large", "unsupported", "unsupported_media_type"]);

/** Models by name, what the server takes, the photo that is open, its answer, and what ends the question that is under way. */
const state = { models: new Map(), limits: {}, photo: null, result: null, asked: null };

async function connect() {
  let answer;
  try {
    answer = await engine.models();
  } catch (error) {
    return report(error, connect);
  }
  clear();
  state.models = new Map(answer.models.map((model) => [model.name, model]));
  state.limits = answer.limits ?? {};
  const select = $("model"), first = answer.models.find((model) => model.default) ?? answer.models[0];
  select.replaceChildren(...answer.models.map((model) => new Option(model.name, model.name, model === first, model === first)));
  $("model-field").hidden = answer.models.length < 2;
  $("model-name").hidden = answer.models.length !== 1;
  introduce();
}

const model = () => state.models.get($("model").value);

/** Says which model is chosen and what it knows. */
function introduce() {
  const { name, classes, architecture } = model() ?? { classes: [] };
  $("model-name").textContent = name ?? "";
  $("model").title = $("model-name").title = architecture ?? "";
  $("knows-title").textContent = `${classes.length} ${classes.length === 1 ? "class" : "classes"}`;
  $("knows").hidden = classes.length === 0;
  $("knows").querySelector("ul").replaceChildren(...classes.map((one) => {
    const item = document.createElement("li"), swatch = document.createElement("i");
    swatch.className = "swatch";
    swatch.style.background = one.color;
    item.append(swatch, one.name);
    return item;
  }));
  const command = engine.command(name);
  $("program").hidden = !command;
  if (engine.routes) $("routes").href = engine.routes;
  $("command").textContent = command ?? "";
}

/** A new photo: shown at once, then labelled. */
async function open(photo, name, left) {
  const { image_bytes: most } = state.limits;
  if (most && photo.size > most) {
    return report({ cause: `\`${name}\` has ${megabytes(photo.size)}, more than the ${megabytes(most)} that are taken`, hint: "save it smaller, or cut it into tiles" });
  }
  const bitmap = await createImageBitmap(photo).catch(() => null);
  state.photo = { blob: photo, name };
  $("file-name").textContent = name;
  $("start").hidden = true;
  $("work").hidden = false;
  view.open(bitmap);
  await label();
  if (left) report({ cause: `one photo is labelled, ${left} more are left out`, hint: "to label many, use `structtoken predict MODEL FOLDER`" });
  else if (!bitmap && state.result) report({ cause: "this browser cannot show the photo; its labels are shown alone", hint: null });
}

async function label() {
  if (!state.photo) return;
  clear();
  state.asked?.abort();
  const asked = (state.asked = new AbortController());
  state.result = null;
  view.label(null);
  tokens.fill(null);
  stage.classList.remove("ready");
  hold(true);
  readout(null);
  const end = wait();
  try {
    const result = await engine.segment(state.photo.blob, { model: model()?.name, signal: asked.signal, progress: (text) => { if (asked === state.asked) doing(text); } });
    if (asked === state.asked) show(result);
  } catch (error) {
    if (asked !== state.asked || error.name === "AbortError") return;
    report(error, HOPELESS.has(error.code) ? null : label);
    if (stage.classList.contains("blind")) close();
  } finally {
    if (asked === state.asked) end();
  }
}

/** What needs an answer cannot be used while there is none. */
function hold(held) {
  for (const part of document.querySelectorAll(".right, .controls")) part.inert = held;
}

/** Back to the start: there is nothing to show. */
function close() {
  state.photo = null;
  $("work").hidden = true;
  $("start").hidden = false;
}

/** Says what is being done; the text is read aloud, so it changes only when it has to. */
function doing(text) {
  if ($("busy-text").textContent !== text) $("busy-text").textContent = text;
}

/** Shows that an answer is awaited, and for how long; gives what ends that. */
function wait() {
  const began = performance.now();
  const tick = () => { $("busy-time").textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`; };
  clearInterval(state.timer);
  tick();
  state.timer = setInterval(tick, 100);
  doing("Labelling");
  $("busy").hidden = false;
  stage.setAttribute("aria-busy", "true");
  return () => {
    clearInterval(state.timer);
    $("busy").hidden = true;
    stage.setAttribute("aria-busy", "false");
  };
}

function show(result) {
  state.result = result;
  const classes = new Map([...(model()?.classes ?? []), ...result.classes].map((one) => [one.id, one]));
  state.classes = classes;
  view.colors = new Map([...classes].map(([id, one]) => [id, one.color]));
  legend.fill(result.classes);
  view.label(result);
  tokens.fill(result.tokens, classes);
  tokens.mask(result, "#000004");
  stage.classList.add("ready");
  hold(false);
  $("ignored").hidden = !result.ignored;
  $("ignored").textContent = result.ignored ? `${((100 * result.ignored) / (result.width * result.height)).toFixed(1)} % have no class` : "";
  const steps = Object.entries(result.timing ?? {}).filter(([, time]) => time >= 0.5).map(([step, time]) => `${step} ${duration(time)}`);
  $("timing").textContent = [`${result.width} x ${result.height} pixels`, ...steps, result.by].filter(Boolean).join(" · ");
  readout(null);
}

/** A block's labels in place of the answer, or the answer again. */
function showMoment(moment) {
  $("moment").hidden = !moment;
  $("moment").textContent = moment?.name ?? "";
  view.at(moment);
  if (!cross.hidden) readout(point);
}

// What is under the pointer.

const cross = stage.querySelector(".cross");
let point = [0.5, 0.5];

function readout(at) {
  const found = at && view.read(...at);
  cross.hidden = !found;
  if (!found) {
    $("readout").textContent = state.result ? "Point at the photo to read a class and its confidence." : "";
    return;
  }
  [cross.style.left, cross.style.top] = at.map((share) => `${share * 100}%`);
  const one = state.classes.get(found.id);
  const name = document.createElement("b"), swatch = document.createElement("i"), place = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = one?.color ?? "transparent";
  name.textContent = one?.name ?? "no class";
  place.textContent = `x ${found.x}, y ${found.y}`;
  const confidence = found.confidence === null || !one ? "" : ` ${(100 * found.confidence).toFixed(0)} % confidence `;
  $("readout").replaceChildren(swatch, name, confidence, place);
}

const pointed = (event) => {
  const box = stage.querySelector(".photo").getBoundingClientRect();
  const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  if (at.some((share) => share < 0 || share > 1)) return readout(null);
  point = at;
  $("readout").ariaLive = "off";
  readout(at);
};
stage.addEventListener("pointermove", pointed);
stage.addEventListener("pointerdown", pointed);
stage.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") readout(null); });
stage.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "Escape") return readout(null);
  if (!way || event.target !== stage) return;
  event.preventDefault();
  $("readout").ariaLive = "polite";
  const size = view.size, step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(...size) / 50));
  point = point.map((share, i) => Math.min(1 - 0.5 / size[i], Math.max(0.5 / size[i], share + (way[i] * step) / size[i])));
  readout(point);
});

// Controls.

$("opacity").addEventListener("input", ({ target }) => {
  view.opacity = target.value / 100;
  $("opacity-value").textContent = `${target.value} %`;
  view.draw();
});
$("layer").addEventListener("change", ({ target }) => {
  view.layer = target.value;
  $("key").hidden = target.value !== "confidence";
  view.draw();
});
$("cancel").addEventListener("click", () => {
  state.asked?.abort();
  report({ cause: "cancelled", hint: null }, label);
});
$("model").addEventListener("change", () => {
  introduce();
  label();
});
$("copy").addEventListener("click", async () => {
  const copied = await navigator.clipboard?.writeText($("command").textContent).then(() => true, () => false);
  if (!copied) getSelection().selectAllChildren($("command"));
  $("copy").textContent = copied ? "Copied" : "Selected";
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
});
$("downloads").addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button || !state.result) return;
  const kind = button.dataset.file;
  button.setAttribute("aria-busy", "true");
  try {
    save(await made(kind), `${state.photo.name.replace(/\.\w+$/, "")}${{ mask: "_mask.png", overlay: "_overlay.png", geojson: ".geojson" }[kind]}`);
  } catch (error) {
    report(error);
  } finally {
    button.removeAttribute("aria-busy");
  }
});

async function made(kind) {
  if (kind === "mask") return state.result.mask;
  const shown = kind === "overlay" ? await view.overlay() : null;
  return shown ?? engine.file(kind, state.photo.blob, { model: state.result.model, name: state.photo.name });
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// What went wrong, and what to do.

let repeat = null;

/** Shows {cause, hint, code, wait}; `again` is offered as what to try. */
function report(problem, again = null) {
  if (!(problem instanceof engine.EngineError) && problem instanceof Error) console.error(problem);
  const box = $("problem"), locked = problem.code === "unauthorized";
  const cause = problem.cause ?? problem.message ?? "something failed";
  box.querySelector(".cause").textContent = locked ? "This server asks for a token." : sentence(cause);
  box.querySelector(".hint").textContent = locked ? sentence(problem.hint ?? "") : [problem.hint && sentence(problem.hint), problem.wait && `Try again in ${problem.wait} s.`].filter(Boolean).join(" ");
  box.classList.toggle("note", problem.code === undefined && !(problem instanceof Error));
  repeat = again;
  $("token-form").hidden = !locked;
  $("again").hidden = !again || locked;
  box.hidden = false;
  if (locked) $("token").focus();
}

function clear() {
  $("problem").hidden = true;
  repeat = null;
}

$("dismiss").addEventListener("click", clear);
$("again").addEventListener("click", () => repeat?.());
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  engine.authorize($("token").value.trim());
  $("token").value = "";
  (repeat ?? connect)();
});

const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}` : "");
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const duration = (time) => (time < 1000 ? `${time.toFixed(0)} ms` : `${(time / 1000).toFixed(1)} s`);

listen(open, (problem) => report(problem));
$("promise").textContent = engine.promise;
for (const button of document.querySelectorAll("[data-file]")) button.hidden = !engine.kinds.includes(button.dataset.file);
await connect();
