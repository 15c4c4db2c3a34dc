/** The request of a conversation as code that runs as it is: with curl, and with the Python clients of each dialect. */

import type { Conversation, Medium, Message } from "../../state/conversations.ts";
import { Mistake, numbers, schemaOf, toolsOf } from "./body.ts";

export const FORMS = { curl: "curl", openai: "Python: openai", anthropic: "Python: anthropic", ollama: "Python: ollama" };
export type Form = keyof typeof FORMS;

export interface Source {
  /** The address of the server, without a slash at its end. */
  base: string;
  /** True where the server wants a key, which the code takes from the environment. */
  keyed: boolean;
  conversation: Conversation;
  /** The messages to send. */
  messages: Message[];
}

const KEY = "MULLAMA_KEY";
/** The sampling parameters that the clients have arguments for. */
const OPENAI = new Set(["temperature", "top_p", "presence_penalty", "frequency_penalty", "seed"]);
const ANTHROPIC = new Set<string>();
/** Anthropic's requests need a maximum of tokens. */
const MOST_TOKENS = 4096;

/** The base64 of a file that the code reads, after a prefix. */
class FileData {
  constructor(readonly prefix: string, readonly name: string) {}
}

type Value = string | number | boolean | null | FileData | Value[] | { [name: string]: Value };
type Fields = Record<string, Value>;

/** Return the code. Pictures and sounds are read from files named `image-1.png`. Raises `Mistake`. */
export function snippet(form: Form, source: Source): string {
  const key = source.keyed ? `os.environ["${KEY}"]` : '"none"';
  switch (form) {
    case "curl":
      return curl(source);
    case "openai":
      return python(source, "openai", "OpenAI", `base_url="${source.base}/v1", api_key=${key}`, "chat.completions.create", split(openai(source), OPENAI), "answer.choices[0].message");
    case "anthropic":
      return python(source, "anthropic", "Anthropic", `base_url="${source.base}", api_key=${key}`, "messages.create", split(anthropic(source), ANTHROPIC), "answer.content");
    case "ollama":
      return python(source, "ollama", "Client", `host="${source.base}"${source.keyed ? `, headers={"Authorization": "Bearer " + ${key}}` : ""}`, "chat", ollama(source), "answer.message");
  }
}

function curl(source: Source): string {
  const json = JSON.stringify(openai(source), (_, value: unknown) => (value instanceof FileData ? `${value.prefix}\0${value.name}\0` : value), 1);
  const key = source.keyed ? ` -H "Authorization: Bearer $${KEY}"` : "";
  // A quote ends the text of the shell. A command between two such texts writes the bytes of a file.
  const quoted = json.replaceAll("'", "'\\''").replace(/\\u0000(.*?)\\u0000/g, (_, name: string) => `'"$(base64 < ${name} | tr -d '\\n')"'`);
  return `curl ${source.base}/v1/chat/completions${key} -H "Content-Type: application/json" -d @- <<< '${quoted}'\n`;
}

function python(source: Source, module: string, name: string, args: string, call: string, fields: Fields, shown: string): string {
  const reads = source.messages.some((one) => one.media.length);
  const imports = [...(reads ? ["import base64"] : []), ...(source.keyed ? ["import os"] : [])].map((line) => `${line}\n`).join("");
  const reading = reads ? '\n\ndef data(name):\n    with open(name, "rb") as file:\n        return base64.b64encode(file.read()).decode()\n\n' : "";
  const given = Object.entries(fields).map(([field, value]) => `    ${field}=${literal(value, "    ")},\n`).join("");
  return `${imports}${imports && "\n"}from ${module} import ${name}\n${reading}\nclient = ${name}(${args})\nanswer = client.${call}(\n${given})\nprint(${shown})\n`;
}

