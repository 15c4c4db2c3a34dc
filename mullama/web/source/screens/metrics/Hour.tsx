/** The charts of the last minutes, with one cursor and the changes of the manifest. */

import { useEffect, useState } from "preact/hooks";

import { ask, key } from "../../api/client.ts";
import type { MetricsHistory } from "../../api/types.ts";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { link, open } from "../../shell/router.ts";
import { models, returns } from "../../state/live.ts";
import { Chart } from "./Chart.tsx";
import { plots } from "./charts.ts";
import { Facts } from "./Facts.tsx";
import { Marks } from "./Marks.tsx";

const RANGES: Record<string, { title: string; seconds: number }> = {
  "5m": { title: "5 min", seconds: 300 },
  "15m": { title: "15 min", seconds: 900 },
  "1h": { title: "1 hour", seconds: 3600 },
};
const USUAL = "15m";

/** Charts of one range, of all models or of one. */
export function Hour({ range, model }: { range: string; model: string }) {
  const name = range in RANGES ? range : USUAL;
  const { history, error } = useHistory(name, model);
  const names = [...new Set([...models.value.map((one) => one.name), ...(model ? [model] : [])])];
  const idle = history !== null && !history.whole.seconds;
  return (
    <>
      <div class="toolbar">
        <nav class="choices" aria-label="Time">
          {Object.entries(RANGES).map(([key, { title }]) => (
            <a key={key} href={link("metrics", key, ...(model ? [model] : []))} aria-current={key === name ? "true" : undefined}>{title}</a>
          ))}
        </nav>
        <label class="inline-field">
          <span class="quiet">Model</span>
          <select class="input" aria-label="Model" value={model} onChange={(event) => open("metrics", name, ...(event.currentTarget.value ? [event.currentTarget.value] : []))}>
            <option value="">All models</option>
            {names.map((one) => <option key={one} value={one}>{one}</option>)}
          </select>
        </label>
      </div>
      {error != null && <Problem title="The metrics could not be read" error={error} />}
      {!history && error == null && <p class="quiet" aria-busy="true">Loading…</p>}
      {idle && (
        <section class="panel"><Empty title="No sample yet">The server takes one every {history.interval} seconds from its start on, and keeps an hour of them. No setting is needed.</Empty></section>
      )}
      {history && !idle && (
        <>
          <Facts history={history} model={model} />
          <div class="charts">
            {plots(history, model).map((plot) => (
              <Chart key={plot.title} plot={plot} when={history.when} until={history.now} seconds={RANGES[name]!.seconds} marks={history.marks} />
            ))}
          </div>
          <Marks marks={history.marks} />
        </>
      )}
    </>
  );
}

/** Read the history again after each step, while the page is visible. */
function useHistory(range: string, model: string) {
  const [answer, setAnswer] = useState<{ range: string; model: string; history: MetricsHistory } | null>(null);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    let timer: number | undefined;
    let ended = false;
    const read = async () => {
      clearTimeout(timer);
      let pause = 5;
      if (!document.hidden) {
        const query = new URLSearchParams({ since: range, ...(model && { model }) });
        try {
          const found = await ask<MetricsHistory>(`api/v1/metrics/history?${query}`);
          if (ended) return;
          setAnswer({ range, model, history: found });
          setError(null);
          pause = found.step;
        } catch (failure) {
          if (ended) return;
          setError(failure);
        }
      }
      timer = setTimeout(() => void read(), pause * 1000) as unknown as number;
    };
    const shown = () => { if (!document.hidden) void read(); };
    document.addEventListener("visibilitychange", shown);
    void read();
    return () => {
      ended = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", shown);
    };
  }, [range, model, key.value, returns.value]);
  const current = answer?.range === range && answer.model === model; // else that of an earlier choice
  return { history: current ? answer.history : null, error };
}
