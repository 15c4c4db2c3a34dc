/** The usage of keys, models and routes by day, as bars and as a table. */

import { useState } from "preact/hooks";

import type { UsageReport, UsageRow } from "../../api/types.ts";
import { count, span } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { useAnswer } from "../../parts/useAnswer.ts";
import { DayBars } from "./DayBars.tsx";

const SUBJECTS = { model: "Model", key: "Key", route: "Route" } as const;
type Subject = keyof typeof SUBJECTS;
const DAYS = [7, 30, 90];
const DAY = 86400;

/** Show what each subject used. */
export function Usage() {
  const [by, setBy] = useState<Subject>("model");
  const [days, setDays] = useState(7);
  const { found: report, error } = useAnswer<UsageReport>(`api/v1/usage?since=${days}d&by=${by}&span=day`);
  const totals = report ? sums(report.rows, by) : [];
  return (
    <>
      <div class="toolbar">
        <Choice title="By" choices={SUBJECTS} value={by} choose={setBy} />
        <Choice title="Time" choices={Object.fromEntries(DAYS.map((one) => [one, `${one} days`]))} value={String(days)} choose={(one) => setDays(Number(one))} />
      </div>
      {error != null && <Problem title="The usage could not be read" error={error} />}
      {report && !totals.length && (
        <section class="panel">
          <Empty title={`No request in the last ${days} days`}>
            Days are kept for the time in <code>observability.usage.keep</code> of the manifest; <code>0s</code> records nothing.
          </Empty>
        </section>
      )}
      {!report && error == null && <p class="quiet" aria-busy="true">Loading…</p>}
      {report && totals.length > 0 && (
        <>
          <section class="panel" aria-labelledby="bars-title">
            <header><h2 id="bars-title">Tokens by day</h2><span class="quiet">days of UTC</span></header>
            <DayBars rows={report.rows} names={totals.map((one) => one.name)} name={(row) => named(row, by)} first={Math.ceil(report.since / DAY)} last={Math.floor(report.until / DAY)} />
          </section>
          <section class="panel" aria-label={`Usage by ${by}`}>
            <div class="scroll">
              <table class="stacked">
                <thead>
                  <tr>
                    <th scope="col">{SUBJECTS[by]}</th><th scope="col" class="number">Requests</th><th scope="col" class="number">Errors</th>
                    <th scope="col" class="number">Cancelled</th><th scope="col" class="number">Prompt tokens</th><th scope="col" class="number">Cached</th>
                    <th scope="col" class="number">Generated</th><th scope="col" class="number">Time</th>
                  </tr>
                </thead>
                <tbody>
                  {totals.map((one) => (
                    <tr key={one.name}>
                      <th scope="row" class="model">{one.name || <span class="quiet">without a key</span>}</th>
                      <td class="number" data-label="Requests">{count(one.requests)}</td>
                      <td class="number" data-label="Errors">{count(one.errors)}</td>
                      <td class="number" data-label="Cancelled">{count(one.cancelled)}</td>
                      <td class="number" data-label="Prompt tokens">{count(one.prompt_tokens)}</td>
                      <td class="number" data-label="Cached">{count(one.cached_tokens)}</td>
                      <td class="number" data-label="Generated">{count(one.generated_tokens)}</td>
                      <td class="number" data-label="Time">{span(one.seconds)}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          </section>
        </>
      )}
    </>
  );
}

function named(row: UsageRow, by: Subject): string {
  return row[by] ?? "";
}

type Sums = Omit<UsageRow, "start" | Subject> & { name: string };

/** Return the sums of each subject over all days, most tokens first. */
function sums(rows: UsageRow[], by: Subject): Sums[] {
  const found = new Map<string, Sums>();
  for (const { start, key, route, model, ...numbers } of rows) {
    const name = { key, route, model }[by] ?? "";
    const known = found.get(name);
    if (!known) found.set(name, { name, ...numbers });
    else for (const field of Object.keys(numbers) as (keyof typeof numbers)[]) known[field] += numbers[field];
  }
  return [...found.values()].sort((one, other) => tokens(other) - tokens(one));
}

function tokens(sum: Sums): number {
  return sum.prompt_tokens + sum.generated_tokens;
}

interface ChoiceProps<Key extends string> {
  title: string;
  choices: Record<Key, string>;
  value: Key;
  choose: (value: Key) => void;
}

function Choice<Key extends string>({ title, choices, value, choose }: ChoiceProps<Key>) {
  return (
    <div class="choices" role="group" aria-label={title}>
      {(Object.entries(choices) as [Key, string][]).map(([key, text]) => (
        <button key={key} type="button" aria-pressed={key === value} onClick={() => choose(key)}>{text}</button>
      ))}
    </div>
  );
}
