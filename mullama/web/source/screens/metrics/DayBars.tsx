/** Tokens by day as stacked bars, one for each day. */

import type { UsageRow } from "../../api/types.ts";
import { count } from "../../format/units.ts";

const MOST = 5;
const DAY = 86400;
const HEIGHT = 100;

interface Props {
  rows: UsageRow[];
  /** The subjects, most tokens first. */
  names: string[];
  name: (row: UsageRow) => string;
  /** The first and the last day, in days since 1970. */
  first: number;
  last: number;
}

/** Draw the days; subjects beyond the largest are one part. */
export function DayBars({ rows, names, name, first, last }: Props) {
  const shown = names.slice(0, MOST);
  const labels = [...shown.map((one) => one || "without a key"), ...(names.length > MOST ? ["others"] : [])];
  const days = Array.from({ length: Math.max(1, last - first + 1) }, () => labels.map(() => 0));
  for (const row of rows) {
    const day = days[Math.round((row.start ?? 0) / DAY) - first];
    const part = shown.indexOf(name(row));
    if (day) day[part === -1 ? labels.length - 1 : part]! += row.prompt_tokens + row.generated_tokens;
  }
  const top = Math.max(1, ...days.map((day) => day.reduce((sum, one) => sum + one, 0)));
  return (
    <div class="day-bars">
      <p class="quiet small">up to {count(top)} tokens a day</p>
      <ol aria-label="Tokens by day">
        {days.map((parts, place) => {
          const all = parts.reduce((sum, one) => sum + one, 0);
          const date = new Date((first + place) * DAY * 1000).toISOString().slice(0, 10);
          const text = `${date}: ${count(all)} tokens`;
          let below = 0;
          return (
            <li key={date} title={[text, ...parts.flatMap((one, part) => (one ? [`${labels[part]}: ${count(one)}`] : []))].join("\n")}>
              <svg viewBox={`0 0 10 ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={text}>
                {parts.map((one, part) => {
                  const height = (one / top) * HEIGHT;
                  below += height;
                  return <rect key={part} class={`series-${part + 1}`} width="10" y={HEIGHT - below} height={height} />;
                })}
              </svg>
              <span class="quiet small" aria-hidden="true">{label(date, place, days.length)}</span>
            </li>
          );
        })}
      </ol>
      <ul class="legend">{labels.map((one, part) => <li key={one}><i class={`swatch series-${part + 1}`} aria-hidden="true" /> {one}</li>)}</ul>
    </div>
  );
}

/** Return the day below a bar; of many days, some have none. */
function label(date: string, place: number, days: number): string {
  const every = Math.ceil(days / 10);
  return (days - 1 - place) % every === 0 ? date.slice(5) : "";
}
