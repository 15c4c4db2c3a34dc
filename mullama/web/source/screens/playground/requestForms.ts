/** The request of a conversation as code for the clients of each dialect. */

import { base } from "../../api/client.ts";
import type { Conversation, Message } from "../../state/conversations.ts";
import { body } from "./answer.ts";

export const FORMS = { curl: "curl", openai: "Python: openai", anthropic: "Python: anthropic", ollama: "Python: ollama" };

/** Return the code. Media are shortened. */
export function shown(form: keyof typeof FORMS, conversation: Conversation, messages: Message[]): string {
  const asked = messages.at(-1)?.role === "assistant" ? messages.slice(0, -1) : messages;
  let request: Record<string, unknown>;
  try {
    request = body(conversation, asked);
  } catch {
    return "The schema is not JSON.";
  }
  const address = base.href.replace(/\/$/, "");
  const system = conversation.system.trim();
  const turns = (request["messages"] as { role: string; content: string }[]).map(({ role, content }) => ({ role, content }));
  const options = (request["options"] ?? {}) as Record<string, number>;
  const { num_predict: most, ...sampling } = options;
  switch (form) {
    case "curl":
      return `curl ${address}/v1/chat/completions \\\n  -H "Authorization: Bearer $MULLAMA_KEY" \\\n  -H "Content-Type: application/json" \\\n  -d '${JSON.stringify({ model: conversation.model, messages: turns, ...sampling, ...(most ? { max_tokens: most } : {}) }, null, 1).replaceAll("'", "'\\''")}'`;
    case "openai":
      return `from openai import OpenAI\n\nclient = OpenAI(base_url="${address}/v1", api_key="…")\nanswer = client.chat.completions.create(\n${args({ model: conversation.model, messages: turns, ...sampling, ...(most ? { max_tokens: most } : {}) })})\nprint(answer.choices[0].message.content)`;
    case "anthropic":
      return `from anthropic import Anthropic\n\nclient = Anthropic(base_url="${address}", api_key="…")\nanswer = client.messages.create(\n${args({ model: conversation.model, max_tokens: most ?? 1024, ...(system ? { system } : {}), messages: turns.filter((one) => one.role !== "system"), ...(sampling["temperature"] === undefined ? {} : { temperature: sampling["temperature"] }) })})\nprint(answer.content[0].text)`;
    case "ollama":
      return `from ollama import Client\n\nclient = Client(host="${address}")\nanswer = client.chat(\n${args({ model: conversation.model, messages: turns, ...(Object.keys(options).length ? { options } : {}) })})\nprint(answer.message.content)`;
  }
}

/** Return keyword arguments in Python's form. */
function args(values: Record<string, unknown>): string {
  return Object.entries(values).map(([name, value]) => `    ${name}=${JSON.stringify(value)},\n`).join("");
}
