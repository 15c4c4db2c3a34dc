/** The newest captured requests of a model. */

import { ApiError } from "../../api/client.ts";
import type { CaptureRow } from "../../api/types.ts";
import { count, moment, span } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { useAnswer } from "../../parts/useAnswer.ts";
import { link } from "../../shell/router.ts";

const SHOWN = 8;

/** The list, read again when the number of running requests changes. */
export function ModelRequests({ name, active }: { name: string; active: number }) {
  const { found, error } = useAnswer<{ requests: CaptureRow[] }>(`api/v1/requests?model=${encodeURIComponent(name)}`, active);
  const rows = found?.requests ?? [];
  if (error instanceof ApiError && error.status === 403) return null;
  return (
    <section class="panel" aria-labelledby="requests-title">
      <header><h2 id="requests-title">Requests</h2>{rows.length > SHOWN && <a href={link("requests", "of", name)}>All {count(rows.length)}</a>}</header>
      {error != null && <div class="inside"><Problem title="The requests could not be read" error={error} /></div>}
      {rows.length ? (
        <div class="scroll">
          <table>
            <thead><tr><th scope="col">When</th><th scope="col">Result</th><th scope="col" class="number">Prompt</th><th scope="col" class="number">Answer</th><th scope="col" class="number">Time</th></tr></thead>
            <tbody>
              {rows.slice(0, SHOWN).map((row) => (
                <tr key={row.id}>
                  <td class="nowrap"><a href={link("requests", String(row.id))}>{moment(row.when)}</a></td>
                  <td><StateMark state={row.result} />{row.error && <span class="small block">{row.error.message}</span>}</td>
                  <td class="number">{count(row.usage.prompt_tokens)}</td>
                  <td class="number">{count(row.usage.completion_tokens)}</td>
                  <td class="number">{span(row.seconds)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : found && <Empty title="No request is captured">Answered requests appear here where the manifest declares <code>observability.captures</code>.</Empty>}
    </section>
  );
}
