// k6 against a running server: `k6 run loadtests/recipes/k6.js`. Options come from the environment (`-e NAME=VALUE`):
//   URL       of the server, with its path prefix   http://127.0.0.1:3000
//   TASK      classify, detect or segment           classify
//   MODEL     a model's name                        the task's default
//   IMAGE     an encoded image, from this folder    ../../docs/coffee.jpg
//   FORM      raw (the body is the image) or json   raw
//   API_KEY   where the server needs one
//   CLIENTS   at a time, each after its answer      8
//   RATE      instead: requests per second          -
//   DURATION  of the load                           10s
//   P99_MS    fails (exit code 99) beyond           -
import http from 'k6/http';
import encoding from 'k6/encoding';
import { check } from 'k6';

const env = (name, otherwise) => __ENV[name] || otherwise;
const duration = env('DURATION', '10s');
const clients = Number(env('CLIENTS', '8'));
const json = env('FORM', 'raw') === 'json';
const image = open(env('IMAGE', '../../docs/coffee.jpg'), 'b');
const body = json ? JSON.stringify({ images: [encoding.b64encode(image)] }) : image;
const model = __ENV.MODEL ? `?model=${encodeURIComponent(__ENV.MODEL)}` : '';
const url = `${env('URL', 'http://127.0.0.1:3000')}/v1/${env('TASK', 'classify')}${model}`;
const headers = { 'Content-Type': json ? 'application/json' : 'image/jpeg' };
if (__ENV.API_KEY) headers.Authorization = `Bearer ${__ENV.API_KEY}`;

// With RATE, requests are sent when they are due, however long the answers take (an open loop).
const open_loop = {
  executor: 'constant-arrival-rate',
  rate: Number(env('RATE', '0')),
  timeUnit: '1s',
  duration,
  preAllocatedVUs: 64,
  maxVUs: 1024,
};

export const options = {
  ...(__ENV.RATE ? { scenarios: { open_loop } } : { vus: clients, duration }),
  summaryTrendStats: ['med', 'p(90)', 'p(99)', 'max'],
  thresholds: {
    checks: ['rate==1'],
    ...(__ENV.P99_MS ? { http_req_duration: [`p(99)<${__ENV.P99_MS}`] } : {}),
  },
};

export default function () {
  const response = http.post(url, body, { headers });
  check(response, { 'status is 200': (r) => r.status === 200 });
}
