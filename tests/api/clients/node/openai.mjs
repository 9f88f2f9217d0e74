// Drives the gateway with OpenAI's own SDK: node openai.mjs PACKAGE BASE_URL PHOTO. Prints one JSON object: scenario ->
// what came of it; the assertions are in test_node.py.
import fs from "node:fs";
const [, , packageName, baseURL, photo] = process.argv;
const sdk = await import(packageName);
const OpenAI = sdk.default;
const { toFile } = sdk;
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0, timeout: 30000 });
const model = "qwen-image-edit-2509";
const bytes = fs.readFileSync(photo);
const jpeg = { type: "image/jpeg" };
const results = {};

const shown = (answer) => ({
  id: answer.id, created: answer.created, size: answer.size, requestId: answer._request_id,
  keys: answer.data.map((one) => Object.keys(one)), lengths: answer.data.map((one) => one.b64_json?.length),
  urls: answer.data.map((one) => one.url), metadata: answer.metadata,
});
const failed = (error) => ({
  class: error.constructor.name, status: error.status, code: error.code, param: error.param, type: error.type,
  message: error.message, requestId: error.requestID,
});
async function scenario(name, run) {
  try { results[name] = await run(); } catch (error) { results[name] = { error: failed(error) }; }
}
const edit = async (more) => shown(await client.images.edit({ model, prompt: "sepia", size: "256x256", ...more }));

await scenario("read_stream", () => edit({ image: fs.createReadStream(photo) }));
await scenario("to_file", async () => edit({ image: await toFile(bytes, "a.jpg", jpeg) }));
await scenario("to_file_nameless", async () => edit({ image: await toFile(bytes) }));
await scenario("file_with_odd_name", () => edit({ image: new File([bytes], 'dög "x".jpg', jpeg) }));
await scenario("list_of_one", async () => edit({ image: [await toFile(bytes, "a.jpg", jpeg)] }));
await scenario("list_of_three", async () => edit({ image: [fs.createReadStream(photo), await toFile(bytes, "b.jpg"), await toFile(bytes, "c.jpg")] }));
await scenario("blob", () => edit({ image: new Blob([bytes], jpeg) }));
await scenario("buffer_by_mistake", () => edit({ image: bytes.subarray(0, 2000) }));
await scenario("b64", async () => edit({ image: await toFile(bytes, "a.jpg"), response_format: "b64_json", n: 2 }));
await scenario("ten", async () => edit({ image: await toFile(bytes, "a.jpg"), n: 10, seed: 100 }));
await scenario("extras", async () => edit({ image: await toFile(bytes, "a.jpg"), cfg_scale: 4.5, enable_safety_checker: false, loras: [{ path: "a", scale: 0.5 }, { path: "b", scale: 1 }], deep: { er: { list: [1] } } }));
await scenario("line_ends", async () => edit({ image: await toFile(bytes, "a.jpg"), prompt: "sepia\nand warm" }));
await scenario("mask", async () => edit({ image: await toFile(bytes, "a.jpg"), mask: await toFile(bytes, "m.jpg"), size: undefined }));
await scenario("raw", async () => {
  const { data, response } = await client.images.edit({ model, prompt: "sepia", image: await toFile(bytes, "a.jpg"), size: "256x256" }).withResponse();
  return { status: response.status, type: response.headers.get("content-type"), cost: response.headers.get("x-imagegate-cost"), requestId: response.headers.get("x-request-id"), pictures: data.data.length };
});
await scenario("stream", async () => {
  const events = [];
  const stream = await client.images.edit({ model, prompt: "sepia", image: await toFile(bytes, "a.jpg"), n: 3, size: "256x256", stream: true, response_format: "b64_json" });
  for await (const event of stream) events.push({ type: event.type, size: event.size, length: event.b64_json?.length, usage: event.usage, created: event.created_at });
  return { events };
});
await scenario("stream_refused", async () => {
  const stream = await client.images.edit({ model, prompt: "nsfw", image: await toFile(bytes, "a.jpg"), size: "256x256", stream: true });
  for await (const event of stream) return { event };
  return { silent: true };
});
await scenario("too_many", async () => edit({ image: await toFile(bytes, "a.jpg"), n: 11 }));
await scenario("no_prompt", async () => edit({ image: await toFile(bytes, "a.jpg"), prompt: "" }));
await scenario("unknown_model", async () => edit({ image: await toFile(bytes, "a.jpg"), model: "qwen-image-edti-2509" }));
await scenario("models", async () => {
  const ids = [];
  for await (const one of client.models.list()) ids.push(one.id);
  return { ids, one: (await client.models.retrieve(model)).id, slashed: (await client.models.retrieve("fal/" + model)).id };
});
process.stdout.write(JSON.stringify(results));
