/** The body of a captured request of any dialect as a conversation of the playground. */

import { identifier } from "../../parts/identifier.ts";
import { created, isRecord, message } from "../../state/conversations.ts";
import type { Conversation, Medium, Message, ToolCall } from "../../state/conversations.ts";

type Tree = Record<string, unknown>;

/** Options of the playground by the names that the dialects have for them. */
const OPTIONS: Record<string, string> = {
  temperature: "temperature", top_p: "top_p", top_k: "top_k", min_p: "min_p", typical_p: "typical_p", seed: "seed",
  presence_penalty: "presence_penalty", frequency_penalty: "frequency_penalty", repeat_penalty: "repeat_penalty",
  max_tokens: "num_predict", max_completion_tokens: "num_predict", max_output_tokens: "num_predict", n_predict: "num_predict",
};

/** Return the conversation of a body. text: JSON. model: the one that answered. Raises an error for a body without a conversation. */
export function conversationOf(text: string, model: string): Conversation {
  const tree: unknown = JSON.parse(text);
  if (!isRecord(tree)) throw new Error("its body is not a JSON object");
  const turns = turnsOf(tree);
  if (!turns.length) throw new Error("its body has neither messages nor a prompt");
  const system = [textOf(tree["system"]), textOf(tree["instructions"]), ...turns.filter((one) => isSystem(one)).map((one) => textOf(one["content"]))];
  const messages: Record<string, Message> = {};
  let leaf: string | null = null;
  for (const one of turns.filter((turn) => !isSystem(turn)).flatMap(messagesOf)) {
    messages[one.id] = { ...one, parent: leaf };
    leaf = one.id;
  }
  const first = Object.values(messages).find((one) => one.role === "user");
  return {
    ...created(model), title: first?.content.trim().slice(0, 60) || "Captured request", messages, leaf,
    system: system.filter(Boolean).join("\n\n"), options: optionsOf(tree), tools: toolsText(tree["tools"]), schema: schemaText(tree),
    think: thinkOf(tree),
  };
}

function turnsOf(tree: Tree): Tree[] {
  if (Array.isArray(tree["messages"])) return tree["messages"].filter(isRecord);
  if (Array.isArray(tree["input"])) return tree["input"].filter(isRecord);
  const prompt = tree["prompt"] ?? tree["input"];
  const text = Array.isArray(prompt) ? prompt.find((one) => typeof one === "string") : prompt;
  return typeof text === "string" && text ? [{ role: "user", content: text, images: tree["images"] }] : [];
}

function isSystem(turn: Tree): boolean {
  return turn["role"] === "system" || turn["role"] === "developer";
}

/** Return the messages of one turn: results of calls are messages of their own. */
function messagesOf(turn: Tree): Message[] {
  if (turn["type"] === "function_call") return [message({ role: "assistant", calls: [callOf(turn["call_id"], turn["name"], turn["arguments"])] })];
  if (turn["type"] === "function_call_output") return [resultOf(turn["call_id"], turn["output"])];
  if (turn["role"] === "tool" || turn["role"] === "function") {
    const result = resultOf(turn["tool_call_id"], turn["content"]);
    return [{ ...result, call: { id: result.call!.id, name: textOf(turn["tool_name"] ?? turn["name"]) } }];
  }
  const blocks = Array.isArray(turn["content"]) ? turn["content"].filter(isRecord) : [];
  const results = blocks.filter((block) => block["type"] === "tool_result").map((block) => resultOf(block["tool_use_id"], block["content"]));
  const calls = [
    ...(Array.isArray(turn["tool_calls"]) ? turn["tool_calls"].filter(isRecord) : []).map((call) => {
      const about = isRecord(call["function"]) ? call["function"] : {};
      return callOf(call["id"], about["name"], about["arguments"]);
    }),
    ...blocks.filter((block) => block["type"] === "tool_use").map((block) => callOf(block["id"], block["name"], block["input"])),
  ];
  const content = textOf(turn["content"]);
  const media = [...blocks.flatMap(mediumOf), ...(Array.isArray(turn["images"]) ? turn["images"] : []).flatMap((data) => fromBase64(data))];
  const thinking = textOf(turn["thinking"] ?? turn["reasoning_content"]) || blocks.map((block) => (block["type"] === "thinking" ? textOf(block["thinking"]) : "")).join("");
  const whole = message({ role: turn["role"] === "assistant" ? "assistant" : "user", content, media, calls, thinking });
  return [...results, ...(content || media.length || calls.length || !results.length ? [whole] : [])];
}

