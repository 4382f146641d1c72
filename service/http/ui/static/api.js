// The service's HTTP interface: requests with their key, answers, and what is wrong in words.

const BASE = new URL("../", location.href); // relative: the service may stand below a path of a proxy's
const KEY = "zooserve.key";

/** An error to be shown: `message` is a sentence for people, `status` is 0 where no answer came. */
export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** The absolute address of a path such as `v1/models`, with a query of `params`. */
export function address(path, params = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, value);
  return url.href;
}

/** A text as `fetch` takes it in headers: a character for each byte. Others make it throw. */
const utf8 = (text) => String.fromCharCode(...new TextEncoder().encode(text));

/** Fetch; throws a `Problem` for every answer that is none, and an `AbortError` where `signal` says so. */
export async function request(url, { headers = {}, ...options } = {}) {
  if (key.get()) headers = { ...headers, Authorization: `Bearer ${utf8(key.get())}` };
  let response;
  try {
    response = await fetch(url, { ...options, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (options.body instanceof Blob && !(await readable(options.body)))
      throw new Problem(0, "The file cannot be read: it was moved or changed, or is a folder. Open it again.");
    throw new Problem(0, "The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

const readable = (blob) =>
  blob
    .slice(0, 1)
    .arrayBuffer()
    .then(
      () => true,
      () => false,
    );

async function problemOf(response) {
  let message = `The server answered ${response.status} ${response.statusText}.`;
  try {
    const { detail, error } = await response.json(); // of /v1, of /v2
    message = detail || error || message;
  } catch {
    // a proxy's page, say: the status has to do
  }
  const wait = response.headers.get("retry-after");
  if (wait) message += ` Try again in ${wait} s.`;
  return new Problem(response.status, message);
}

export const getModels = async () => (await (await request(address("v1/models"))).json()).models;
/** The pipelines in the form of models; their task is `pipeline`. */
export const getPipelines = async () =>
  (await (await request(address("v1/pipelines"))).json()).pipelines.map(({ name, ready, reason, card }) => ({
    name,
    task: "pipeline",
    state: ready ? "ready" : "failed",
    title: card?.title,
    version: card?.version,
    reason,
    card: card && { ...card, task: "pipeline" },
  }));
export const getModel = async (name) => (await request(address(`v1/models/${encodeURIComponent(name)}`))).json();
export const getSamples = async () => (await (await request(address("ui/samples"))).json()).samples;
export const getMetrics = async (signal) => (await request(address("metrics"), { signal })).text();

/** The Content-Type of an image. A browser does not know them all, and what has none is read as JSON by /v2. */
export const typeOf = (blob) => blob.type || "image/unknown";

/** Ask about one image. `stages` are milliseconds by name, `roundtrip` is the browser's own clock. */
export async function predict(url, blob, signal) {
  const start = performance.now();
  const response = await request(url, {
    method: "POST",
    body: blob,
    headers: { "Content-Type": typeOf(blob) },
    signal,
  });
  const result = await response.json();
  return {
    result,
    stages: serverTiming(response.headers.get("server-timing") ?? ""),
    roundtrip: performance.now() - start,
  };
}

const inferred = (name) => address(`v2/models/${encodeURIComponent(name)}/infer`);

/** Ask a model for its outputs by name, each {shape, data}. `inputs` are those of the Open Inference Protocol, or an image. */
export async function infer(name, inputs) {
  const image = inputs instanceof Blob;
  const response = await request(inferred(name), {
    method: "POST",
    body: image ? inputs : JSON.stringify({ inputs }),
    headers: { "Content-Type": image ? typeOf(inputs) : "application/json" },
  });
  const { outputs } = await response.json();
  return Object.fromEntries(outputs.map((output) => [output.name, output]));
}

/** Ask a model that answers an image with an image. */
export async function paint(name, image) {
  const headers = { "Content-Type": typeOf(image), Accept: "image/png" };
  return (await request(inferred(name), { method: "POST", body: image, headers })).blob();
}

/** `read;dur=0.1, total;dur=5` -> {read: 0.1, total: 5}. */
export function serverTiming(header) {
  const stages = {};
  for (const [, name, duration] of header.matchAll(/([\w-]+);dur=([\d.]+)/g)) stages[name] = Number(duration);
  return stages;
}
