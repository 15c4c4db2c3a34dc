/** The parts of the playground that need no browser. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { cut, visible } from "../../../mullama/web/source/format/text.ts";
import { renderer, START, step } from "../../../mullama/web/source/screens/playground/blocks.ts";
import type { Block, Reading } from "../../../mullama/web/source/screens/playground/blocks.ts";
import { body, Mistake, toolsOf } from "../../../mullama/web/source/screens/playground/body.ts";
import { parametersOf } from "../../../mullama/web/source/screens/playground/facts.ts";
import { percentile } from "../../../mullama/web/source/screens/playground/loadRun.ts";
import { snippet } from "../../../mullama/web/source/screens/playground/requestForms.ts";
import { conversationOf } from "../../../mullama/web/source/screens/requests/bodies.ts";
import * as conversations from "../../../mullama/web/source/state/conversations.ts";

const markdown = renderer(() => "");

function whole(text: string): Block[] {
  const found: Block[] = [];
  let reading: Reading = START;
  for (let steps = 0; ; steps += 1) {
    assert.ok(steps < 200, "a step did not move on");
    const next = step(markdown, text, reading, true);
    found.push(...next.settled);
    if (next.caughtUp) return found;
    assert.ok(next.place > reading.place);
    reading = next;
  }
}

const PROSE = "# Title\n\nA *line*\nof text.\n\n- one\n- two\n\n  more\n\n```js\nlet a;\n\nlet b;\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nEnd";

test("a text that grows by pieces shows what the whole text shows", () => {
  for (const size of [1, 2, 7, 50]) {
    let reading: Reading = START;
    const settled: Block[] = [];
    for (let end = size; end < PROSE.length + size; end += size) {
      const next = step(markdown, PROSE.slice(0, end), reading, end >= PROSE.length);
      settled.push(...next.settled);
      reading = next;
    }
    assert.deepEqual(settled, whole(PROSE));
  }
});

test("blocks that are settled are not read again", () => {
  const first = step(markdown, "# Title\n\nText", START, false);
  assert.equal(first.settled.length, 1);
  assert.equal("# Title\n\nText".slice(first.place), "Text");
});

test("no text of any kind is lost, and none makes more elements than the bound", () => {
  const size = 120_000;
  const hostile = [
    "a".repeat(size), "[".repeat(size), "*a".repeat(size / 2), ">".repeat(size), "1. a\n".repeat(size / 5), "\r".repeat(size), "😀".repeat(size / 2),
    `${"|a".repeat(1000)}|\n${"|-".repeat(1000)}|\n${"|b|\n".repeat(size / 5)}`, "```\na\n```\n".repeat(size / 10),
    Array.from({ length: 300 }, (_, depth) => `${" ".repeat(2 * depth)}- a`).join("\n"),
  ];
  for (const text of hostile) {
    const blocks = whole(text);
    const tags = blocks.reduce((sum, block) => sum + (block.kind === "html" ? block.content.split("<").length : 0), 0);
    assert.ok(tags < 100_000, `${tags} tags for ${text.slice(0, 10)}`);
    const letters = /[ab[*>|-]/.exec(text)?.[0];
    if (letters && blocks.every((block) => block.kind === "plain")) assert.equal(blocks.map((one) => one.content).join("").length, text.length);
  }
});

test("code that is longer than a window goes on as code", () => {
  const blocks = whole(`\`\`\`python\n${"x = 1  # <b>\n".repeat(10_000)}\`\`\`\n\nEnd`);
  assert.ok(blocks.length > 2);
  assert.ok(blocks.slice(0, -1).every((block) => block.content.includes('<code class="language-python">') && !block.content.includes("<b>")));
  assert.equal(blocks.at(-1)!.content, "<p>End</p>\n");
});

test("pictures become links and addresses of scripts stay text", () => {
  const html = whole("![p](https://example.org/p.png) [a](javascript:x) [b](data:text/html,x) <img src=x onerror=y>").map((one) => one.content).join("");
  assert.ok(html.includes('<a href="https://example.org/p.png">p (picture)</a>'));
  assert.ok(!/<img|href="(javascript|data):/.test(html));
});

test("characters that a reader cannot see are shown", () => {
  assert.equal(visible("a\u202eb\u001b[31mc\r\nd\rz\u0000\t"), "a\\u202eb␛[31mc\nd␍z␀\t");
  assert.deepEqual(cut("a😀b", 2), ["a", 3]);
});

function conversation(parts: Partial<conversations.Conversation> = {}): conversations.Conversation {
  return { ...conversations.created("tiny"), ...parts };
}

test("an edited question begins a branch, and each column has its own", () => {
  const question = conversations.message({ role: "user", content: "one" });
  let tree = conversations.added(conversation(), 0, question);
  const answer = conversations.message({ role: "assistant", parent: question.id });
  tree = conversations.added(tree, 0, answer);
  const other = conversations.message({ role: "user", content: "two" });
  tree = conversations.added(tree, 0, other);
  assert.deepEqual(conversations.below(tree.messages, null).map((one) => one.content), ["one", "two"]);
  assert.equal(conversations.newestLeaf(tree.messages, question.id), answer.id);
  const two = conversations.withLeaf({ ...tree, beside: { model: "spare", leaf: null } }, 1, answer.id);
  assert.deepEqual([two.leaf, conversations.lineOf(two, 1).leaf], [other.id, answer.id]);
  assert.equal(tree.title, "one");
});

test("an export is read back, and a damaged one names its mistake", () => {
  const question = conversations.message({ role: "user", content: "one", media: [{ type: "image/png", data: "aaaa" }] });
  const tree = conversations.added(conversation({ tools: "[]" }), 0, question);
  const [back] = conversations.parsed(conversations.exported([tree]));
  assert.deepEqual({ ...back, id: tree.id }, tree);
  const damaged = (messages: unknown) => JSON.stringify({ format: "mullama.conversations/1", conversations: [{ messages, leaf: "a" }] });
  for (const [text, reason] of [
    ["{", /not JSON/], ["{}", /"format" is not/], [damaged({ a: { role: "user", parent: "b" } }), /message b is missing/],
    [damaged({ a: { role: "user", parent: "b" }, b: { role: "user", parent: "a" } }), /below itself/], [damaged({ a: { role: "root" } }), /role "root"/],
  ] as const) assert.throws(() => conversations.parsed(text), reason);
  const [odd] = conversations.parsed(damaged({ a: { role: "user", content: 5, media: [{ type: "text/html", data: "<" }] } }));
  assert.deepEqual([odd!.messages["a"]!.content, odd!.messages["a"]!.media], ["", []]);
});

test("tabs that change one conversation keep the messages of both", () => {
  const tree = conversation();
  const mine = conversations.added(tree, 0, conversations.message({ role: "user", content: "mine" }));
  const theirs = conversations.added(tree, 0, conversations.message({ role: "user", content: "theirs" }));
  assert.deepEqual(Object.values(conversations.merged(theirs, mine).messages).map((one) => one.content).sort(), ["mine", "theirs"]);
});

const WEATHER = JSON.stringify([{ name: "weather", parameters: { type: "object" } }]);

test("settings that cannot be sent name their field", () => {
  for (const [parts, field] of [[{ schema: "{" }, "schema"], [{ tools: "[{}]" }, "tools"], [{ options: { seed: "x" } }, "options"]] as const) {
    assert.throws(() => body(conversation(parts), 0, []), (error: unknown) => error instanceof Mistake && error.field === field);
  }
  assert.equal(toolsOf(WEATHER)[0]!.function.name, "weather");
});

test("calls wait for results until each has one", () => {
  const call = (id: string) => ({ id, name: "f", arguments: {} });
  const answer = conversations.message({ role: "assistant", calls: [call("1"), call("2")] });
  const result = conversations.message({ role: "tool", call: { id: "1", name: "f" } });
  assert.deepEqual(conversations.openCalls([answer, result]).map((one) => one.id), ["2"]);
  assert.deepEqual(conversations.openCalls([answer, result, result]), []);
});

test("code of a request quotes what a person typed, and reads media from files", () => {
  const question = conversations.message({ role: "user", content: `it's "so" \\ $HOME`, media: [{ type: "image/jpeg", data: "aaaa" }] });
  const source = { base: "http://127.0.0.1:1", keyed: true, conversation: conversation({ options: { top_k: "3", num_predict: "9" }, tools: WEATHER }), messages: [question] };
  const curl = snippet("curl", source);
  assert.ok(curl.includes("it'\\''s") && curl.includes("base64 < image-1.jpg") && curl.includes("$MULLAMA_KEY") && !curl.includes("aaaa"));
  const python = snippet("openai", source);
  assert.ok(python.includes('extra_body={"top_k": 3}') && python.includes('data("image-1.jpg")') && python.includes("max_tokens=9"));
  assert.throws(() => snippet("anthropic", { ...source, messages: [{ ...question, media: [{ type: "audio/wav", data: "" }] }] }), Mistake);
});

test("bodies of all dialects become conversations", () => {
  const of = (tree: unknown) => {
    const found = conversationOf(JSON.stringify(tree), "tiny");
    return [found.system, conversations.branch(found.messages, found.leaf).map((one) => [one.role, one.content])];
  };
  const turn = ["user", "Hi"];
  assert.deepEqual(of({ messages: [{ role: "system", content: "S" }, { role: "user", content: [{ type: "text", text: "Hi" }] }] }), ["S", [turn]]);
  assert.deepEqual(of({ system: [{ type: "text", text: "S" }], messages: [{ role: "user", content: "Hi" }] }), ["S", [turn]]);
  assert.deepEqual(of({ instructions: "S", input: "Hi" }), ["S", [turn]]);
  assert.deepEqual(of({ prompt: "Hi", system: "S" }), ["S", [turn]]);
  const png = "iVBORw0KGgoAAAANSUhEUg==";
  const seen = conversationOf(JSON.stringify({ messages: [{ role: "user", content: "", images: [png] }], options: { seed: 4 } }), "tiny");
  assert.deepEqual([Object.values(seen.messages)[0]!.media, seen.options], [[{ type: "image/png", data: png }], { seed: "4" }]);
  const used = { role: "assistant", content: [{ type: "tool_use", id: "1", name: "f", input: { a: 1 } }] };
  assert.deepEqual(of({ messages: [used, { role: "user", content: [{ type: "tool_result", tool_use_id: "1", content: "r" }] }] }), ["", [["assistant", ""], ["tool", "r"]]]);
  for (const tree of [[], {}, { messages: [] }]) assert.throws(() => conversationOf(JSON.stringify(tree), "tiny"));
});

test("parameters have the ranges of the schema", () => {
  const options = { temperature: { type: ["number", "null"], minimum: 0, maximum: 2, description: "d" }, stop: { type: "string" }, num_gpu: { minimum: 0, maximum: 1 } };
  const schema = { properties: { options: { properties: options } } };
  const document = { paths: { "/api/models/chat": { post: { requestBody: { content: { "application/json": { schema } } } } } } };
  assert.deepEqual(parametersOf(document), [{ name: "temperature", whole: false, low: 0, high: 2, about: "d" }]);
  assert.deepEqual(parametersOf({}), []);
});

test("percentiles are those of the nearest rank", () => {
  const values = Array.from({ length: 20 }, (_, index) => 20 - index);
  assert.deepEqual([percentile(values, 0.5), percentile(values, 0.95), percentile([], 0.5)], [10, 19, null]);
});
