/** The captured requests, live and filtered. The address names the one that is opened. */

import { useState } from "preact/hooks";

import type { CaptureRow } from "../../api/types.ts";
import { count, moment, span } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { link, parts } from "../../shell/router.ts";
import { useCaptures } from "./follow.ts";
import { Request } from "./Request.tsx";

/** Rows that are drawn at a time. */
const PART = 200;
const NO_KEY = "no key";
const OF = "of";

/** The screen: the list, at first of one model where the address is `#/requests/of/NAME`, or one request of it. */
export function Requests() {
  const [, id, model] = parts.value;
  return id && id !== OF ? <Request key={id} id={id} /> : <List key={model} model={id === OF ? (model ?? "") : ""} />;
}

/** The columns with a filter of their own: the title of it, and the value of a row. */
const FILTERS: Record<string, [string, (row: CaptureRow) => string]> = {
  model: ["Model", (row) => row.model],
  key: ["Key", (row) => row.key ?? NO_KEY],
  route: ["Name in the request", (row) => row.route],
  result: ["Result", (row) => row.result],
};

function List({ model }: { model: string }) {
  const { rows, error, lost } = useCaptures();
  const [chosen, setChosen] = useState<Record<string, string>>({ model });
  const [most, setMost] = useState(PART);
  const shown = rows.filter((row) => Object.entries(chosen).every(([name, value]) => !value || FILTERS[name]![1](row) === value));
  return (
    <div class="screen">
      <header><h1>Requests</h1>{lost && <p role="status"><StateMark state="lost" /></p>}</header>
      {error != null && <Problem title="The requests could not be read" error={error} />}
      <section class="panel" aria-label="Captured requests">
        <header>
          {Object.entries(FILTERS).map(([name, [title, value]]) => (
            <label key={name} class="field"><span>{title}</span>
              <select class="input" value={chosen[name] ?? ""} onChange={(event) => { setChosen({ ...chosen, [name]: event.currentTarget.value }); setMost(PART); }}>
                <option value="">all</option>
                {values(rows, value, chosen[name] ?? "").map((one) => <option key={one} value={one}>{one}</option>)}
              </select>
            </label>
          ))}
          <span class="quiet grow number" role="status">{count(shown.length)} of {count(rows.length)}</span>
        </header>
        {shown.length ? <Table rows={shown.slice(0, most)} /> : (
          <Empty title={rows.length ? "No request matches" : "No request is captured"}>
            {!rows.length && <>Answered requests appear here where the manifest declares <code>observability.captures</code>.</>}
          </Empty>
        )}
        {shown.length > most && <p class="inside"><button class="button" onClick={() => setMost(most + PART)}>Show {count(Math.min(PART, shown.length - most))} more</button></p>}
      </section>
    </div>
  );
}

/** Return the values of a column in order, with the chosen one, which may have left the list. */
function values(rows: CaptureRow[], value: (row: CaptureRow) => string, chosen: string): string[] {
  return [...new Set([...rows.map(value), ...(chosen ? [chosen] : [])])].sort();
}

function Table({ rows }: { rows: CaptureRow[] }) {
  return (
    <div class="scroll">
      <table class="stacked">
        <thead>
          <tr>
            <th scope="col">When</th><th scope="col">Result</th><th scope="col">Model</th><th scope="col">Key</th>
            <th scope="col" class="number">Prompt</th><th scope="col" class="number">Cached</th><th scope="col" class="number">Answer</th>
            <th scope="col" class="number">First token</th><th scope="col" class="number">Total</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.id}>
              <td class="nowrap" data-label="When"><a href={link("requests", String(row.id))}>{moment(row.when)}</a></td>
              <td data-label="Result"><StateMark state={row.result} />{row.error && <span class="small block">{row.error.message}</span>}</td>
              <td data-label="Model"><a href={link("models", row.model)}>{row.model}</a> <span class="quiet small">{row.dialect}</span>{row.route !== row.model && <span class="quiet small block">asked for {row.route}</span>}</td>
              <td data-label="Key">{row.key ?? "–"}</td>
              <td class="number" data-label="Prompt">{count(row.usage.prompt_tokens)}</td>
              <td class="number" data-label="Cached">{count(row.usage.cached_tokens)}</td>
              <td class="number" data-label="Answer">{count(row.usage.completion_tokens)}</td>
              <td class="number" data-label="First token">{row.first_token === null ? "–" : span(row.first_token)}</td>
              <td class="number" data-label="Total">{span(row.seconds)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
