/** The answers that grow at this moment. They belong to the tab, not to the screen, which may be left while they grow. */

import { signal } from "@preact/signals";
import type { Signal } from "@preact/signals";

import { ApiError } from "../../api/client.ts";
import { jsonLines } from "../../api/streams.ts";
import { identifier } from "../../parts/identifier.ts";
import { found, put, update } from "../../state/conversationStore.ts";
import { added, branch, isRecord, lineOf, message, replaced } from "../../state/conversations.ts";
import type { Column, Message, ToolCall } from "../../state/conversations.ts";
import { body } from "./body.ts";

/** One answer that grows. */
export interface Run {
  conversation: string;
  column: Column;
  /** The message as it is now; changes once a frame at most. */
  growing: Signal<Message>;
  /** The pieces that arrived, about one a token. */
  pieces: Signal<number>;
  /** Milliseconds of `performance.now`: the request, and the first piece (0 before it). */
  begun: number;
  first: number;
  stop: () => void;
}

interface Line {
  message?: { content?: string; thinking?: string; tool_calls?: { id?: string; function: { name: string; arguments: unknown } }[] };
  done?: boolean;
  done_reason?: string;
  error?: string | { message: string; hint?: string };
  eval_count?: number;
  eval_duration?: number;
  prompt_eval_count?: number;
  prompt_eval_cached_count?: number;
}

/** A growing answer is kept this often, in milliseconds. */
const KEEP_EVERY = 5000;

export const runs = signal<Run[]>([]);
/** The last end of an answer, in words for readers of the screen. */
export const finished = signal("");

/** Return the run that fills a column of a conversation. */
export function runOf(conversation: string, column: Column): Run | undefined {
  return runs.value.find((run) => run.conversation === conversation && run.column === column);
}

/** Stop the answers of a conversation. */
export function stopAll(conversation: string): void {
  for (const run of runs.value) if (run.conversation === conversation) run.stop();
}

/** Ask the model of a column for the next message of its branch. */
export async function begin(id: string, column: Column): Promise<void> {
  const conversation = found(id)!;
  const line = lineOf(conversation, column);
  const text = JSON.stringify({ ...body(conversation, column, branch(conversation.messages, line.leaf)), stream: true });
  const reply = message({ role: "assistant", parent: line.leaf, model: line.model });
  put(added(conversation, column, reply));
  const ending = new AbortController();
  const run: Run = {
    conversation: id, column, growing: signal(reply), pieces: signal(0), begun: performance.now(), first: 0,
    stop: () => ending.abort(),
  };
  runs.value = [...runs.value, run];
  const keeping = setInterval(() => update(id, (known) => replaced(known, run.growing.value)), KEEP_EVERY);
  try {
    await follow(run, text, ending.signal);
  } finally {
    clearInterval(keeping);
    update(id, (known) => replaced(known, run.growing.value));
    runs.value = runs.value.filter((one) => one !== run);
    finished.value = words(run.growing.value);
  }
}

function words(one: Message): string {
  if (one.error) return `${one.model} did not answer: ${one.error}`;
  if (one.calls.length) return `${one.model} calls ${one.calls.map((call) => call.name).join(", ")}`;
  return `${one.model} answered: ${one.content.slice(0, 500)}`;
}

async function follow(run: Run, text: string, signal: AbortSignal): Promise<void> {
  let { content, thinking, calls } = run.growing.value;
  let pieces = 0;
  let frame = 0;
  const change = (parts: Partial<Message>) => { run.growing.value = { ...run.growing.value, content, thinking, calls, ...parts }; };
  const show = () => {
    frame = 0;
    run.pieces.value = pieces;
    change({});
  };
  try {
    for await (const line of jsonLines<Line>("api/models/chat", { method: "POST", body: text, signal })) {
      if (line.error) throw failure(line.error);
      content += line.message?.content ?? "";
      thinking += line.message?.thinking ?? "";
      if (line.message?.tool_calls) calls = [...calls, ...line.message.tool_calls.map(callOf)];
      if (!line.done) pieces += 1;
      if (!run.first && pieces) run.first = performance.now();
      // A hidden tab has no frames.
      frame ||= document.hidden ? window.setTimeout(show, 100) : requestAnimationFrame(show);
      if (line.done) change({ stats: stats(line, run), ended: line.done_reason === "length" ? "length" : "" });
    }
    if (!run.growing.value.stats) change({ error: "the server ended the answer early", hint: "its log has the reason: mullama logs" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") change({ ended: "stopped", stats: partial(run, pieces) });
    else change({ error: error instanceof Error ? error.message : String(error), hint: error instanceof ApiError ? error.hint : "" });
  } finally {
    cancelAnimationFrame(frame);
    clearTimeout(frame);
  }
}

function failure(error: NonNullable<Line["error"]>): ApiError {
  return typeof error === "string" ? new ApiError(200, "error", error, "") : new ApiError(200, "error", error.message, error.hint ?? "");
}

function callOf(call: { id?: string; function: { name: string; arguments: unknown } }): ToolCall {
  const given = call.function.arguments;
  return { id: call.id ?? identifier(), name: call.function.name, arguments: isRecord(given) ? given : {} };
}

function stats(line: Line, run: Run): Message["stats"] {
  return {
    promptTokens: line.prompt_eval_count ?? 0,
    cachedTokens: line.prompt_eval_cached_count ?? 0,
    tokens: line.eval_count ?? 0,
    seconds: (line.eval_duration ?? 0) / 1e9,
    firstToken: run.first ? (run.first - run.begun) / 1000 : 0,
  };
}

/** The figures of an answer that was stopped: the server sends none, so each piece counts as a token. */
function partial(run: Run, pieces: number): Message["stats"] {
  if (!run.first) return null;
  const seconds = (performance.now() - run.first) / 1000;
  return { promptTokens: 0, cachedTokens: 0, tokens: pieces, seconds, firstToken: (run.first - run.begun) / 1000 };
}