/** Return a value as Python writes it. */
function literal(value: Value, indent: string): string {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (value instanceof FileData) return value.prefix ? `"${value.prefix}" + data("${value.name}")` : `data("${value.name}")`;
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const items = Array.isArray(value)
    ? value.map((item) => literal(item, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, inner)}`);
  const line = `${open}${items.join(", ")}${close}`;
  if (line.length < 90 && !line.includes("\n")) return line;
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}

/** Return the arguments of a client: parameters that it has no arguments for go into `extra_body`. */
function split(fields: Fields, known: Set<string>): Fields {
  const own: Fields = {};
  const extra: Fields = {};
  for (const [name, value] of Object.entries(fields)) {
    const foreign = (typeof value === "number" && name !== "max_tokens" && !known.has(name)) || name === "think";
    (foreign ? extra : own)[name] = value;
  }
  return Object.keys(extra).length ? { ...own, extra_body: extra } : own;
}

function openai(source: Source): Fields {
  const { conversation } = source;
  const { num_predict: most, draft_num_predict: _, ...sampling } = numbers(conversation.options);
  const tools = toolsOf(conversation.tools) as unknown as Value[];
  const system: Value[] = conversation.system.trim() ? [{ role: "system", content: conversation.system.trim() }] : [];
  return {
    model: conversation.model,
    messages: [...system, ...turns(source, openaiTurn)],
    ...sampling,
    ...(most !== undefined && most > 0 ? { max_tokens: most } : {}),
    ...(tools.length ? { tools } : {}),
    ...(conversation.schema.trim() ? { response_format: openaiFormat(schemaOf(conversation.schema)) } : {}),
    ...(conversation.think ? { think: thought(conversation.think) } : {}),
  };
}

function openaiFormat(schema: unknown): Value {
  return schema === "json" ? { type: "json_object" } : { type: "json_schema", json_schema: { name: "answer", schema: schema as Value } };
}

function thought(think: string): Value {
  return think === "on" ? true : think === "off" ? false : think;
}

function turns(source: Source, turn: (one: Message, files: string[]) => Value): Value[] {
  let number = 0;
  return source.messages.map((one) => turn(one, one.media.map((medium) => fileName(medium, (number += 1)))));
}

function fileName(medium: Medium, number: number): string {
  const [kind, form] = medium.type.split("/");
  return `${kind}-${number}.${form === "jpeg" ? "jpg" : form === "mpeg" ? "mp3" : form!.replace("x-", "")}`;
}

function openaiTurn(one: Message, files: string[]): Value {
  const parts = one.media.map((medium, index): Value =>
    medium.type.startsWith("image/")
      ? { type: "image_url", image_url: { url: new FileData(`data:${medium.type};base64,`, files[index]!) } }
      : { type: "input_audio", input_audio: { data: new FileData("", files[index]!), format: medium.type.includes("wav") ? "wav" : "mp3" } },
  );
  const calls = one.calls.map((call): Value => ({ id: call.id, type: "function", function: { name: call.name, arguments: JSON.stringify(call.arguments) } }));
  return {
    role: one.role,
    content: parts.length ? [...parts, ...(one.content ? [{ type: "text", text: one.content }] : [])] : one.content,
    ...(calls.length ? { tool_calls: calls } : {}),
    ...(one.call ? { tool_call_id: one.call.id } : {}),
  };
}

function anthropic(source: Source): Fields {
  const { conversation } = source;
  const { num_predict: most, draft_num_predict: _, ...sampling } = numbers(conversation.options);
  const tools = toolsOf(conversation.tools).map(({ function: about }): Value => ({
    name: about.name, ...(about.description ? { description: about.description } : {}), input_schema: (about.parameters ?? { type: "object" }) as Value,
  }));
  const schema = conversation.schema.trim() ? schemaOf(conversation.schema) : null;
  const think = conversation.think;
  return {
    model: conversation.model,
    max_tokens: most !== undefined && most > 0 ? most : MOST_TOKENS,
    ...(conversation.system.trim() ? { system: conversation.system.trim() } : {}),
    messages: joined(turns(source, anthropicTurn)),
    ...sampling,
    ...(tools.length ? { tools } : {}),
    ...(schema !== null || (think && think !== "on" && think !== "off") ? {
      output_config: {
        ...(schema !== null ? { format: { type: "json_schema", schema: (schema === "json" ? { type: "object" } : schema) as Value } } : {}),
        ...(think && think !== "on" && think !== "off" ? { effort: think } : {}),
      },
    } : {}),
    ...(think === "off" ? { thinking: { type: "disabled" } } : think ? { thinking: { type: "enabled", budget_tokens: MOST_TOKENS } } : {}),
  };
}

function anthropicTurn(one: Message, files: string[]): Value {
  if (one.call) return { role: "user", content: [{ type: "tool_result", tool_use_id: one.call.id, content: one.content }] };
  if (one.media.some((medium) => !medium.type.startsWith("image/"))) throw new Mistake("options", "requests of Anthropic's form have no sounds");
  const parts = one.media.map((medium, index): Value => ({
    type: "image",
    source: { type: "base64", media_type: medium.type, data: new FileData("", files[index]!) },
  }));
  const calls = one.calls.map((call): Value => ({ type: "tool_use", id: call.id, name: call.name, input: call.arguments as Value }));
  const text: Value[] = one.content ? [{ type: "text", text: one.content }] : [];
  return { role: one.role, content: parts.length || calls.length ? [...parts, ...text, ...calls] : one.content };
}

/** Return the turns with the results of several calls in one message, as Anthropic wants them. */
function joined(all: Value[]): Value[] {
  const found: { role: Value; content: Value }[] = [];
  for (const one of all as { role: Value; content: Value }[]) {
    const last = found.at(-1);
    if (last && last.role === "user" && one.role === "user" && Array.isArray(last.content) && Array.isArray(one.content)) last.content.push(...one.content);
    else found.push(one);
  }
  return found as unknown as Value[];
}

function ollama(source: Source): Fields {
  const { conversation } = source;
  const options = numbers(conversation.options);
  const tools = toolsOf(conversation.tools) as unknown as Value[];
  const system: Value[] = conversation.system.trim() ? [{ role: "system", content: conversation.system.trim() }] : [];
  return {
    model: conversation.model,
    messages: [...system, ...turns(source, ollamaTurn)],
    ...(Object.keys(options).length ? { options } : {}),
    ...(tools.length ? { tools } : {}),
    ...(conversation.schema.trim() ? { format: schemaOf(conversation.schema) as Value } : {}),
    ...(conversation.think ? { think: thought(conversation.think) } : {}),
  };
}

function ollamaTurn(one: Message, files: string[]): Value {
  return {
    role: one.role,
    content: one.content,
    ...(one.media.length ? { images: files.map((name) => new FileData("", name)) } : {}),
    ...(one.calls.length ? { tool_calls: one.calls.map((call): Value => ({ function: { name: call.name, arguments: call.arguments as Value } })) } : {}),
    ...(one.call ? { tool_name: one.call.name } : {}),
  };
}
