/** Two revisions against each other: the steps from the older to the newer one, or their resolved texts. */

import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

import type { Comparison } from "../../api/types.ts";
import { PlanView } from "../../parts/PlanView.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { useAnswer } from "../../parts/useAnswer.ts";

type View = ComponentType<{ before: string; after: string }>;

/** Compare the revisions with these numbers. */
export function Compare({ before, after, close }: { before: number; after: number; close: () => void }) {
  const { found, error } = useAnswer<Comparison>(`api/v1/history/diff?before=${before}&after=${after}`);
  const [unloaded, setUnloaded] = useState<unknown>(null);
  const [shown, setShown] = useState<"steps" | "text">("steps");
  const [view, setView] = useState<{ component: View } | null>(null);
  useEffect(() => {
    if (shown === "text" && !view) import("./TextDiff.tsx").then((module) => setView({ component: module.TextDiff }), setUnloaded);
  }, [shown, view]);
  return (
    <section class="panel" aria-label={`Revision ${before} against ${after}`}>
      <header>
        <h2>Revision {before} → {after}</h2>
        <span class="choice" role="group" aria-label="Show">
          {(["steps", "text"] as const).map((one) => (
            <button key={one} class="button" aria-pressed={shown === one} onClick={() => setShown(one)}>{one === "steps" ? "Steps" : "Text"}</button>
          ))}
        </span>
        <button class="button" onClick={close}>Close</button>
      </header>
      <div class="inside">
        {error != null && <Problem title="The revisions could not be compared" error={error} />}
        {unloaded != null && <Problem title="The comparison could not be loaded" error={unloaded} />}
        {!found && error == null && <p class="quiet">Comparing…</p>}
        {found && shown === "steps" && <PlanView plan={{ ...found.plan, memory: [] }} />}
        {found && shown === "text" && (view ? <view.component before={found.texts[0]!} after={found.texts[1]!} /> : <p class="quiet">Loading…</p>)}
      </div>
    </section>
  );
}
