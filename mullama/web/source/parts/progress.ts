/** The progress of an apply or an undo, folded from the lines of its answer as in the terminal. */

import type { ApplyLine } from "../api/types.ts";

/** One file in transfer. */
export interface Download {
  model: string;
  file: string;
  phase: string;
  done: number;
  total: number | null;
  message: string;
  /** Bytes each second since the first line of the file; null before the second line. */
  speed: number | null;
  began: number;
  first: number;
}

/** A run after the lines so far. */
export interface RunProgress {
  phase: string;
  /** True once a revision was committed: a later failure leaves it applied. */
  committed: boolean;
  downloads: Map<string, Download>;
  models: Map<string, { state: string; message: string }>;
  notes: string[];
  /** Why the run waits, and for what. */
  waiting: string;
  result: ApplyLine | null;
}

export const NOTHING: RunProgress = { phase: "", committed: false, downloads: new Map(), models: new Map(), notes: [], waiting: "", result: null };

/** Phases in words. */
export const PHASES: Record<string, string> = {
  wait: "waiting for the running change",
  fetch: "fetching files",
  commit: "committing the revision",
  load: "loading models",
  swap: "switching to the new revision",
  drain: "waiting for running requests",
  prune: "removing unused files",
};

/** The phases after the commit, and the outcomes of a run that did all it could. */
const COMMITTED = new Set(["load", "swap", "drain", "prune"]);
const OUTCOMES = new Set(["applied", "partly_applied"]);

const LEAST = 500; // milliseconds before a speed is shown

/** True for a result that is an error. Before it, a part may have been committed. */
export function failed({ result }: RunProgress): boolean {
  return result !== null && !OUTCOMES.has(result.outcome ?? "");
}

/** Return the progress after one more line. `now`: milliseconds. */
export function fold(before: RunProgress, line: ApplyLine, now: number): RunProgress {
  switch (line.event) {
    case "phase":
      return { ...before, phase: line.phase ?? "", committed: before.committed || COMMITTED.has(line.phase ?? "") };
    case "fetch": {
      if (!line.file) return before;
      const key = `${line.model ?? ""} ${line.file}`;
      const downloads = new Map(before.downloads);
      downloads.set(key, transferred(downloads.get(key), line, now));
      return { ...before, downloads };
    }
    case "step":
      return { ...before, models: new Map(before.models).set(line.model ?? "", { state: line.state ?? "", message: line.message ?? "" }) };
    case "warning":
      return { ...before, notes: [...before.notes, text(line)] };
    case "waiting":
      return { ...before, waiting: text(line) };
    case "result":
      return { ...before, result: line, committed: before.committed || OUTCOMES.has(line.outcome ?? "") };
    default:
      return before;
  }
}

function text(line: ApplyLine): string {
  return [line.model, line.message].filter(Boolean).join(": ");
}

function transferred(known: Download | undefined, line: ApplyLine, now: number): Download {
  const done = line.done ?? 0;
  const began = known && known.phase === line.phase ? known.began : now;
  const first = known && known.phase === line.phase ? known.first : done;
  return {
    model: line.model ?? "",
    file: line.file ?? "",
    phase: line.phase ?? "",
    done,
    total: line.total ?? null,
    message: line.message ?? "",
    speed: now - began >= LEAST && done > first ? ((done - first) * 1000) / (now - began) : (known?.speed ?? null),
    began,
    first,
  };
}
