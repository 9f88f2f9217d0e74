// Drives the gateway with Vercel's AI SDK: node ai-sdk.mjs BASE_URL PHOTO. Prints one JSON object, as openai.mjs does.
import fs from "node:fs";
import * as ai from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
const [, , baseURL, photo] = process.argv;
const generateImage = ai.generateImage ?? ai.experimental_generateImage;
const bytes = fs.readFileSync(photo);
const model = "qwen-image-edit-2509";
const results = {};
const providers = {
  compatible: createOpenAICompatible({ name: "imagegate", baseURL, apiKey: "any" }),
  openai: createOpenAI({ baseURL, apiKey: "any" }),
};
for (const [name, provider] of Object.entries(providers)) {
  for (const [scenario, images, more] of [
    ["one", [bytes], {}],
    ["two", [bytes, bytes], {}],
    ["several", [bytes], { n: 2 }],
    ["error", [bytes], { size: "0x1024" }],
  ]) {
    try {
      const answer = await generateImage({ model: provider.imageModel(model), prompt: { text: "sepia", images }, size: "256x256", maxRetries: 0, ...more });
      results[`${name}_${scenario}`] = { images: answer.images.map((one) => ({ type: one.mediaType, length: one.uint8Array.length })) };
    } catch (error) {
      results[`${name}_${scenario}`] = { error: { name: error.name, message: error.message, status: error.statusCode } };
    }
  }
}
process.stdout.write(JSON.stringify(results));
