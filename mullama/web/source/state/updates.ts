/** The updates of `/api/v1/live`, and the state that they lead to. */

import type { Model, ServerEvent, Status } from "../api/types.ts";

/** The content of one update: first everything, later what changed. */
export interface Update {
  /** True for the first update of a stream, which has all that the server keeps: it may have been started again. */
  anew?: boolean;
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

/** The state of the server as the page knows it. The lists have the oldest first. */
export interface Known {
  status: Status | null;
  events: ServerEvent[];
  samples: Sample[];
}

const KEPT_EVENTS = 500;
const KEPT_SAMPLES = 120;
/** Seconds without a sample after which a course begins anew. */
const GAP = 10;

/** Return the state after some updates. A part that they do not change is the same object as before. */
export function advanced(known: Known, updates: readonly Update[]): Known {
  const begin = updates.findLastIndex((update) => update.anew);
  const kept = begin < 0 ? known.events : [];
  const events = updates.slice(Math.max(0, begin)).flatMap((update) => update.events ?? []);
  const samples = updates.flatMap((update) => update.sample ?? []);
  return {
    status: updates.reduce(changedStatus, known.status),
    events: events.length || begin >= 0 ? [...kept, ...events].slice(-KEPT_EVENTS) : kept,
    samples: samples.length ? samples.reduce(continued, known.samples).slice(-KEPT_SAMPLES) : known.samples,
  };
}

function changedStatus(before: Status | null, { status, models = [], server }: Update): Status | null {
  const known = status ?? before;
  if (!known || !(models.length || server)) return known;
  const changed = new Map(models.map((model) => [model.name, model]));
  const rows = models.length ? known.models.map((model) => changed.get(model.name) ?? model) : known.models;
  return { ...known, ...server, models: rows };
}

function continued(before: Sample[], sample: Sample): Sample[] {
  const last = before.at(-1);
  return last && sample.when - last.when > GAP ? [sample] : [...before, sample];
}
