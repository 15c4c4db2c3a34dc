/** The revisions: who, when, from where and with what result; undo with its plan first. */

import { useEffect, useState } from "preact/hooks";

import { ask } from "../../api/client.ts";
import type { Plan, Revision } from "../../api/types.ts";
import { digest, moment } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { PlanView } from "../../parts/PlanView.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { Progress } from "../../parts/Progress.tsx";
import { useRun } from "../../parts/useRun.ts";
import { status } from "../../state/live.ts";
import { Compare } from "./Compare.tsx";

/** The screen. */
export function History() {
  const [revisions, setRevisions] = useState<Revision[] | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [target, setTarget] = useState<number | null>(null);
  const [pair, setPair] = useState<number[]>([]);
  const applied = status.value?.generation;
  const [before, after] = [...pair].sort((a, b) => a - b);
  /** Mark a revision; the third mark replaces the first. */
  const mark = (number: number, on: boolean) => setPair((known) => (on ? [...known, number].slice(-2) : known.filter((one) => one !== number)));
  useEffect(() => {
    ask<{ generations: Revision[] }>("api/v1/history").then((answer) => setRevisions(answer.generations), setError);
  }, [applied]);
  if (error) return <Problem title="The history could not be read" error={error} />;
  return (
    <div class="screen">
      <header><h1>History</h1><p class="quiet">Each applied manifest is a revision. Mark two to compare them. An undo applies an earlier one as a new revision.</p></header>
      {before !== undefined && after !== undefined && <Compare before={before} after={after} close={() => setPair([])} />}
      {target !== null && <Undo to={target} close={() => setTarget(null)} />}
      <section class="panel">
        {revisions?.length === 0 && <Empty title="Nothing was applied yet">Run <code>mullama apply</code>.</Empty>}
        {!!revisions?.length && (
          <div class="scroll">
            <table>
              <thead>
                <tr><th scope="col"><span class="visually-hidden">Compare</span></th><th scope="col" class="number">Revision</th><th scope="col">When</th><th scope="col">By</th><th scope="col">Changes</th><th scope="col">Result</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr>
              </thead>
              <tbody>
                {revisions.map((one) => (
                  <tr key={one.generation}>
                    <td><input type="checkbox" aria-label={`Compare revision ${one.generation}`} checked={pair.includes(one.generation)} onChange={(event) => mark(one.generation, event.currentTarget.checked)} /></td>
                    <th scope="row" class="number">{one.generation}</th>
                    <td class="nowrap">{moment(one.when)}</td>
                    <td>{one.by || "–"} <span class="quiet">({one.trigger})</span>{one.origin.commit && <code class="block">{digest(one.origin.commit)}</code>}</td>
                    <td>{changes(one.summary as Record<string, unknown>)}</td>
                    <td>{one.result}</td>
                    <td class="number">
                      {one.generation === applied
                        ? <span class="tag">applied</span>
                        : <button class="button" onClick={() => setTarget(one.generation)}>Plan the undo</button>}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </section>
    </div>
  );
}

/** Return the summary of a plan as words, such as `2 added (a, b), 1 updated (c)`. */
function changes(summary: Record<string, unknown>): string {
  const words: Record<string, string> = { add: "added", update: "updated", replace: "replaced", remove: "removed", rename: "renamed", repair: "repaired" };
  const subjects = (summary["subjects"] ?? {}) as Record<string, string[]>;
  const found = Object.entries(words).flatMap(([action, word]) => {
    const number = Number(summary[action] ?? 0);
    const names = subjects[action]?.join(", ");
    return number ? [`${number} ${word}${names ? ` (${names})` : ""}`] : [];
  });
  return found.join(", ") || "no change";
}

/** The plan of an undo, its confirmation and its progress. */
function Undo({ to, close }: { to: number; close: () => void }) {
  const [plan, setPlan] = useState<Plan | null>(null);
  const [error, setError] = useState<unknown>(null);
  const run = useRun();
  useEffect(() => {
    setPlan(null); setError(null); run.forget();
    ask<Plan>(`api/v1/undo?to=${to}`).then(setPlan, setError);
  }, [to]);
  const apply = () => run.begin("api/v1/undo", { method: "POST", body: JSON.stringify({ to }) });
  const done = run.progress?.result;
  return (
    <section class="panel" aria-label={`Undo to revision ${to}`}>
      <header>
        <h2>Back to revision {to}</h2>
        {!done && <button class="button main" disabled={!plan || run.running} onClick={() => void apply()}>{run.running ? "Applying…" : "Apply"}</button>}
        <button class="button" onClick={close}>{done ? "Close" : "Cancel"}</button>
      </header>
      <div class="inside">
        {error != null && <Problem title="The undo could not be planned" error={error} />}
        {run.error != null && <Problem title="The undo failed" error={run.error} />}
        {plan ? <PlanView plan={plan} /> : !error && <p class="quiet">Planning…</p>}
        {run.progress && <Progress progress={run.progress} />}
      </div>
    </section>
  );
}
