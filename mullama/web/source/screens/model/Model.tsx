/** One model: its state and commands, values with their origins, template, files, contexts, usage and log. */

import { nameInPath } from "../../api/client.ts";
import type { Model as Row, ModelDocument } from "../../api/types.ts";
import { Problem } from "../../parts/Problem.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { useAnswer } from "../../parts/useAnswer.ts";
import { link, parts } from "../../shell/router.ts";
import { models, refusal, status } from "../../state/live.ts";
import { Actions } from "./Actions.tsx";
import { Conditions } from "./Conditions.tsx";
import { Contexts } from "./Contexts.tsx";
import { Files } from "./Files.tsx";
import { ModelEvents } from "./ModelEvents.tsx";
import { ModelRequests } from "./ModelRequests.tsx";
import { ModelUsage } from "./ModelUsage.tsx";
import { Now } from "./Now.tsx";
import { Routes } from "./Routes.tsx";
import { Template } from "./Template.tsx";
import { Values } from "./Values.tsx";
import { WorkerLog } from "./WorkerLog.tsx";

/** The screen of the model that the address names; a route shows its model. */
export function Model() {
  const name = parts.value[1] ?? "";
  const row = models.value.find((model) => model.name === name);
  const { known, error } = useDocument(name, row);
  const live = row ?? known?.model;
  if (!live) {
    const failure = error ?? refusal.value;
    return failure ? <Missing name={name} error={failure} /> : <p class="quiet" aria-busy="true">Loading…</p>;
  }
  return (
    <div class="screen" key={live.name}>
      <header>
        <h1>{live.name}</h1>
        <StateMark state={live.state} />
        {live.is_default && <span class="tag">default</span>}
        {live.beside_manifest && <span class="tag">added by a command</span>}
        {known && known.aliases.length > 0 && <span class="quiet">also {known.aliases.join(", ")}</span>}
      </header>
      <Actions model={live} />
      <Conditions model={live} />
      {error != null && <Problem title="The model could not be read" error={error} />}
      <div class="model-columns">
        <div class="stack">
          <Now model={live} document={known} />
          <Routes name={live.name} />
          {known && <Contexts document={known} />}
          {known && <Files files={known.files} />}
          <ModelUsage name={live.name} active={live.active} />
        </div>
        <div class="stack">
          {known && <Values document={known} />}
          {known && <Template document={known} ready={live.state === "ready"} />}
          <ModelRequests name={live.name} active={live.active} />
          <ModelEvents name={live.name} />
          <WorkerLog name={live.name} worker={live.worker} />
        </div>
      </div>
    </div>
  );
}

function Missing({ name, error }: { name: string; error: unknown }) {
  return (
    <div class="screen">
      <header><h1>{name}</h1></header>
      <Problem title="The model could not be read" error={error} />
      <p><a href={link()}>All models</a></p>
    </div>
  );
}

/** Return the document of a model, read again whenever the model or the revision changes. */
function useDocument(name: string, row: Row | undefined): { known: ModelDocument | null; error: unknown } {
  const version = row && [row.state, row.revision, row.worker, row.active > 0, status.value?.generation].join(" ");
  const { found, error } = useAnswer<ModelDocument>(`api/v1/models/${nameInPath(name)}`, version);
  return { known: found, error };
}
