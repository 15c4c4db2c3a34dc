/** The API keys of the manifest: rights, limits with what is left, and use. Secrets never reach the page. */

import type { KeyReport } from "../../api/types.ts";
import { count, moment, span } from "../../format/units.ts";
import { Bar } from "../../parts/Bar.tsx";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { useRepeated } from "../../parts/useRepeated.ts";
import { link } from "../../shell/router.ts";
import { status } from "../../state/live.ts";
import { AddKey } from "./AddKey.tsx";

const PAUSE = 5000; // milliseconds between two looks at limits and use

type Key = KeyReport["keys"][number];
type Limit = Key["limits"][number];

/** The screen. */
export function Keys() {
  const { found: report, error } = useRepeated<KeyReport>("api/v1/keys", PAUSE, status.value?.generation);
  return (
    <div class="screen">
      <header><h1>Keys</h1><p class="quiet">Names, rights and use. Secrets are read by the server alone and are shown nowhere.</p></header>
      {error != null && <Problem title="The keys could not be read" error={error} />}
      {!report && error == null && <p class="quiet" aria-busy="true">Loading…</p>}
      {report && (
        <section class="panel" aria-label="API keys">
          {report.keys.length ? <Table report={report} /> : (
            <Empty title="No key is declared">Every client that can reach this server may use and change it. Add a key below, or under <code>auth.keys</code> of the manifest.</Empty>
          )}
        </section>
      )}
      {report && <AddKey taken={report.keys.map((one) => one.name)} />}
    </div>
  );
}

function Table({ report }: { report: KeyReport }) {
  return (
    <div class="scroll">
      <table class="stacked">
        <thead>
          <tr>
            <th scope="col">Key</th><th scope="col">Roles</th><th scope="col">Models</th><th scope="col">Limits</th>
            <th scope="col" class="number">Requests</th><th scope="col" class="number">Tokens</th><th scope="col" class="number">Last used</th>
          </tr>
        </thead>
        <tbody>{report.keys.map((one) => <Row key={one.name} one={one} own={one.name === report.own} />)}</tbody>
      </table>
      <p class="note quiet small">
        {report.days === null
          ? <>Use is not recorded: see <code>observability.usage.keep</code> of the manifest.</>
          : <>Requests and tokens of the last {report.days} days. <a href={link("metrics", "usage")}>Usage by day</a></>}
      </p>
    </div>
  );
}

/** A key. Its last use is recorded to the minute. */
function Row({ one, own }: { one: Key; own: boolean }) {
  const { usage } = one;
  return (
    <tr>
      <th scope="row" class="model key">
        {one.name} {own && <span class="tag">this tab</span>}
        <span class="block small">
          <StateMark state={one.in_force ? "ready" : "failed"} word={one.in_force ? "in force" : "secret is missing"} />{" "}
          <code class="quiet">{one.secret}</code>
        </span>
      </th>
      <td data-label="Roles">{one.roles.join(", ")}{one.priority !== 0 && <span class="quiet small block">priority {one.priority}</span>}</td>
      <td data-label="Models">{one.models.map((pattern) => <code key={pattern} class="block">{pattern === "*" ? "* (all)" : pattern}</code>)}{one.mcp && <span class="quiet small block">{one.mcp.length ? `tools of ${one.mcp.join(", ")} alone` : "no tools of servers"}</span>}</td>
      <td class="limits" data-label="Limits">{one.limits.length ? one.limits.map((limit) => <Left key={limit.limit} limit={limit} />) : <span class="quiet">none</span>}</td>
      <td class="number" data-label="Requests">
        {usage ? count(usage.requests) : "–"}
        {!!usage?.errors && <span class="quiet small block">{count(usage.errors)} failed</span>}
      </td>
      <td class="number" data-label="Tokens">
        {usage ? count(usage.prompt_tokens + usage.generated_tokens) : "–"}
        {!!usage?.generated_tokens && <span class="quiet small block">{count(usage.generated_tokens)} generated</span>}
      </td>
      <td class="number" data-label="Last used">{one.last_used === null ? <span class="quiet">{usage ? "never" : "–"}</span> : moment(one.last_used).slice(0, -":00".length)}</td>
    </tr>
  );
}

/** One limit as a bar of what is left. */
function Left({ limit }: { limit: Limit }) {
  const whole = capacity(limit.rate);
  const text = `${count(limit.remaining)} of ${limit.rate} ${limit.unit} left`;
  return (
    <div class="left" title={limit.limit}>
      <span class="small">{text}{limit.full_in > 0.5 && <span class="quiet">, full in {span(limit.full_in)}</span>}</span>
      <Bar value={Math.max(0, whole - limit.remaining)} whole={whole} label={`${limit.limit}: ${text}`} />
      {limit.refused > 0 && <span class="quiet small">{count(limit.refused)} refused</span>}
    </div>
  );
}

/** Return the count of a rate such as `200k/h`. */
function capacity(rate: string): number {
  const [, digits = "0", unit = ""] = /^([\d.]+)\s*([kKmMgG]?)/.exec(rate) ?? [];
  return Number(digits) * ({ k: 1e3, m: 1e6, g: 1e9 }[unit.toLowerCase()] ?? 1);
}
