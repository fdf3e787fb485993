// Asks with OpenAI's package for Node: what it parses, iterates over and throws.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import OpenAI from "openai";

const [api, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${api}/v1`, apiKey: "any", maxRetries: 0, timeout: 120_000 });
const messages = [{ role: "user", content: "Name the capital city of France." }];

const models = [];
for await (const one of client.models.list()) models.push(one.id);
assert.deepEqual(models, [model]);

// A chat, whole and streamed.
const asked = { model, messages, temperature: 0, max_tokens: 40 };
const whole = await client.chat.completions.create(asked);
const text = whole.choices[0].message.content;
assert.match(text, /Paris/);
let streamed = "";
let usage = null;
let pieces = 0;
const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
  pieces += 1;
}
assert.equal(streamed, text);
assert.deepEqual(usage, whole.usage);
assert.ok(pieces > 3, "it did not come in pieces");

// The package's own runner understands the stream.
const runner = client.chat.completions.stream({ ...asked, logprobs: true, top_logprobs: 2 });
const final = await runner.finalChatCompletion();
assert.equal(final.choices[0].message.content, text);
assert.equal(final.choices[0].logprobs.content.map((word) => word.token).join(""), text);

// The older completions.
const plain = await client.completions.create({ model, prompt: "One, two, three,", temperature: 0, max_tokens: 6 });
let pieced = "";
for await (const chunk of await client.completions.create({
  model,
  prompt: "One, two, three,",
  temperature: 0,
  max_tokens: 6,
  stream: true,
})) {
  pieced += chunk.choices[0].text;
}
assert.equal(pieced, plain.choices[0].text);

// Errors are the package's own.
const refused = async (kind, fields) => {
  try {
    await client.chat.completions.create({ ...asked, ...fields });
  } catch (error) {
    assert.ok(error instanceof kind, `${error}`);
    return error;
  }
  assert.fail(`${JSON.stringify(fields)} was not refused`);
};
assert.equal((await refused(OpenAI.NotFoundError, { model: "gpt-4o" })).code, "model_not_found");
assert.equal((await refused(OpenAI.BadRequestError, { top_p: 3 })).param, "top_p");
assert.equal((await refused(OpenAI.BadRequestError, { stream: true, tool_choice: "required" })).param, "tool_choice");

// A stream that is left in the middle.
const left = await client.chat.completions.create({ ...asked, max_tokens: 4000, stream: true });
for await (const _ of left) break;

const { version } = createRequire(import.meta.url)("openai/package.json");
console.log(`openai ${version} for Node: ${JSON.stringify(text.trim())}`);
