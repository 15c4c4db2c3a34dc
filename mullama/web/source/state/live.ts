/** The live state of the server: one stream of server-sent events keeps it current. */

import { batch, computed, effect, signal } from "@preact/signals";

import { ApiError, key } from "../api/client.ts";
import { serverEvents } from "../api/streams.ts";
import type { ServerEvent, Status } from "../api/types.ts";
import { paced } from "./pace.ts";
import { onHidden, shown, untilShown } from "./shown.ts";
import { advanced } from "./updates.ts";
import type { Sample, Update } from "./updates.ts";

const SILENCE = 10_000; // milliseconds; the server sends an update every two seconds
const REFUSED = 60_000; // milliseconds before another try with a key that was refused
const DRAWN = 500; // milliseconds between two drawings of what arrives

export const status = signal<Status | null>(null);
export const events = signal<ServerEvent[]>([]);
export const samples = signal<Sample[]>([]);
export const connection = signal<"connecting" | "live" | "lost">("connecting");
/** How many times a lost connection returned, or that of a hidden tab. */
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

/** Updates that are not drawn yet. */
let arrived: Update[] = [];

/** Draws what arrived. The first update after a pause is drawn at once, those of a busy server a few times a second. */
const draw = paced(() => {
  const known = advanced({ status: status.peek(), events: events.peek(), samples: samples.peek() }, arrived);
  arrived = [];
  batch(() => {
    status.value = known.status;
    events.value = known.events;
    samples.value = known.samples;
  });
}, DRAWN);

/** Follow the server while the tab is shown; after a lost connection, try again with growing pauses. */
export async function follow(): Promise<never> {
  let pause = 500;
  let missed = false;
  for (;;) {
    await untilShown();
    const control = new AbortController();
    const stay = onHidden(() => control.abort());
    let silence = setTimeout(() => control.abort(), SILENCE);
    let first = true;
    try {
      for await (const data of serverEvents("api/v1/live", { signal: control.signal })) {
        clearTimeout(silence);
        silence = setTimeout(() => control.abort(), SILENCE);
        arrived.push({ ...(JSON.parse(data) as Update), anew: first });
        draw();
        if (first && (missed || connection.value === "lost")) returns.value += 1;
        first = missed = false;
        heard.value = Date.now();
        connection.value = "live";
        refusal.value = null;
        pause = 500;
      }
    } catch (error) {
      refusal.value = error instanceof ApiError ? error : null;
    }
    clearTimeout(silence);
    stay();
    if (!shown.value) {
      missed = true;
      continue;
    }
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
