// What the page asks of a network, here answered by the server that sent the page. Another engine has the same exports:
//
//   models()                                -> {models: [{name, default, classes: [{id, name, color}], architecture, window, tokens,
//                                                         parameters, miou}], limits: {image_bytes, pixels}}
//   segment(photo, {model, signal, progress}) -> {width, height, classes: [{id, name, color, pixels, share, regions, mean_confidence}],
//                                               ids, confidence: Uint8Array of width x height (255: no class; probability x 255),
//                                               mask: Blob, tokens: null or {blocks, classes, maps: URLs [block][class],
//                                               labels: [{width, height, values}], width, height}, timing: {step: milliseconds},
//                                               by: what computed it, or nothing}; progress(text): what is being done meanwhile
//   file(kind, photo, {model, name})        -> Blob; kind: "overlay", "geojson"; name: what the photo is called in it
//   kinds                                   -> the files that can be had: "mask", "overlay", "geojson"
//   routes                                  -> the address of the description of all routes, or null
//   command(model)                          -> what a shell would be asked, or null
//   promise                                 -> what happens to photos, in a sentence
//   authorize(token)                        -> answers questions from now on with it
//
// Failures are EngineError: code, cause, hint, and the seconds to wait if it is worth trying again.

import { readPng } from "./png.js";

export class EngineError extends Error {
  constructor({ code, cause, hint = null }, wait = null) {
    super(cause);
    Object.assign(this, { code, hint, wait });
  }
}

export const promise = "The photo is sent to this server, labelled, and not kept.";

export const kinds = ["mask", "overlay", "geojson"];

export const routes = "openapi.json";

const TOKEN = "token";

export const authorize = (token) => sessionStorage.setItem(TOKEN, token);

export const models = async () => (await ask("v1/models")).json();

export async function segment(photo, { model, signal } = {}) {
  const answer = await (await ask(route("page", model), { method: "POST", body: photo, signal })).json();
  const bytes = decode(answer.mask);
  const [ids, confidence] = await Promise.all([readPng(bytes), values(answer.confidence)]);
  return {
    ...answer,
    ids: ids.values,
    confidence: confidence.values,
    mask: new Blob([bytes], { type: "image/png" }),
    tokens: answer.tokens && {
      width: answer.width,
      height: answer.height,
      ...answer.tokens,
      maps: answer.tokens.maps.map((block) => block.map((png) => `data:image/png;base64,${png}`)),
      labels: await Promise.all(answer.tokens.labels.map(values)),
    },
  };
}

export async function file(kind, photo, { model, name } = {}) {
  const called = name ? `&name=${encodeURIComponent(name)}` : "";
  return (await ask(route(kind, model) + called, { method: "POST", body: photo })).blob();
}

export function command(model) {
  const url = new URL(route("mask", model), location.href);
  const token = sessionStorage.getItem(TOKEN) ? " --oauth2-bearer \"$TOKEN\"" : "";
  return `curl --data-binary @photo.jpg${token} '${url}' --output mask.png`;
}

const route = (output, model) => `v1/segment?output=${output}${model ? `&model=${encodeURIComponent(model)}` : ""}`;

const values = (base64) => readPng(decode(base64));

function decode(base64) {
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new EngineError({ code: "unreachable", cause: "the server does not answer", hint: "check that it still runs and that the network reaches it" });
  }
  if (response.ok) return response;
  const wait = Number(response.headers.get("Retry-After")) || null;
  const told = await response.json().catch(() => null);
  throw new EngineError(told?.cause ? told : { code: String(response.status), cause: `the server answered ${response.status} ${response.statusText}`.trim() }, wait);
}
