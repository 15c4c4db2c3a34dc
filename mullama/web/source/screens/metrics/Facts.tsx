/** The numbers of the whole time. */

import type { MetricsHistory } from "../../api/types.ts";
import { bytes, count, span } from "../../format/units.ts";
import { short, speed } from "./charts.ts";

/** Show what the charts add up to. */
export function Facts({ history, model }: { history: MetricsHistory; model: string }) {
  const whole = model ? history.whole.models[model] : history.whole.total;
  const ended = whole ? whole.ok + whole.errors + whole.cancelled : 0;
  const failed = whole ? [whole.errors && `${count(whole.errors)} failed`, whole.cancelled && `${count(whole.cancelled)} cancelled`] : [];
  const time = (value: number | null | undefined) => (value == null ? "–" : span(value));
  return (
    <dl class="tiles">
      <Tile name="Requests" value={count(ended)} more={failed.filter(Boolean).join(", ")} />
      <Tile name="Generated" value={`${count(whole?.generated_tokens ?? 0)} tok`} more={`${speed((whole?.generated_tokens ?? 0) / history.whole.seconds)} on average`} />
      <Tile name="First token" value={time(whole?.first_token_p50)} more={`95 % within ${time(whole?.first_token_p95)}`} />
      <Tile name="From the cache" value={whole?.prompt_tokens ? `${Math.round((whole.cached_tokens / whole.prompt_tokens) * 100)} %` : "–"} more={`of ${count(whole?.prompt_tokens ?? 0)} prompt tokens`} />
      <Tile name="Waiting" value={`${short(whole?.waiting ?? 0)} at most`} more={`95 % wait ${time(whole?.wait_p95)}`} />
      <Tile name="Memory" value={bytes(whole?.memory ?? 0)} more="of models, at most" />
    </dl>
  );
}

function Tile({ name, value, more }: { name: string; value: string; more: string }) {
  return (
    <div class="tile">
      <dt>{name}</dt>
      <dd><strong>{value}</strong><span class="quiet small block">{more || " "}</span></dd>
    </div>
  );
}
