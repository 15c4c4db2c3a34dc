/** The revisions: who, when, from where and with what result; undo with its plan first. */

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";

import { key } from "../../api/client.ts";
import type { Plan, Revision } from "../../api/types.ts";
import { visible } from "../../format/text.ts";
import { digest, moment } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { PlanView } from "../../parts/PlanView.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { Progress } from "../../parts/Progress.tsx";
import { useAnswer } from "../../parts/useAnswer.ts";
import { useRun } from "../../parts/useRun.ts";
import { link, open, parts } from "../../shell/router.ts";
import { status } from "../../state/live.ts";
import { Compare } from "./Compare.tsx";

/** The revision of an undo that is open; it stays open while another screen is looked at. */
const undoing = signal<number | null>(null);

/** The screen. */
export function History() {
  const target = undoing.value;
  const setTarget = (number: number | null) => { undoing.value = number; };
  const [pair, setPair] = useState<number[]>([]);
  const applied = status.value?.generation;
  const { found, error } = useAnswer<{ generations: Revision[] }>("api/v1/history", applied);
  const revisions = found?.generations;
  const opened = parts.value[1] ? Number(parts.value[1]) : null;
  const [before, after] = pair.length === 2 ? [...pair].sort((a, b) => a - b) : step(revisions, opened);
  const close = () => { setPair([]); open("history"); };
  /** Mark a revision; the third mark replaces the first. */
  const mark = (number: number, on: boolean) => setPair((known) => (on ? [...known, number].slice(-2) : known.filter((one) => one !== number)));
  const row = useRef<HTMLTableRowElement>(null);
  useEffect(() => row.current?.scrollIntoView({ block: "nearest" }), [opened, revisions !== undefined]);
  return (
    <div class="screen">
      <header><h1>History</h1><p class="quiet">Each applied manifest is a revision. Choose one to see its changes, or mark two to compare them. An undo applies an earlier one as a new revision.</p></header>
      {error != null && <Problem title="The history could not be read" error={error} />}
      {before !== undefined && after !== undefined && <Compare before={before} after={after} close={close} />}
      {revisions && opened !== null && <Opened number={opened} revisions={revisions} />}
      {target !== null && <Undo to={target} close={() => setTarget(null)} />}
      <section class="panel">
        {revisions?.length === 0 && <Empty title="Nothing was applied yet">Run <code>mullama apply</code>.</Empty>}
        {!!revisions?.length && (
          <div class="scroll">
            <table class="stacked">
              <thead>
                <tr><th scope="col"><span class="visually-hidden">Compare</span></th><th scope="col" class="number">Revision</th><th scope="col">When</th><th scope="col">By</th><th scope="col">Changes</th><th scope="col">Result</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr>
              </thead>
              <tbody>
                {revisions.map((one) => (
                  <tr key={one.generation} ref={one.generation === opened ? row : null} aria-current={one.generation === opened ? "true" : undefined}>
                    <td class="first"><input type="checkbox" aria-label={`Compare revision ${one.generation}`} checked={pair.includes(one.generation)} onChange={(event) => mark(one.generation, event.currentTarget.checked)} /></td>
                    <th scope="row" class="number"><span class="when-stacked" aria-hidden="true">Revision </span><a href={link("history", String(one.generation))} aria-label={`Revision ${one.generation}`}>{one.generation}</a></th>
                    <td class="nowrap" data-label="When">{moment(one.when)}</td>
                    <td data-label="By">{visible(one.by) || "–"} <span class="quiet">({one.trigger})</span>{one.origin.commit && <code class="block">{digest(one.origin.commit)}</code>}</td>
                    <td class="wide" data-label="Changes">{changes(one.summary as Record<string, unknown>)}</td>
                    <td class="wide" data-label="Result">{visible(one.result)}</td>
                    <td class="number wide">
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

/** Return a revision and the one before it, whose difference is what it changed; nothing without both. */
function step(revisions: Revision[] | undefined, opened: number | null): number[] {
  const before = Math.max(...(revisions ?? []).map((one) => one.generation).filter((number) => opened !== null && number < opened));
  return opened !== null && Number.isFinite(before) && revisions?.some((one) => one.generation === opened) ? [before, opened] : [];
}

/** Why the revision of the address has no comparison: it is the oldest, or the server does not keep it. */
function Opened({ number, revisions }: { number: number; revisions: Revision[] }) {
  if (!revisions.some((one) => one.generation === number)) {
    return <p class="notice" role="alert">Revision {parts.value[1]} is not kept. The server keeps {revisions.length ? <>{revisions.at(-1)!.generation} to {revisions[0]!.generation}</> : "none"}.</p>;
  }
  return step(revisions, number).length ? null : <p class="notice">Revision {number} is the oldest one that is kept: there is none to compare it with.</p>;
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
  const run = useRun(`undo ${to}`);
  const done = run.progress?.result;
  const applied = status.value?.generation;
  const { found: plan, error } = useAnswer<Plan>(`api/v1/undo?to=${to}`, done || run.running ? "" : applied);
  const apply = () => run.begin("api/v1/undo", { method: "POST", headers: { "if-match": `"${plan!.base}"` }, body: JSON.stringify(key.value ? { to } : { to, by: "page" }) });
  return (
    <section class="panel" aria-label={`Undo to revision ${to}`}>
      <header>
        <h2>Back to revision {to}</h2>
        {!done && <button class="button main" disabled={!plan || run.running} onClick={() => void apply()}>{run.running ? "Applying…" : "Apply"}</button>}
        <button class="button" onClick={close}>{done ? "Close" : "Cancel"}</button>
      </header>
      <div class="inside">
        {error != null && <Problem title="The undo could not be planned" error={error} />}
        {run.error != null && <Problem title={run.unsure ? "The result is not known" : run.progress?.committed ? "Only a part was undone" : "The undo failed"} error={run.error} />}
        {plan ? <PlanView plan={plan} /> : !error && <p class="quiet">Planning…</p>}
        {run.progress && <Progress progress={run.progress} />}
      </div>
    </section>
  );
}
