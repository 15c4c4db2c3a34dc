/** Runs an apply or an undo and follows it. */

import { useState } from "preact/hooks";

import { ApiError } from "../api/client.ts";
import { jsonLines } from "../api/streams.ts";
import type { ApplyLine } from "../api/types.ts";
import { fold, NOTHING, type RunProgress } from "./progress.ts";

/** The state of a run, and the functions that begin and forget one. */
export interface RunState {
  running: boolean;
  progress: RunProgress | null;
  error: unknown;
  /** True for an error after which the server may have done what was asked, or may do it yet. */
  unsure: boolean;
  /** Send the request; the answer is true if a revision was committed. */
  begin: (path: string, init: RequestInit) => Promise<boolean>;
  forget: () => void;
}

/** Return the state of one run at a time. */
export function useRun(): RunState {
  const [running, setRunning] = useState(false);
  const [progress, setProgress] = useState<RunProgress | null>(null);
  const [error, setError] = useState<unknown>(null);
  const begin = async (path: string, init: RequestInit) => {
    let known = NOTHING;
    setRunning(true);
    setError(null);
    setProgress(null);
    try {
      for await (const line of jsonLines<ApplyLine>(path, init)) {
        if (line.event === "error") throw new ApiError(0, line.error?.kind ?? "error", line.error?.message ?? "", line.error?.hint ?? "");
        known = fold(known, line, Date.now());
        setProgress(known);
      }
      if (!known.result) throw new ApiError(0, "unreachable", "the connection ended before the result", "the server continues the change: see History");
    } catch (failure) {
      setError(failure);
    } finally {
      setRunning(false);
    }
    return known.committed;
  };
  const unsure = error instanceof ApiError && error.kind === "unreachable";
  return { running, progress, error, unsure, begin, forget: () => { setProgress(null); setError(null); } };
}
