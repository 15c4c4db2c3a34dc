/** The request of a conversation, in the form of Ollama's chat. */

import { isRecord, lineOf } from "../../state/conversations.ts";
import type { Column, Conversation, Message } from "../../state/conversations.ts";

export interface Tool {
  type: "function";
  function: { name: string; description?: string; parameters?: Record<string, unknown> };
}

/** Settings that cannot be sent, with the name of the field. */
export class Mistake extends Error {
  constructor(readonly field: "schema" | "tools" | "options", message: string) {
    super(message);
  }
}

/** Return the body of a request for the next message after these. Raises `Mistake`. */
export function body(conversation: Conversation, column: Column, messages: Message[]): Record<string, unknown> {
  const system = conversation.system.trim();
  const options = numbers(conversation.options);
  const tools = toolsOf(conversation.tools);
  return {
    model: lineOf(conversation, column).model,
    messages: [...(system ? [{ role: "system", content: system }] : []), ...messages.map(turn)],
    ...(Object.keys(options).length ? { options } : {}),
    ...(tools.length ? { tools } : {}),
    ...(conversation.schema.trim() ? { format: schemaOf(conversation.schema) } : {}),
    ...(conversation.think ? { think: thought(conversation.think) } : {}),
  };
}

function turn(one: Message): Record<string, unknown> {
  return {
    role: one.role,
    content: one.content,
    ...(one.media.length ? { images: one.media.map((medium) => medium.data) } : {}),
    ...(one.calls.length ? { tool_calls: one.calls.map(({ id, name, arguments: given }) => ({ id, function: { name, arguments: given } })) } : {}),
    ...(one.call ? { tool_call_id: one.call.id, tool_name: one.call.name } : {}),
  };
}

function thought(think: string): boolean | string {
  return think === "on" ? true : think === "off" ? false : think;
}

/** Return the typed parameters as numbers. Raises `Mistake` for a text that is no number. */
export function numbers(options: Record<string, string>): Record<string, number> {
  const found: Record<string, number> = {};
  for (const [name, text] of Object.entries(options)) {
    if (text.trim() === "") continue;
    found[name] = Number(text);
    if (!Number.isFinite(found[name])) throw new Mistake("options", `${name}: "${text}" is not a number`);
  }
  return found;
}

/** Return the schema of a text. Raises `Mistake`. */
export function schemaOf(text: string): unknown {
  const schema = json("schema", text, "the JSON schema");
  if (schema === "json" || isRecord(schema)) return schema;
  throw new Mistake("schema", 'the JSON schema must be an object, or "json" for any JSON');
}

/** Return the tools of a text, in the form of OpenAI and Ollama; bare functions are accepted. Raises `Mistake`. */
export function toolsOf(text: string): Tool[] {
  if (!text.trim()) return [];
  const value = json("tools", text, "the tools");
  const all = Array.isArray(value) ? value : [value];
  return all.map((one: unknown, index) => {
    const about = isRecord(one) && isRecord(one["function"]) ? one["function"] : one;
    if (!isRecord(about) || typeof about["name"] !== "string" || !about["name"]) {
      throw new Mistake("tools", `tool ${index + 1} has no name: write {"name": …, "description": …, "parameters": {…}}`);
    }
    const parameters = about["parameters"] ?? about["input_schema"];
    if (parameters !== undefined && !isRecord(parameters)) throw new Mistake("tools", `the parameters of ${about["name"]} must be a JSON schema`);
    return {
      type: "function",
      function: {
        name: about["name"],
        ...(typeof about["description"] === "string" ? { description: about["description"] } : {}),
        ...(parameters ? { parameters } : {}),
      },
    };
  });
}

function json(field: "schema" | "tools", text: string, what: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new Mistake(field, `${what} must be JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}
