/** The manifest against the server: edited, checked and planned as it is written, saved and applied. */

import { useState } from "preact/hooks";

import type { Mistake } from "../../api/types.ts";
import { counted, digest } from "../../format/units.ts";
import { CopyButton } from "../../parts/CopyButton.tsx";
import { download } from "../../parts/download.ts";
import { PlanView } from "../../parts/PlanView.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { failed } from "../../parts/progress.ts";
import { Progress } from "../../parts/Progress.tsx";
import { useRun } from "../../parts/useRun.ts";
import { refusedStorage } from "../../state/browserStorage.ts";
import { connection, status } from "../../state/live.ts";
import { Editor, type Place } from "./Editor.tsx";
import { Mistakes } from "./Mistakes.tsx";
import { Profiles } from "./Profiles.tsx";
import { type ManifestState, useManifest } from "./useManifest.ts";

/** The screen. */
export function Plan() {
  const manifest = useManifest();
  const [changes, setChanges] = useState(false);
  const [place, setPlace] = useState<Place | null>(null);
  const { file, text, edited, stale } = manifest;
  if (!file) {
    return manifest.readError ? <Problem title="The manifest could not be read" error={manifest.readError} /> : <p class="quiet">Loading…</p>;
  }
  const mistakes = manifest.result?.problems ?? [];
  const jump = ({ line, column }: Mistake) => setPlace({ line: line!, column: column ?? 1 });
  return (
    <div class="screen">
      <header>
        <h1>Plan</h1>
        <p class="quiet"><code>{file.path}</code>{status.value?.origin.commit && <> at commit <code title={status.value.origin.commit}>{digest(status.value.origin.commit)}</code></>}</p>
      </header>
      {file.readonly && <p class="notice">This file cannot be saved here: {file.readonly}. Download or copy the text, and change it at its source.</p>}
      {edited && refusedStorage.value && (
        <p class="notice" role="status">This browser does not keep the draft: {refusedStorage.value}. The text stays until this tab is closed; a download keeps it.</p>
      )}
      {stale && (
        <div class="notice" role="alert">
          <p>The file was changed by others since this text was begun. A save would overwrite that.</p>
          <p class="actions">
            <button class="button" onClick={() => { manifest.rebase(); setChanges(true); }}>Keep my text, and show what differs</button>
            <button class="button" onClick={manifest.discard}>Take the file</button>
          </p>
        </div>
      )}
      <div class="planning">
        <section class="panel" aria-label="Manifest">
          <header>
            <h2>Manifest {edited && <span class="tag">edited</span>}</h2>
            <label><input type="checkbox" checked={changes} onChange={(event) => setChanges(event.currentTarget.checked)} /> Show changes</label>
            <button class="button" disabled={!edited} onClick={manifest.discard}>Discard</button>
            <CopyButton text={() => text} />
            <button class="button" onClick={() => download(text, "mullama.yaml", "application/yaml")}>Download</button>
          </header>
          <Editor text={text} version={manifest.version} original={file.text} changes={changes} mistakes={mistakes} path={file.path} place={place} change={manifest.write} />
          <p class="quiet small below">Ctrl+Space completes. Tab indents; Escape and then Tab leaves the editor.</p>
        </section>
        <Steps manifest={manifest} jump={jump} />
      </div>
    </div>
  );
}

/** The mistakes or the plan, with the button that applies it. */
function Steps({ manifest, jump }: { manifest: ManifestState; jump: (mistake: Mistake) => void }) {
  const run = useRun("manifest");
  const { file, text, edited, chosen, result, current, stale } = manifest;
  if (!file) return null;
  const mistakes = result?.problems ?? [];
  const plan = result?.plan;
  const other = chosen.join() !== file.profiles.join();
  const empty = plan?.steps.length === 0 && plan.drift.length === 0;
  const removed = plan?.steps.filter((step) => step.kind === "model" && step.action === "remove").length ?? 0;
  const held = status.value?.conditions.find((one) => one.type === "Synced" && one.reason === "Held");
  const begin = async () => {
    manifest.sent(text);
    const saved = await run.begin("api/v1/manifest", {
      method: "PUT",
      headers: { "if-match": `"${plan?.base ?? file.revision}"` },
      body: JSON.stringify({ text, digest: manifest.base, profiles: chosen, allow_empty: result?.removes_all ?? false }),
    });
    await manifest.reread(saved);
  };
  const words = [
    held && !edited ? "Confirm and apply" : edited ? "Save and apply" : "Apply",
    other && (chosen.length ? `with ${chosen.join(", ")}` : "without profiles"),
    removed > 0 && `and remove ${result?.removes_all ? "all models" : counted(removed, "model")}`,
  ];
  return (
    <section class="panel" aria-label="Plan">
      <header>
        <h2>{mistakes.length ? counted(mistakes.length, "mistake") : "Against the server"}</h2>
        <button
          class={removed ? "button danger" : "button main"}
          disabled={run.running || !!file.readonly || !current || mistakes.length > 0 || !plan || (empty && !edited && !other)}
          onClick={() => void begin()}
        >
          {run.running ? "Applying…" : words.filter(Boolean).join(" ")}
        </button>
      </header>
      <div class="inside">
        <Profiles known={manifest.known} chosen={chosen} followed={file.profiles} choose={manifest.choose} />
        {manifest.readError != null && <Problem title="The file could not be read again" error={manifest.readError} />}
        {manifest.planError != null && <Problem title="The text could not be planned" error={manifest.planError} />}
        {run.error != null && <Problem title={run.unsure ? "The result is not known" : run.progress?.committed ? "Only a part was applied" : "Nothing was saved"} error={run.error} />}
        {run.progress && <Progress progress={run.progress} />}
        {run.progress && failed(run.progress) && !edited && !stale && <p class="notice">The file is saved with this text. The server serves {run.progress.committed ? "what was applied of it" : "what it served before"}.</p>}
        {held && !edited && !stale && <p class="notice"><strong>Held.</strong> The saved file {held.message.split(";")[0]} models, so it waits for a confirmation.</p>}
        {result && !current && connection.value === "lost" && <p class="notice">This is an earlier plan. The new one is made when the server answers again.</p>}
        {mistakes.length > 0 && <Mistakes mistakes={mistakes} path={file.path} jump={jump} />}
        {result?.warnings.map((one, index) => <p key={index} class="notice">{one.line !== null && `line ${one.line}: `}{one.message}</p>)}
        {plan ? <PlanView plan={plan} /> : !result && manifest.planError == null && <p class="quiet">{connection.value === "lost" ? "The text is planned when the server answers again." : "Planning…"}</p>}
      </div>
    </section>
  );
}
