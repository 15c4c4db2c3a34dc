/** The manifest against the server: edited, checked and planned as it is written, saved and applied. */

import { useEffect, useRef, useState } from "preact/hooks";

import { ask } from "../../api/client.ts";
import { jsonLines } from "../../api/streams.ts";
import type { ApplyLine, ManifestText, TextPlan } from "../../api/types.ts";
import { download } from "../../parts/download.ts";
import { PlanView } from "../../parts/PlanView.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { Progress } from "../../parts/Progress.tsx";
import { status } from "../../state/live.ts";
import { Editor } from "./Editor.tsx";

const DRAFT = "mullama-draft";
const PAUSE = 400; // milliseconds without a key before the text is planned

/** The screen. */
export function Plan() {
  const [file, setFile] = useState<ManifestText | null>(null);
  const [text, setText] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [result, setResult] = useState<TextPlan | null>(null);
  const [planError, setPlanError] = useState<unknown>(null);
  const [changes, setChanges] = useState(false);
  const [lines, setLines] = useState<ApplyLine[]>([]);
  const [running, setRunning] = useState(false);
  const revision = status.value?.revision;

  const read = async (keep: boolean) => {
    try {
      const found = await ask<ManifestText>("api/v1/manifest");
      const draft = sessionStorage.getItem(DRAFT);
      setFile(found);
      setText(keep && draft !== null ? draft : found.text);
      setError(null);
      if (!keep) sessionStorage.removeItem(DRAFT);
    } catch (failure) {
      setError(failure);
    }
  };
  useEffect(() => void read(true), []);

  const latest = useRef(0);
  useEffect(() => {
    if (!file) return;
    if (text !== file.text) sessionStorage.setItem(DRAFT, text);
    const turn = (latest.current += 1);
    const timer = setTimeout(() => {
      ask<TextPlan>("api/v1/manifest/plan", { method: "POST", body: JSON.stringify({ text }) }).then(
        (found) => { if (turn === latest.current) { setResult(found); setPlanError(null); } },
        (failure) => { if (turn === latest.current) setPlanError(failure); },
      );
    }, PAUSE);
    return () => clearTimeout(timer);
  }, [file, text, revision]);

  const save = async () => {
    if (!file) return;
    setRunning(true);
    setLines([]);
    setPlanError(null);
    try {
      const request = {
        method: "PUT",
        headers: { "if-match": `"${revision ?? file.revision}"` },
        body: JSON.stringify({ text, digest: file.digest }),
      };
      for await (const line of jsonLines<ApplyLine>("api/v1/manifest", request)) {
        if (line.event === "error") throw new Error([line.error?.message, line.error?.hint].filter(Boolean).join(" – "));
        setLines((before) => [...before, line]);
      }
      await read(false);
    } catch (failure) {
      setPlanError(failure);
    } finally {
      setRunning(false);
    }
  };

  if (error) return <Problem title="The manifest could not be read" error={error} />;
  if (!file) return <p class="quiet">Loading…</p>;
  const edited = text !== file.text;
  const mistakes = result?.problems ?? [];
  const empty = result?.plan?.steps.length === 0 && result.plan.drift.length === 0;
  return (
    <div class="screen">
      <header>
        <h1>Plan</h1>
        <p class="quiet"><code>{file.path}</code>{file.profiles.length > 0 && <> with {file.profiles.join(", ")}</>}</p>
      </header>
      {file.readonly && <p class="notice">This file cannot be saved here: {file.readonly}. Download the text, and change it at its source.</p>}
      <div class="planning">
        <section class="panel" aria-label="Manifest">
          <header>
            <h2>Manifest {edited && <span class="tag">edited</span>}</h2>
            <label><input type="checkbox" checked={changes} onChange={(event) => setChanges(event.currentTarget.checked)} /> Show changes</label>
            <button class="button" disabled={!edited || running} onClick={() => void read(false)}>Discard</button>
            <button class="button" onClick={() => download(text, "mullama.yaml", "application/yaml")}>Download</button>
          </header>
          <Editor text={text} original={file.text} changes={changes} mistakes={mistakes} change={setText} />
        </section>
        <section class="panel" aria-label="Plan">
          <header>
            <h2>{mistakes.length ? "Mistakes" : "Against the server"}</h2>
            <button class="button main" disabled={running || !!file.readonly || mistakes.length > 0 || !result?.plan || (empty && !edited)} onClick={() => void save()}>
              {running ? "Applying…" : edited ? "Save and apply" : "Apply"}
            </button>
          </header>
          <div class="inside">
            {planError != null && <Problem title="Nothing was changed" error={planError} />}
            {mistakes.map((one, index) => (
              <div key={index} class="problem">
                <p><strong>{one.line !== null && `line ${one.line}: `}{one.path}</strong> {one.message}</p>
                {one.hint && <p class="quiet">{one.hint}</p>}
              </div>
            ))}
            {lines.length > 0 && <Progress lines={lines} />}
            {result?.warnings.map((one, index) => <p key={index} class="notice">{one.line !== null && `line ${one.line}: `}{one.message}</p>)}
            {result?.plan && <PlanView plan={result.plan} />}
          </div>
        </section>
      </div>
    </div>
  );
}
