/** Every value of the resolved model, with the layer and the line from which it comes, and the cost of a change. */

import { useState } from "preact/hooks";

import type { ModelDocument, ModelValue } from "../../api/types.ts";
import { count } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";

const LAYERS: Record<ModelValue["layer"], string> = {
  builtin: "built in",
  defaults: "defaults",
  hardware: "hardware profile",
  like: "like",
  model: "the model",
  profile: "profile",
  command: "a command",
  applied: "the applied manifest",
};
const LONGEST = 160;

/** The table. The values that are built in are shown on demand. */
export function Values({ document }: { document: ModelDocument }) {
  const [words, setWords] = useState("");
  const [all, setAll] = useState(false);
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const stated = all || wanted.length ? document.values : document.values.filter((one) => one.layer !== "builtin");
  const shown = stated.filter((one) => wanted.every((word) => text(one).includes(word)));
  const fromFiles = Object.entries(document.from_weights);
  return (
    <section class="panel" aria-labelledby="values-title">
      <header>
        <h2 id="values-title">Resolved manifest</h2>
        <label class="field"><span class="visually-hidden">Filter the values</span>
          <input class="input" type="search" placeholder="Filter" value={words} onInput={(event) => setWords(event.currentTarget.value)} />
        </label>
        <label class="check"><input type="checkbox" checked={all} onChange={(event) => setAll(event.currentTarget.checked)} /> built-in values</label>
        <span class="quiet">{count(shown.length)} of {count(document.values.length)}</span>
      </header>
      {document.values_problem && <p class="notice flush">The lines may be unknown: {document.values_problem}</p>}
      {shown.length ? (
        <div class="scroll tall" tabIndex={0} role="region" aria-label="Values of the model">
          <table>
            <thead><tr><th scope="col">Field</th><th scope="col">Value</th><th scope="col">From</th><th scope="col">A change costs</th></tr></thead>
            <tbody>{shown.map((one) => <ValueRow key={one.path} value={one} />)}</tbody>
          </table>
        </div>
      ) : <Empty title="No value matches" />}
      {fromFiles.length > 0 && (
        <p class="inside quiet flush">From the files of the model, because the manifest states no other: {fromFiles.map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ").slice(0, 600)}</p>
      )}
    </section>
  );
}

function ValueRow({ value }: { value: ModelValue }) {
  return (
    <tr class={value.layer === "builtin" ? "quiet" : undefined}>
      <th scope="row"><code>{value.path}</code></th>
      <td class="value"><Shown value={value.value} />{value.reference && <span class="quiet small block">written as <code>{value.reference}</code></span>}</td>
      <td>
        {LAYERS[value.layer]}{value.name && value.layer !== "model" && ` ${value.name}`}
        {value.file !== null && <span class="quiet small block" title={value.file}>{value.file.split("/").at(-1)}:{value.line}</span>}
      </td>
      <td class="quiet">{value.cost}</td>
    </tr>
  );
}

function Shown({ value }: { value: unknown }) {
  const [open, setOpen] = useState(false);
  const whole = typeof value === "string" ? value : JSON.stringify(value);
  if (whole.length <= LONGEST && !whole.includes("\n")) return <code>{whole || "\"\""}</code>;
  return (
    <>
      <code class={open ? "whole" : undefined}>{open ? whole : `${whole.slice(0, LONGEST).replaceAll("\n", " ")}…`}</code>
      <button class="button plain small" aria-expanded={open} onClick={() => setOpen(!open)}>{open ? "Less" : `All ${count(whole.length)} characters`}</button>
    </>
  );
}

function text(value: ModelValue): string {
  return [value.path, JSON.stringify(value.value), LAYERS[value.layer], value.name, value.file ?? "", value.cost].join(" ").toLowerCase();
}
