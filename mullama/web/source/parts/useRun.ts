/** Runs an apply or an undo and follows it. A run belongs to the tab, not to the screen, which may be left while it runs. */

import { signal } from "@preact/signals";
import type { Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import { ApiError } from "../api/client.ts";
import { jsonLines } from "../api/streams.ts";
import type { ApplyLine } from "../api/types.ts";
import { fold, NOTHING, type RunProgress } from "./progress.ts";

/** The state of a run, and the function that begins one. */
export interface RunState {
  running: boolean;
  progress: RunProgress | null;
  error: unknown;
  /** True for an error after which the server may have done what was asked, or may do it yet. */
  unsure: boolean;
  /** Send the request; the answer is true if a revision was committed. */
  begin: (path: string, init: RequestInit) => Promise<boolean>;
}

type Known = Pick<RunState, "running" | "progress" | "error">;

const IDLE: Known = { running: false, progress: null, error: null };
const runs = new Map<string, Signal<Known>>();

function stateOf(name: string): Signal<Known> {
  const found = runs.get(name) ?? signal(IDLE);
  runs.set(name, found);
  return found;
}

/** Return the state of the run with a name. A screen that is opened again shows the run that it left. */
export function useRun(name: string): RunState {
  const state = stateOf(name);
  const change = (parts: Partial<Known>) => { state.value = { ...state.value, ...parts }; };
  const forget = () => { if (!state.peek().running) state.value = IDLE; };
  useEffect(() => forget, [name]);
  const { running, progress, error } = state.value;
  const begin = async (path: string, init: RequestInit) => {
    let known = NOTHING;
    state.value = { ...IDLE, running: true };
    try {
      for await (const line of jsonLines<ApplyLine>(path, init)) {
        if (line.event === "error") throw new ApiError(0, line.error?.kind ?? "error", line.error?.message ?? "", line.error?.hint ?? "");
        known = fold(known, line, Date.now());
        change({ progress: known });
      }
      if (!known.result) throw new ApiError(0, "unreachable", "the connection ended before the result", "the server continues the change: see History");
    } catch (failure) {
      change({ error: failure });
    } finally {
      change({ running: false });
    }
    return known.committed;
  };
  const unsure = error instanceof ApiError && error.kind === "unreachable";
  return { running, progress, error, unsure, begin };
}
