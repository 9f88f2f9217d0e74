// Code that does what the page does: curl, Python and JavaScript with OpenAI's SDKs. One function for all pages.

// Arguments that OpenAI's SDKs have themselves (openai-python 3, images.edit); Python takes others as extra_body.
const SDK_ARGUMENTS = new Set([
  "background", "image", "input_fidelity", "mask", "model", "moderation", "n", "output_compression", "output_format",
  "partial_images", "prompt", "quality", "response_format", "size", "stream", "style", "user",
]);

export const ENV = "IMAGEGATE_API_KEY";

/**
 * `request`: {base, keyed, model, params: {name: string|number|boolean}, images: {row, files: [name]}, mask, edits}.
 * `base` is the gateway's origin; `keyed` says whether a key is needed; files lie in the folder that the code runs in.
 */
export function samples(request) {
  return { curl: curl(request), python: python(request), javascript: javascript(request) };
}

function curl({ base, keyed, model, params, images, mask, edits }) {
  const lines = [`curl ${quoted(`${base}/openai/v1/images/${edits ? "edits" : "generations"}`)}`];
  if (keyed) lines.push(`-H "Authorization: Bearer $${ENV}"`);
  if (!edits) {
    lines.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify({ model, ...params }))}`);
    return lines.join(" \\\n  ");
  }
  const several = images.files.length > 1;
  lines.push(`--form-string ${quoted(`model=${model}`)}`);
  for (const file of images.files) lines.push(`-F ${quoted(`${images.row}${several ? "[]" : ""}=@${path(file)}`)}`);
  if (mask) lines.push(`-F ${quoted(`mask=@${path(mask)}`)}`);
  for (const [name, value] of Object.entries(params)) lines.push(`--form-string ${quoted(`${name}=${value}`)}`);
  return lines.join(" \\\n  ");
}

/** For a POSIX shell. */
function quoted(text) {
  return /^[\w./:=@+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** curl reads `,` `;` and quotes in a path as its own. */
function path(file) {
  return /[",;\\]/.test(file) ? `"${file.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"` : file;
}

function python({ base, keyed, model, params, images, mask, edits }) {
  const literal = (value) => (value === true ? "True" : value === false ? "False" : JSON.stringify(value));
  const opened = (file) => `open(${literal(file)}, "rb")`;
  const own = { ...params, response_format: "b64_json" };
  const lines = [`    model=${literal(model)},`];
  if (edits) {
    const files = images.files.map(opened);
    lines.push(`    ${images.row}=${files.length === 1 ? files[0] : `[${files.join(", ")}]`},`);
    if (mask) lines.push(`    mask=${opened(mask)},`);
  }
  const extra = Object.entries(own).filter(([name]) => !SDK_ARGUMENTS.has(name));
  for (const [name, value] of Object.entries(own)) if (SDK_ARGUMENTS.has(name)) lines.push(`    ${name}=${literal(value)},`);
  if (extra.length) lines.push(`    extra_body={${extra.map(([name, value]) => `${literal(name)}: ${literal(value)}`).join(", ")}},`);
  return [
    "import base64",
    ...(keyed ? ["import os"] : []),
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${literal(`${base}/openai/v1`)}, api_key=${keyed ? `os.environ[${literal(ENV)}]` : '"not needed here"'})`,
    "",
    `result = client.images.${edits ? "edit" : "generate"}(`,
    ...lines,
    ")",
    "for number, picture in enumerate(result.data, 1):",
    `    with open(f"result-{number}.{result.output_format or 'png'}", "wb") as file:`,
    "        file.write(base64.b64decode(picture.b64_json))",
    "print(result.metadata)",
  ].join("\n");
}

function javascript({ base, keyed, model, params, images, mask, edits }) {
  const literal = (value) => JSON.stringify(value);
  const key = (name) => (/^[A-Za-z_]\w*$/.test(name) ? name : literal(name));
  const file = (name) => `await toFile(fs.createReadStream(${literal(name)}), ${literal(name)})`;
  const lines = [`  model: ${literal(model)},`];
  if (edits) {
    const files = images.files.map(file);
    lines.push(`  ${key(images.row)}: ${files.length === 1 ? files[0] : `[${files.join(", ")}]`},`);
    if (mask) lines.push(`  mask: ${file(mask)},`);
  }
  for (const [name, value] of Object.entries({ ...params, response_format: "b64_json" })) lines.push(`  ${key(name)}: ${literal(value)},`);
  return [
    'import fs from "node:fs";',
    `import OpenAI${edits ? ", { toFile }" : ""} from "openai";`,
    "",
    `const client = new OpenAI({ baseURL: ${literal(`${base}/openai/v1`)}, apiKey: ${keyed ? `process.env.${ENV}` : '"not needed here"'} });`,
    "",
    `const result = await client.images.${edits ? "edit" : "generate"}({`,
    ...lines,
    "});",
    "result.data.forEach((picture, index) => {",
    '  fs.writeFileSync(`result-${index + 1}.${result.output_format ?? "png"}`, Buffer.from(picture.b64_json, "base64"));',
    "});",
    "console.log(result.metadata);",
  ].join("\n");
}
