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
      {/* The roles are stated, because a browser may forget those of a table that is laid out as grids. */}
      <table class="stacked models" role="table">
        <thead role="rowgroup">
          <tr role="row">{COLUMNS.map(([title, kind]) => <th key={title} scope="col" role="columnheader" class={kind}>{title}</th>)}</tr>
        </thead>
        <tbody role="rowgroup">{models.map((model) => <Row key={model.name} model={model} />)}</tbody>
      </table>
    </div>
  );
}

const COLUMNS = [
  ["Model"], ["State"], ["Declared", "declared"], ["Running"], ["Source"], ["Memory", "number"], ["Requests", "number"], ["Tokens/s", "number"],
] as const;
const NONE: number[] = [];

/** A row changes only with its model; the speed has a component of its own, which changes each second. */
const Row = memo(function Row({ model }: { model: Model }) {
  return (
    <tr role="row">
      <th scope="row" role="rowheader" class="model">
        <a href={link("models", model.name)}>{model.name}</a>
        {model.is_default && <span class="tag">default</span>}
        {model.beside_manifest && <span class="tag">added by a command</span>}
      </th>
      <td role="cell" class="wide">
        <StateMark state={model.state} />
        {model.progress !== null && <Bar value={model.progress} whole={1} label={`${Math.round(model.progress * 100)} % loaded`} ends />}
        <Reasons model={model} />
        <LastError model={model} />
      </td>
      <Revisions model={model} />
      <td role="cell" class="source wide">
        <span>{model.source}</span>
        <span class="quiet small">{digest(model.digest)} · {bytes(model.size)} · context {count(model.context_size)}</span>
      </td>
      <td role="cell" class="number" data-label="Memory">
        {model.memory_own ? bytes(model.memory_own) : <span class="quiet">–</span>}
        {model.shared_with && <span class="quiet small block">shared with {model.shared_with}</span>}
      </td>
      <td role="cell" class="number" data-label="Requests">
        {model.active} <span class="quiet">of {model.parallel}</span>
        {model.waiting > 0 && <span class="small block">{count(model.waiting)} waiting</span>}
      </td>
      <td role="cell" class="number" data-label="Tokens/s"><Speed name={model.name} /></td>
    </tr>
  );
});

/** The revision that the manifest declares, and the one that serves. */
function Revisions({ model }: { model: Model }) {
  const { declared, revision, generation } = model;
  const other = declared !== null && declared !== revision;
  return (
    <>
      <td role="cell" class="declared" data-label="Declared">{declared ? <code title={declared}>{digest(declared)}</code> : <span class="quiet">not declared</span>}</td>
      <td role="cell" data-label="Running">
        <code title={revision}>{other && "▲ "}{digest(revision)}</code>
        <a class="quiet small block" href={link("history", String(generation))}>{other ? "old, " : ""}revision {generation}</a>
      </td>
    </>
  );
}

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
