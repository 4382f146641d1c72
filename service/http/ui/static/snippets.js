// The request that was just made, as lines to copy. They run as they are: a sample is fetched from the server itself.

import { address } from "./api.js";

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`; // for a shell
const python = (text) => JSON.stringify(text); // Python reads JSON's strings

/** @param asked {url, image, type, locked}; a key is never shown, `$ZOOSERVE_API_KEY` stands for it */
export function curl({ url, image, type, locked }) {
  const header = locked ? ' -H "Authorization: Bearer $ZOOSERVE_API_KEY"' : "";
  const post = (data) =>
    `curl --data-binary ${data}${header} \\\n  -H ${quote(`Content-Type: ${type}`)} \\\n  ${quote(url)}`;
  if (!image.sample) return post(`@${quote(image.name)}`);
  return `curl -s${header} ${quote(address(`ui/${image.sample}`))} |\n${post("@-")}`;
}

export function requests({ url, image, type, locked }) {
  const { origin, pathname, searchParams } = new URL(url);
  const query = [...searchParams].map(([name, value]) => `${python(name)}: ${python(value)}`).join(", ");
  const bearer = locked ? `"Authorization": f"Bearer {os.environ['ZOOSERVE_API_KEY']}", ` : "";
  const from = image.sample
    ? `requests.get(${python(address(`ui/${image.sample}`))}${locked ? `, headers={${bearer.slice(0, -2)}}` : ""}).content`
    : `open(${python(image.name)}, "rb")`;
  return `${locked ? "import os\n" : ""}import requests

answer = requests.post(
    ${python(origin + pathname)},
    params={${query}},
    headers={${bearer}"Content-Type": ${python(type)}},
    data=${from},
)
print(answer.json())`;
}

/** An answer to read: indented, pairs and boxes on one line, masks cut short. */
export function json(result) {
  const short = (_, value) =>
    typeof value === "string" && value.length > 120 ? `${value.slice(0, 100)}… (${value.length} letters)` : value;
  return JSON.stringify(result, short, 2).replace(/\[[\s\d.,-]+\]/g, (numbers) => {
    const line = numbers.replace(/\s+/g, " ").replace("[ ", "[").replace(" ]", "]");
    return line.length > 100 ? `${line.slice(0, 80)} … (${line.split(",").length} numbers)]` : line;
  });
}
