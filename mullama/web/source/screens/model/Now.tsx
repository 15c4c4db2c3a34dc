/** The facts of a model as they are now. */

import type { Model, ModelDocument } from "../../api/types.ts";
import { bytes, count, digest, moment } from "../../format/units.ts";
import { Bar } from "../../parts/Bar.tsx";
import { Sparkline } from "../../parts/Sparkline.tsx";
import { link } from "../../shell/router.ts";
import { speeds, status } from "../../state/live.ts";

/** State, memory, load, source and worker. */
export function Now({ model, document }: { model: Model; document: ModelDocument | null }) {
  const { draft } = model;
  return (
    <section class="panel" aria-labelledby="now-title">
      <header><h2 id="now-title">Now</h2></header>
      <dl class="facts details">
        {model.progress !== null && (
          <><dt>Load</dt><dd>{Math.round(model.progress * 100)} %<Bar value={model.progress} whole={1} label={`${Math.round(model.progress * 100)} % loaded`} ends /></dd></>
        )}
        <dt>Requests</dt>
        <dd>{model.active} of {model.parallel} at once{model.waiting > 0 && `, ${count(model.waiting)} waiting`}</dd>
        <dt>Tokens/s</dt><dd><Speed name={model.name} /></dd>
        <dt>Memory</dt><dd><Memory model={model} /></dd>
        <dt>Context</dt><dd>{count(model.context_size)} tokens</dd>
        <dt>Residency</dt><dd>{residency(model)}</dd>
        {draft && <><dt>Guesses</dt><dd>{draft.kind}, {count(draft.accepted)} of {count(draft.guessed)} accepted</dd></>}
        <dt>Source</dt><dd>{model.source} <span class="quiet">{bytes(model.size)}, <code title={model.digest}>{digest(model.digest) || "no digest"}</code></span></dd>
        <dt>Revision</dt>
        <dd><a href={link("history", String(model.generation))}>{model.generation}</a> <code class="quiet" title={model.revision}>{digest(model.revision)}</code></dd>
        {document && document.capabilities.length > 0 && <><dt>Abilities</dt><dd>{document.capabilities.join(", ")}</dd></>}
        {document?.worker && (
          <><dt>Worker</dt><dd>process {document.worker.pid}, {document.worker.version || document.worker.engine}{document.worker.remark && <span class="block">{document.worker.remark}</span>}</dd></>
        )}
      </dl>
    </section>
  );
}

function Memory({ model }: { model: Model }) {
  if (!model.memory) return <span class="quiet">not loaded</span>;
  return (
    <>
      {bytes(model.memory)}
      {model.shared_with && <span class="quiet"> of which {bytes(model.memory - model.memory_own)} shared with <a href={link("models", model.shared_with)}>{model.shared_with}</a></span>}
      {model.devices.length > 0 && (
        <ul class="quiet">{model.devices.map((device) => <li key={device.name}>{device.name} {bytes(device.bytes)}</li>)}</ul>
      )}
    </>
  );
}

function residency(model: Model): string {
  const begins = model.load === "at_start" ? "loads at start" : model.load === "when_room" ? "loads where there is room" : "loads on demand";
  if (model.expires !== null) return `${begins}, unloads at ${moment(model.expires)} if idle`;
  return model.ttl === null ? `${begins}, stays` : begins;
}

function Speed({ name }: { name: string }) {
  const values = speeds(name);
  const now = values.at(-1) ?? 0;
  return (
    <span class="speed">
      <Sparkline values={values} label={`tokens each second of ${name}`} />
      <span class="number">{status.value && now ? now.toFixed(now < 10 ? 1 : 0) : "–"}</span>
    </span>
  );
}
