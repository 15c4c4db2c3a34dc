/** The live state of the server: one stream of server-sent events keeps it current. */

import { computed, effect, signal } from "@preact/signals";

import { ApiError, key } from "../api/client.ts";
import { serverEvents } from "../api/streams.ts";
import type { Model, ServerEvent, Status } from "../api/types.ts";

/** What one event of `/api/v1/live` holds: first everything, later what changed. */
interface Update {
  status?: Status;
  models?: Model[];
  server?: Partial<Status>;
  events?: ServerEvent[];
  sample?: Sample;
}

/** The speed of the server over the last interval. */
export interface Sample {
  when: number;
  /** Generated tokens each second, by model. */
  tokens: Record<string, number>;
  running: number;
  waiting: number;
}

const SILENCE = 10_000; // milliseconds; the server sends an update every two seconds
const REFUSED = 60_000; // milliseconds before another try with a key that was refused

const KEPT_EVENTS = 500;
const KEPT_SAMPLES = 120;

export const status = signal<Status | null>(null);
export const events = signal<ServerEvent[]>([]);
export const samples = signal<Sample[]>([]);
export const connection = signal<"connecting" | "live" | "lost">("connecting");
/** How many times a lost connection returned. */
export const returns = signal(0);
/** When the server was heard last, in milliseconds. */
export const heard = signal(0);
export const refusal = signal<ApiError | null>(null);

export const models = computed(() => status.value?.models ?? []);

/** The models that generated tokens in the kept samples, one name a line: a text, so that it changes only with them. */
export const generating = computed(() => [...new Set(samples.value.flatMap((sample) => Object.keys(sample.tokens)))].sort().join("\n"));

const FAILURES = new Set(["worker-failed", "fetch-failed", "degraded"]);

let known = new Map<string, ServerEvent>();

/** The newest failure of each model among the kept events; the same map until there is another one. */
export const failures = computed(() => {
  const found = new Map<string, ServerEvent>();
  for (const event of events.value) {
    if (FAILURES.has(event.kind)) for (const name of event.models ?? []) found.set(name, event);
  }
  const same = found.size === known.size && [...found].every(([name, event]) => known.get(name)?.id === event.id);
  if (!same) known = found;
  return known;
});

/** Return the tokens each second of a model over the kept samples, oldest first. */
export function speeds(name: string): number[] {
  return samples.value.map((sample) => sample.tokens[name] ?? 0);
}

function take(update: Update, first: boolean): void {
  // A server that was started again counts its events from 1.
  if (first) events.value = [];
  if (update.status) status.value = update.status;
  const known = status.value;
  if (known && (update.models || update.server)) {
    const changed = new Map((update.models ?? []).map((model) => [model.name, model]));
    const rows = changed.size ? known.models.map((model) => changed.get(model.name) ?? model) : known.models;
    status.value = { ...known, ...update.server, models: rows };
  }
  if (update.events?.length) {
    const last = events.value.at(-1)?.id ?? 0;
    const fresh = update.events.filter((event) => event.id > last);
    events.value = [...events.value, ...fresh].slice(-KEPT_EVENTS);
  }
  if (update.sample) samples.value = [...samples.value, update.sample].slice(-KEPT_SAMPLES);
}

/** Follow the server until the page is closed; after a lost connection, try again with growing pauses. */
export async function follow(): Promise<never> {
  let pause = 500;
  for (;;) {
    const control = new AbortController();
    let silence = setTimeout(() => control.abort(), SILENCE);
    let first = true;
    try {
      for await (const data of serverEvents("api/v1/live", { signal: control.signal })) {
        clearTimeout(silence);
        silence = setTimeout(() => control.abort(), SILENCE);
        take(JSON.parse(data) as Update, first);
        first = false;
        heard.value = Date.now();
        if (connection.value === "lost") returns.value += 1;
        connection.value = "live";
        refusal.value = null;
        pause = 500;
      }
    } catch (error) {
      refusal.value = error instanceof ApiError ? error : null;
    }
    clearTimeout(silence);
    connection.value = "lost";
    const refused = refusal.value?.status === 401 || refusal.value?.status === 403;
    await wait(refused ? REFUSED : pause);
    pause = Math.min(pause * 2, 8000);
  }
}

const asked = signal(0);

/** Try to reach the server now. */
export function retry(): void {
  asked.value += 1;
}

/** Wait, but no longer than until a new key is entered, or the person asks for a try. */
function wait(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(end, milliseconds);
    let first = true;
    const stop = effect(() => {
      void [key.value, asked.value];
      if (!first) end();
      first = false;
    });
    function end(): void {
      clearTimeout(timer);
      stop();
      resolve();
    }
  });
}
