/** One repository of the hub: its files, rated for the free memory of this machine. */

import { useEffect, useState } from "preact/hooks";

import { ApiError, ask, key } from "../../api/client.ts";
import type { HubRepository } from "../../api/types.ts";
import { visible } from "../../format/text.ts";
import { bytes, count } from "../../format/units.ts";
import { Bar } from "../../parts/Bar.tsx";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { link } from "../../shell/router.ts";
import { returns } from "../../state/live.ts";
import { propose } from "../../state/proposal.ts";

const CONTEXTS = [2048, 4096, 8192, 16384, 32768, 65536, 131072];
const USUAL = 8192;

type Rating = HubRepository["quants"][number];

const STATES: Record<Rating["status"], { state: string; word: string }> = {
  recommended: { state: "ready", word: "recommended" },
  fits: { state: "ok", word: "fits" },
  hybrid: { state: "degraded", word: "partly in main memory" },
  "too large": { state: "failed", word: "too large" },
};

/** Show a repository by its name. */
export function Repository({ source }: { source: string }) {
  const [found, setFound] = useState<HubRepository | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [context, setContext] = useState(USUAL);
  const [busy, setBusy] = useState(true);
  useEffect(() => {
    const stop = new AbortController();
    setBusy(true);
    setError(null);
    ask<HubRepository>(`api/v1/hub/repository?${new URLSearchParams({ source, context_size: String(context) })}`, { signal: stop.signal })
      .then(setFound, (failure) => { if (!stop.signal.aborted) setError(failure); })
      .finally(() => { if (!stop.signal.aborted) setBusy(false); });
    return () => stop.abort();
  }, [source, context, key.value, returns.value]);
  return (
    <div class="screen">
      <header>
        <h1 class="repository">{source}</h1>
        <p><a href={link("fetch")}>Search</a></p>
      </header>
      {error != null && <Problem title="The repository could not be read" error={error} />}
      {!found && busy && <p class="quiet" aria-busy="true">Reading the list of files and one header…</p>}
      {found && (
        <>
          <p class="quiet facts-line">
            {[room(found), found.task, found.license && `license ${found.license}`, `${count(found.downloads)} downloads`, found.updated && `updated ${found.updated.slice(0, 10)}`].filter(Boolean).join(" · ")}
            {found.gated && <> <span class="tag">gated</span> its owner must grant access, and the server needs a token: <code>mullama login</code></>}
          </p>
          <section class="panel" aria-labelledby="quants-title">
            <header>
              <h2 id="quants-title">Files for this machine</h2>
              <label class="inline-field">
                <span class="quiet">Context of each request</span>
                <select class="input" aria-label="Context of each request" value={context} disabled={busy} onChange={(event) => setContext(Number(event.currentTarget.value))}>
                  {CONTEXTS.map((size) => <option key={size} value={size}>{count(size)} tokens</option>)}
                </select>
              </label>
            </header>
            {found.context_size !== null && found.context_size < context && (
              <p class="notice">The model was trained with {count(found.context_size)} tokens, for which the files are rated.</p>
            )}
            {found.error && <div class="inside"><Problem title="The files cannot be rated" error={new ApiError(0, found.error.kind, found.error.message, found.error.hint)} /></div>}
            {found.quants.length > 0 && <Ratings found={found} context={Math.min(context, found.context_size ?? context)} />}
            {found.quants.length === 0 && <Files found={found} />}
          </section>
        </>
      )}
    </div>
  );
}

function room(found: HubRepository): string {
  const { devices, ram_available } = found.machine;
  const free = devices.map((one) => `${bytes(one.free)} free on ${one.name}`);
  return [...free, `${bytes(ram_available)} of main memory free`].join(", ");
}

function Ratings({ found, context }: { found: HubRepository; context: number }) {
  const [chosen, setChosen] = useState<string | null>(null);
  const added = found.quants.find((one) => one.quant === chosen);
  return (
    <>
      <div class="scroll">
        <table class="stacked">
          <thead>
            <tr>
              <th scope="col">Quantization</th><th scope="col">Fit</th><th scope="col">Quality</th><th scope="col" class="number">Download</th>
              <th scope="col" class="number">Memory</th><th scope="col">Share of the free memory</th><th scope="col" class="number">Room for context</th>
              <th scope="col"><span class="visually-hidden">Actions</span></th>
            </tr>
          </thead>
          <tbody>
            {found.quants.map((one) => (
              <tr key={one.quant}>
                <th scope="row" class="model">{one.quant}</th>
                <td class="wide"><StateMark {...STATES[one.status]} /></td>
                <td data-label="Quality">{one.quality}</td>
                <td class="number" data-label="Download">{bytes(one.size_bytes)}</td>
                <td class="number" data-label="Memory">{bytes(one.memory_bytes)}</td>
                <td data-label="Share of the free memory"><Bar value={one.share} whole={1} label={`${Math.round(one.share * 100)} % of the free memory`} /><span class="small quiet">{Math.round(one.share * 100)} %</span></td>
                <td class="number" data-label="Room for context">{one.context_room ? `${count(one.context_room)} tok` : "–"}</td>
                <td class="number wide">
                  <button class={one.status === "recommended" ? "button main" : "button"} aria-expanded={chosen === one.quant} onClick={() => setChosen(chosen === one.quant ? null : one.quant)}>
                    Add to the manifest<span class="visually-hidden"> {one.quant}</span>
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {added && <Add key={added.quant} one={added} context={context} />}
    </>
  );
}

/** The name of the new entry, and the way to its plan. */
function Add({ one, context }: { one: Rating; context: number }) {
  const [name, setName] = useState(one.name);
  const [load, setLoad] = useState("at_start");
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    const residency = load === "at_start" ? {} : { residency: { load } };
    try {
      await propose(["models", name.trim()], { from: one.source, context: { size: context }, ...residency });
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return (
    <form class="inside add-model" aria-label={`Add ${one.quant}`} onSubmit={(event) => void submit(event)}>
      <label class="field"><span>Name of the model</span><input class="input" value={name} required onInput={(event) => setName(event.currentTarget.value)} /></label>
      <label class="field"><span>Load it</span>
        <select class="input" value={load} onChange={(event) => setLoad(event.currentTarget.value)}>
          <option value="at_start">at the start</option>
          <option value="on_demand">on demand</option>
        </select>
      </label>
      <button class="button main" disabled={busy || !name.trim()}>{busy ? "Opening the plan…" : "Show the plan"}</button>
      <p class="quiet small">The entry is added to the draft on the screen Plan. Nothing is saved or downloaded before you apply it there.</p>
      {error != null && <Problem title="The entry was not added" error={error} />}
    </form>
  );
}

function Files({ found }: { found: HubRepository }) {
  if (!found.files.length) return <Empty title="This repository has no GGUF file">Look for a conversion of it: its name often ends in GGUF.</Empty>;
  return (
    <div class="scroll">
      <table>
        <thead><tr><th scope="col">File</th><th scope="col">Quantization</th><th scope="col" class="number">Size</th></tr></thead>
        <tbody>
          {found.files.map((file) => (
            <tr key={file.name}>
              <th scope="row" class="model repository">{visible(file.name)}</th>
              <td>{file.quantization || "–"}</td>
              <td class="number">{file.size === null ? "unknown" : bytes(file.size)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