function callOf(id: unknown, name: unknown, given: unknown): ToolCall {
  let tree = given;
  if (typeof given === "string") {
    try {
      tree = JSON.parse(given);
    } catch {
      tree = {};
    }
  }
  return { id: textOf(id) || identifier(), name: textOf(name), arguments: isRecord(tree) ? tree : {} };
}

function resultOf(id: unknown, content: unknown): Message {
  return message({ role: "tool", content: textOf(content), call: { id: textOf(id), name: "" } });
}

/** Return the text of a content: a string, or parts with texts. */
function textOf(content: unknown): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content.filter(isRecord).map((part) => (typeof part["text"] === "string" ? part["text"] : "")).filter(Boolean).join("\n");
}

function mediumOf(part: Tree): Medium[] {
  const address = isRecord(part["image_url"]) ? part["image_url"]["url"] : part["image_url"];
  if (typeof address === "string") {
    const found = /^data:((?:image|audio)\/[\w.+-]+);base64,([\w+/=]*)$/.exec(address);
    return found ? [{ type: found[1]!, data: found[2]! }] : [];
  }
  const sound = part["input_audio"];
  if (isRecord(sound) && typeof sound["data"] === "string") return [{ type: sound["format"] === "mp3" ? "audio/mpeg" : "audio/wav", data: sound["data"] }];
  const source = part["source"];
  if (isRecord(source) && source["type"] === "base64" && typeof source["data"] === "string") return fromBase64(source["data"]);
  return [];
}

/** The first characters of files in base64, with their media types. */
const BEGINNINGS: [string, string][] = [
  ["iVBORw0KGgo", "image/png"], ["/9j/", "image/jpeg"], ["R0lGOD", "image/gif"], ["UklGR", "image/webp"], ["Qk", "image/bmp"],
  ["T2dnUw", "audio/ogg"], ["SUQz", "audio/mpeg"], ["//uQ", "audio/mpeg"], ["ZkxhQ", "audio/flac"],
];

function fromBase64(data: unknown): Medium[] {
  if (typeof data !== "string") return [];
  const bytes = data.replace(/^data:[^,]*,/, "");
  if (bytes.startsWith("UklGR") && atob(bytes.slice(0, 16)).slice(8, 12) === "WAVE") return [{ type: "audio/wav", data: bytes }];
  return [{ type: BEGINNINGS.find(([start]) => bytes.startsWith(start))?.[1] ?? "image/png", data: bytes }];
}

function optionsOf(tree: Tree): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [name, own] of Object.entries(OPTIONS)) if (typeof tree[name] === "number") found[own] = String(tree[name]);
  if (isRecord(tree["options"])) for (const [name, value] of Object.entries(tree["options"])) if (typeof value === "number") found[name] = String(value);
  return found;
}

function toolsText(tools: unknown): string {
  return Array.isArray(tools) && tools.length ? JSON.stringify(tools, null, 1) : "";
}

function schemaText(tree: Tree): string {
  const path = (...names: string[]) => names.reduce((at: unknown, name) => (isRecord(at) ? at[name] : undefined), tree);
  const schema = path("response_format", "json_schema", "schema") ?? path("output_config", "format", "schema") ?? path("text", "format", "schema") ?? tree["format"] ?? tree["json_schema"];
  if (isRecord(schema)) return JSON.stringify(schema, null, 1);
  return schema === "json" || path("response_format", "type") === "json_object" ? '"json"' : "";
}

function thinkOf(tree: Tree): string {
  const think = tree["think"] ?? tree["reasoning_effort"];
  if (think === true) return "on";
  if (think === false) return "off";
  if (typeof think === "string" && ["low", "medium", "high"].includes(think)) return think;
  if (isRecord(tree["thinking"])) return tree["thinking"]["type"] === "disabled" ? "off" : "on";
  return "";
}
