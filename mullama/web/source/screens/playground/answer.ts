/** Asks a model, and reports the answer as it grows, at most once a frame. */

import { ApiError } from "../../api/client.ts";
import { jsonLines } from "../../api/streams.ts";
import type { Conversation, Message, Stats } from "../../state/conversations.ts";

interface Line {
  message?: { content?: string; thinking?: string; tool_calls?: unknown[] };
  done?: boolean;
  error?: string | { message: string };
  eval_count?: number;
  eval_duration?: number;
  prompt_eval_count?: number;
}

type Report = (change: Partial<Message>) => void;

/** Return the body of a request, in the form of Ollama's chat. Raises an error for a schema that is no JSON. */
export function body(conversation: Conversation, messages: Message[]): Record<string, unknown> {
  const system = conversation.system.trim();
  const options: Record<string, number> = {};
  for (const [name, text] of Object.entries(conversation.options)) if (text.trim() !== "") options[name] = Number(text);
  return {
    model: conversation.model,
    messages: [
      ...(system ? [{ role: "system", content: system }] : []),
      ...messages.map((one) => ({
        role: one.role,
        content: one.content,
        ...(one.media.length ? { images: one.media.map((medium) => medium.data) } : {}),
      })),
    ],
    ...(Object.keys(options).length ? { options } : {}),
    ...(conversation.schema.trim() ? { format: JSON.parse(conversation.schema) as unknown } : {}),
  };
}

/** Ask for the next message of the conversation. An error of the server becomes the error of the message. */
export async function answer(conversation: Conversation, messages: Message[], report: Report, stop: AbortSignal): Promise<void> {
  const begun = performance.now();
  let content = "";
  let thinking = "";
  let firstToken = 0;
  let frame = 0;
  const show = () => {
    frame = 0;
    report({ content, thinking });
  };
  try {
    const request = { method: "POST", body: JSON.stringify({ ...body(conversation, messages), stream: true }), signal: stop };
    for await (const line of jsonLines<Line>("api/models/chat", request)) {
      if (line.error) throw new Error(typeof line.error === "string" ? line.error : line.error.message);
      content += line.message?.content ?? "";
      thinking += line.message?.thinking ?? "";
      if (line.message?.tool_calls) content += `\n\n\`\`\`json\n${JSON.stringify(line.message.tool_calls, null, 1)}\n\`\`\`\n`;
      if (!firstToken && (content || thinking)) firstToken = (performance.now() - begun) / 1000;
      frame ||= requestAnimationFrame(show);
      if (line.done) report({ content, thinking, stats: stats(line, firstToken) });
    }
  } catch (error) {
    const ended = error instanceof DOMException && error.name === "AbortError";
    const hint = error instanceof ApiError && error.hint ? ` (${error.hint})` : "";
    report({ content, thinking, ...(ended ? {} : { error: `${error instanceof Error ? error.message : String(error)}${hint}` }) });
  } finally {
    cancelAnimationFrame(frame);
  }
}

function stats(line: Line, firstToken: number): Stats {
  return {
    promptTokens: line.prompt_eval_count ?? 0,
    tokens: line.eval_count ?? 0,
    seconds: (line.eval_duration ?? 0) / 1e9,
    firstToken,
  };
}
