/** Simulated clients: each is a realtime session that sends the prompt again and again. Sessions are WebSockets, of which a browser opens hundreds to one server, but only six connections for other requests. */

import { base } from "../../api/base.ts";
import { key } from "../../api/client.ts";
import { isRecord } from "../../state/conversations.ts";

export interface Plan {
  model: string;
  clients: number;
  /** Answers of each client. */
  answers: number;
  prompt: string;
  /** Most tokens of each answer. */
  tokens: number;
  /** Each prompt has another beginning, so that no prompt is in the cache. */
  different: boolean;
}

export interface Client {
  number: number;
  state: "waiting" | "answering" | "done" | "failed" | "stopped";
  answers: number;
  errors: number;
  /** Tokens of finished answers. */
  tokens: number;
  /** Pieces of the answer in progress, about one a token. */
  pieces: number;
  /** Milliseconds from the request to the first token, of all answers. */
  firsts: number[];
  /** Milliseconds from the first to the last token, of finished answers. */
  generating: number;
  problem: string;
}

/** Most clients: the server's own bound of sessions, with room for others. */
export const MOST_CLIENTS = 60;

/** Run the clients of a plan; each change of one is reported. Ends when all have ended. */
export async function run(plan: Plan, report: (client: Client) => void, stop: AbortSignal): Promise<void> {
  await Promise.all(Array.from({ length: plan.clients }, (_, index) => client(plan, index + 1, report, stop)));
}

function client(plan: Plan, number: number, report: (client: Client) => void, stop: AbortSignal): Promise<void> {
  let now: Client = { number, state: "waiting", answers: 0, errors: 0, tokens: 0, pieces: 0, firsts: [], generating: 0, problem: "" };
  const change = (parts: Partial<Client>) => report((now = { ...now, ...parts }));
  change({});
  return new Promise((resolve) => {
    const address = new URL(`v1/realtime?model=${encodeURIComponent(plan.model)}`, base);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address, ["realtime", ...(key.value ? [`openai-insecure-api-key.${key.value}`] : [])]);
    let asked = 0;
    let first = 0;
    let opened = false;
    const ask = () => {
      asked = performance.now();
      first = 0;
      change({ state: "answering", pieces: 0 });
      const text = plan.different ? `[${number}.${now.answers + now.errors + 1}] ${plan.prompt}` : plan.prompt;
      const input = [{ type: "message", role: "user", content: [{ type: "input_text", text }] }];
      socket.send(JSON.stringify({ type: "response.create", response: { conversation: "none", input, output_modalities: ["text"], max_output_tokens: plan.tokens } }));
    };
    const next = () => {
      if (stop.aborted) end("stopped");
      else if (now.answers + now.errors >= plan.answers) end("done");
      else ask();
    };
    const end = (state: Client["state"]) => {
      if (now.state !== "done" && now.state !== "failed" && now.state !== "stopped") change({ state, pieces: 0 });
      socket.close();
      resolve();
    };
    stop.addEventListener("abort", () => end("stopped"));
    socket.onmessage = (event) => {
      const value: unknown = JSON.parse(String(event.data));
      if (!isRecord(value)) return;
      switch (value["type"]) {
        case "session.created":
          opened = true;
          next();
          break;
        case "response.output_text.delta":
        case "response.reasoning_text.delta":
          if (!first) {
            first = performance.now();
            now.firsts = [...now.firsts, first - asked];
          }
          change({ pieces: now.pieces + 1 });
          break;
        case "error":
          change({ errors: now.errors + 1, problem: messageOf(value["error"]) });
          next();
          break;
        case "response.done": {
          const response = isRecord(value["response"]) ? value["response"] : {};
          const status = isRecord(response["status_details"]) ? response["status_details"] : {};
          const usage = isRecord(response["usage"]) ? response["usage"] : {};
          const tokens = typeof usage["output_tokens"] === "number" ? usage["output_tokens"] : now.pieces;
          if (response["status"] === "failed") change({ errors: now.errors + 1, problem: messageOf(status["error"]), pieces: 0 });
          else change({ answers: now.answers + 1, tokens: now.tokens + tokens, pieces: 0, generating: now.generating + (first ? performance.now() - first : 0) });
          next();
          break;
        }
      }
    };
    socket.onclose = (event) => {
      if (now.state === "done" || now.state === "stopped" || now.state === "failed") return;
      const refused = "the server refused the session: realtime sessions need the dialect openai, a key with the role infer, and a free session";
      change({ errors: now.errors + 1, problem: event.reason || (opened ? "the connection was lost" : refused) });
      end("failed");
    };
  });
}

function messageOf(error: unknown): string {
  return isRecord(error) && typeof error["message"] === "string" ? error["message"] : "the answer failed";
}

/** Return the value below which `share` of the values are (nearest rank); null without values. */
export function percentile(values: number[], share: number): number | null {
  const ordered = [...values].sort((a, b) => a - b);
  return ordered[Math.max(0, Math.ceil(ordered.length * share) - 1)] ?? null;
}
