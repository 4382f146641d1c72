// Prometheus' text format, and what the differences of two looks at it say: rates and percentiles.

const SERIES = /^(zooserve_\w+)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** All `zooserve_` series: [{name, labels, value}]. */
export function parse(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const match = SERIES.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(LABEL)) labels[name] = value.replace(/\\(.)/g, "$1");
    found.push({ name: match[1], labels, value: Number(match[3]) });
  }
  return found;
}

const fresh = () => ({ codes: {}, latency: {}, batches: {}, images: 0, runs: 0, depth: 0 });

/** The counters by model; buckets are cumulative, by their upper bound. Requests that named no model count as "". */
export function snapshot(text) {
  const models = {};
  for (const { name, labels, value } of parse(text)) {
    const model = (models[labels.model ?? ""] ??= fresh());
    const add = (to, label) => (to[label] = (to[label] ?? 0) + value); // over tasks
    if (name === "zooserve_requests_total") add(model.codes, labels.code);
    else if (name === "zooserve_request_seconds_bucket") add(model.latency, labels.le);
    else if (name === "zooserve_batch_size_bucket") add(model.batches, labels.le);
    else if (name === "zooserve_batch_size_sum") model.images += value;
    else if (name === "zooserve_batch_size_count") model.runs += value;
    else if (name === "zooserve_queue_depth") model.depth += value;
  }
  return models;
}

/** The counters of one model, or of all added up. */
export function select(models, name) {
  if (name) return models[name] ?? fresh();
  const sum = fresh();
  for (const model of Object.values(models)) {
    for (const field of ["codes", "latency", "batches"])
      for (const [label, value] of Object.entries(model[field])) sum[field][label] = (sum[field][label] ?? 0) + value;
    for (const field of ["images", "runs", "depth"]) sum[field] += model[field];
  }
  return sum;
}

// A counter that fell belongs to a server that was started again: what it shows now, it has counted since.
const rise = (now, before = 0) => (now < before ? now : now - before);
const rises = (now, before) =>
  Object.fromEntries(Object.keys(now).map((label) => [label, rise(now[label], before[label])]));

/** What happened between two looks, `seconds` apart. Latencies in seconds; null where nothing was answered. */
export function between(before, now, seconds) {
  const codes = rises(now.codes, before.codes);
  const total = (wanted) =>
    Object.keys(codes)
      .filter(wanted)
      .reduce((sum, code) => sum + codes[code], 0);
  const latency = buckets(rises(now.latency, before.latency));
  const runs = rise(now.runs, before.runs);
  return {
    rate: total(() => true) / seconds,
    errors: total((code) => Number(code) >= 400) / seconds,
    p50: quantile(0.5, latency),
    p90: quantile(0.9, latency),
    p99: quantile(0.99, latency),
    batch: runs ? rise(now.images, before.images) / runs : null,
    sizes: apart(buckets(rises(now.batches, before.batches))),
    depth: now.depth,
  };
}

/** {le: cumulative count} -> [[bound, cumulative count]], rising. */
const buckets = (counts) =>
  Object.entries(counts)
    .map(([le, count]) => [le === "+Inf" ? Infinity : Number(le), count])
    .sort((a, b) => a[0] - b[0]);

/** Cumulative buckets -> [[bound, count in the bucket]]. */
export const apart = (cumulative) =>
  cumulative.map(([bound, count], i) => [bound, count - (i ? cumulative[i - 1][1] : 0)]);

/** As Prometheus' histogram_quantile: linear within a bucket, the last finite bound beyond it; null of nothing. */
export function quantile(q, cumulative) {
  const total = cumulative.at(-1)?.[1] ?? 0;
  if (!total) return null;
  const rank = q * total;
  const at = cumulative.findIndex(([, count]) => count >= rank);
  const [below, less] = at > 0 ? cumulative[at - 1] : [0, 0];
  const [bound, count] = cumulative[at];
  if (bound === Infinity) return below;
  return below + (bound - below) * (count > less ? (rank - less) / (count - less) : 0);
}
