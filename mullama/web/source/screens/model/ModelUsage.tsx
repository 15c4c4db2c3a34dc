/** Requests and tokens of a model over the last day or month. */

import { useState } from "preact/hooks";

import type { UsageRow } from "../../api/types.ts";
import { count, counted } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { useAnswer } from "../../parts/useAnswer.ts";

const TIMES = {
  day: { since: "24h", span: "hour", seconds: 3600, places: 24, words: "last 24 hours" },
  month: { since: "30d", span: "day", seconds: 86400, places: 30, words: "last 30 days" },
} as const;

/** The sums, and one bar for each hour or day, read again when the number of running requests changes. */
export function ModelUsage({ name, active }: { name: string; active: number }) {
  const [time, setTime] = useState<keyof typeof TIMES>("day");
  const { since, span, words } = TIMES[time];
  const { found, error } = useAnswer<{ rows: UsageRow[] }>(`api/v1/usage?since=${since}&by=model&span=${span}`, active);
  const rows = found?.rows.filter((row) => row.model === name);
  return (
    <section class="panel" aria-labelledby="usage-title">
      <header>
        <h2 id="usage-title">Usage</h2>
        <label class="field"><span class="visually-hidden">Time of the usage</span>
          <select class="input" value={time} onChange={(event) => setTime(event.currentTarget.value as keyof typeof TIMES)}>
            <option value="day">last 24 hours</option><option value="month">last 30 days</option>
          </select>
        </label>
      </header>
      {error != null && <div class="inside"><Problem title="The usage could not be read" error={error} /></div>}
      {rows && (rows.length ? <Sums rows={rows} time={time} /> : <Empty title={`No request in the ${words}`} />)}
    </section>
  );
}

function Sums({ rows, time }: { rows: UsageRow[]; time: keyof typeof TIMES }) {
  const { places, seconds, words, span } = TIMES[time];
  const sum = (field: keyof UsageRow) => rows.reduce((total, row) => total + Number(row[field] ?? 0), 0);
  const last = Math.floor(Date.now() / 1000 / seconds) * seconds;
  const at = new Map(rows.map((row) => [row.start, row.prompt_tokens + row.generated_tokens]));
  const values = Array.from({ length: places }, (_, place) => at.get(last - (places - 1 - place) * seconds) ?? 0);
  const top = Math.max(1, ...values);
  const failed = sum("errors") + sum("cancelled");
  return (
    <div class="inside">
      <svg class="bars" viewBox={`0 0 ${places * 10} 40`} preserveAspectRatio="none" role="img" aria-label={`tokens each ${span} over the ${words}, at most ${count(top)}`}>
        {values.map((value, place) => <rect key={place} class={value ? "bar-value" : "bar-ground"} x={place * 10 + 1} width="8" y={40 - Math.max(1, (38 * value) / top)} height={Math.max(1, (38 * value) / top)} />)}
      </svg>
      <dl class="facts">
        <dt>Requests</dt><dd>{count(sum("requests"))}{failed > 0 && `, ${counted(sum("errors"), "error")}, ${count(sum("cancelled"))} cancelled`}</dd>
        <dt>Prompts</dt><dd>{counted(sum("prompt_tokens"), "token")}, {count(sum("cached_tokens"))} of them cached</dd>
        <dt>Answers</dt><dd>{counted(sum("generated_tokens"), "token")}</dd>
      </dl>
    </div>
  );
}
