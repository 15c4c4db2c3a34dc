/** The table of models. */

import { memo } from "preact/compat";

import type { Model } from "../../api/types.ts";
import { bytes, count, digest, moment } from "../../format/units.ts";
import { Bar } from "../../parts/Bar.tsx";
import { Hint } from "../../parts/Hint.tsx";
import { Sparkline } from "../../parts/Sparkline.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { link } from "../../shell/router.ts";
import { failures, generating, speeds, status } from "../../state/live.ts";

/** One row for each model: the declared revision against the running one, its state, memory and load. */
export function Models({ models }: { models: Model[] }) {
  return (
    <div class="scroll">
      <table class="stacked">
        <thead>
          <tr>
            <th scope="col">Model</th>
            <th scope="col">State</th>
            <th scope="col">Source</th>
            <th scope="col" class="number">Memory</th>
            <th scope="col" class="number">Requests</th>
            <th scope="col" class="number">Tokens/s</th>
          </tr>
        </thead>
        <tbody>{models.map((model) => <Row key={model.name} model={model} />)}</tbody>
      </table>
    </div>
  );
}

const NONE: number[] = [];

/** A row changes only with its model; the speed has a component of its own, which changes each second. */
const Row = memo(function Row({ model }: { model: Model }) {
  return (
    <tr>
      <th scope="row" class="model">
        <a href={link("models", model.name)}>{model.name}</a>
        {model.is_default && <span class="tag">default</span>}
        {model.beside_manifest && <span class="tag">added by a command</span>}
      </th>
      <td class="wide">
        <StateMark state={model.state} />
        {model.progress !== null && <Bar value={model.progress} whole={1} label={`${Math.round(model.progress * 100)} % loaded`} />}
        <Reasons model={model} />
        <LastError model={model} />
      </td>
      <td class="source wide">
        <span>{model.source}</span>
        <span class="quiet small">{model.conditions.some((one) => one.reason === "OldRevisionKept") ? "▲ runs the old revision" : "runs"} {digest(model.revision)}, of revision {model.generation}</span>
        <span class="quiet small">{digest(model.digest)} · {bytes(model.size)} · context {count(model.context_size)}</span>
      </td>
      <td class="number" data-label="Memory">
        {model.memory_own ? bytes(model.memory_own) : <span class="quiet">–</span>}
        {model.shared_with && <span class="quiet small block">shared with {model.shared_with}</span>}
      </td>
      <td class="number" data-label="Requests">
        {model.active} <span class="quiet">of {model.parallel}</span>
        {model.waiting > 0 && <span class="small block">{count(model.waiting)} waiting</span>}
      </td>
      <td class="number" data-label="Tokens/s"><Speed name={model.name} /></td>
    </tr>
  );
});

/** The newest failure of the model, which may have passed, unless a condition states it. */
function LastError({ model }: { model: Model }) {
  const last = failures.value.get(model.name);
  return last && !model.conditions.some((one) => one.message && last.message.includes(one.message)) ? <span class="small quiet block">last error {moment(last.when)}: {last.message || last.kind}</span> : null;
}

function Reasons({ model }: { model: Model }) {
  const shown = model.conditions.filter((one) => one.message || (one.type !== "Ready" && one.status));
  const once = shown.filter((one, place) => shown.findIndex((first) => first.reason === one.reason && first.message === one.message) === place);
  return <>{once.map((one) => <span key={one.type} class="small block">{one.reason}: {one.message}{one.status === (one.type === "Ready") ? null : <Hint text={one.hint} />}</span>)}</>;
}

/** The speed of a model. One that generated nothing takes no part in the updates of each second. */
function Speed({ name }: { name: string }) {
  if (generating.value.split("\n").includes(name)) return <Course name={name} />;
  return <span class="speed"><Sparkline values={NONE} label={`no tokens of ${name}`} /><span class="number">–</span></span>;
}

function Course({ name }: { name: string }) {
  const values = speeds(name);
  const now = values.at(-1) ?? 0;
  const live = status.value !== null;
  return (
    <span class="speed">
      <Sparkline values={values} label={`tokens each second of ${name}`} />
      <span class="number">{live && now ? now.toFixed(now < 10 ? 1 : 0) : "–"}</span>
    </span>
  );
}
