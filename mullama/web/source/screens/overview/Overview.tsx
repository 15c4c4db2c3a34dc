/** Desired against actual: one row a model, the conditions of the server, its devices and the newest events. */

import { link } from "../../shell/router.ts";
import { Empty } from "../../parts/Empty.tsx";
import { Hint } from "../../parts/Hint.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { counted, digest } from "../../format/units.ts";
import type { Status } from "../../api/types.ts";
import { refusal, status } from "../../state/live.ts";
import { Devices } from "./Devices.tsx";
import { Events } from "./Events.tsx";
import { Models } from "./Models.tsx";
import { Peers } from "./Peers.tsx";

/** The first screen. */
export function Overview() {
  const known = status.value;
  if (!known) {
    return refusal.value ? <Problem title="The status could not be read" error={refusal.value} /> : <p class="quiet">Connecting…</p>;
  }
  return (
    <div class="screen">
      <header>
        <h1>Overview</h1>
        <Manifest known={known} />
      </header>
      <Conditions known={known} />
      <section class="panel" aria-labelledby="models-title">
        <header>
          <h2 id="models-title">Models</h2>
          <span class="quiet">{known.memory.models} of {counted(known.models.length, "model")} in memory</span>
        </header>
        {known.models.length ? <Models models={known.models} /> : (
          <Empty title="No model is declared">Add one to the manifest, and run <code>mullama apply</code>.</Empty>
        )}
      </section>
      {known.peers.length > 0 && <Peers known={known} />}
      <div class="columns">
        <Devices known={known} />
        <Events />
      </div>
    </div>
  );
}

function Manifest({ known }: { known: Status }) {
  const { path, commit, profiles } = known.origin;
  return (
    <p class="quiet">
      revision <a href={link("history", String(known.generation))}>{known.generation}</a>
      {known.fleet && <> of the fleet <a href={link("fleet")}>{known.fleet.name}</a></>}
      {path && <> of <code title={path}>{path.split("/").at(-1)}</code></>}
      {commit && <> at commit <code>{digest(commit)}</code></>}
      {profiles.length > 0 && <> with {profiles.join(", ")}</>}
      {path && <> · {known.watch ? "saved changes are applied" : "not watched: mullama reload reads it"}</>}
    </p>
  );
}

/** The conditions that are not as they should be. */
function Conditions({ known }: { known: Status }) {
  const wanted: Record<string, boolean> = { ConfigValid: true, Synced: true, Degraded: false, Reconciling: false };
  const shown = known.conditions.filter((one) => one.type in wanted ? one.status !== wanted[one.type] : one.message !== "");
  if (!shown.length) return null;
  return (
    <ul class="conditions">
      {shown.map((one) => (
        <li key={one.type} class="notice">
          <strong>{one.type}: {one.reason}</strong> {one.message}
          <Hint text={one.hint} />
          {(one.reason === "Held" || one.type === "ConfigValid") && <> <a href={link("plan")}>See the plan</a></>}
        </li>
      ))}
    </ul>
  );
}
