/** The hosts of the fleet: state, result of the rollout, load, and memory against the budget. */

import type { FleetHost, FleetView } from "../../api/types.ts";
import { visible } from "../../format/text.ts";
import { bytes, count } from "../../format/units.ts";
import { Bar } from "../../parts/Bar.tsx";
import { Hint } from "../../parts/Hint.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { link } from "../../shell/router.ts";
import { pageOf, resultWord } from "../../state/rollout.ts";

/** One row for each host, as this server sees it. */
export function Hosts({ view }: { view: FleetView }) {
  return (
    <section class="panel" aria-labelledby="hosts-title">
      <header><h2 id="hosts-title">Hosts</h2><span class="quiet">as this server sees them</span></header>
      <div class="scroll">
        <table class="stacked">
          <thead>
            <tr>
              <th scope="col">Host</th><th scope="col">State</th><th scope="col">Rollout</th>
              <th scope="col" class="number">Ready</th><th scope="col" class="number">Running</th>
              <th scope="col" class="number">Waiting</th><th scope="col">Models against the budget</th>
            </tr>
          </thead>
          <tbody>{view.hosts.map((host) => <Row key={host.name} host={host} view={view} />)}</tbody>
        </table>
      </div>
    </section>
  );
}

function Row({ host, view }: { host: FleetHost; view: FleetView }) {
  const known = host.version !== null;
  return (
    <tr>
      <th scope="row" class="model host">
        <Name host={host} /> {host.this && <span class="tag">this server</span>}
        {host.url && <span class="quiet small block address">{visible(host.url)}</span>}
        {known && <span class="quiet small block">mullama {host.version}</span>}
      </th>
      <td class="wide">
        <StateMark state={host.state} />
        {host.reason && <span class="small block address">{visible(host.reason)}</span>}
        {host.hint && <span class="small block"><Hint text={visible(host.hint)} /></span>}
        {host.faults.map((text) => <span key={text} class="small block address">{visible(text)}</span>)}
        {host.changed_since && <span class="small block">▲ changed since the rollout, by another manifest or command</span>}
      </td>
      <td data-label="Rollout"><Result host={host} view={view} /></td>
      <td class="number" data-label="Ready">{known ? <>{count(host.ready)} <span class="quiet">of {count(host.models)}</span></> : "–"}</td>
      <td class="number" data-label="Running">{known ? count(host.active) : "–"}</td>
      <td class="number" data-label="Waiting">{known ? count(host.waiting) : "–"}</td>
      <td class="wide places" data-label="Models against the budget"><Memory host={host} /></td>
    </tr>
  );
}

/** The name leads to the page of the host, which asks for a key of its own. */
function Name({ host }: { host: FleetHost }) {
  const page = pageOf(host.url);
  if (host.this) return <>{host.name || "This server"}</>;
  return page ? <a href={page} rel="noreferrer" title={`Open the page of ${host.name}`}>{host.name}</a> : <>{host.name}</>;
}

function Result({ host, view }: { host: FleetHost; view: FleetView }) {
  const { result, generation } = host;
  return (
    <>
      {result && view.rollout ? <StateMark state={result.state} word={resultWord(host, view.rollout)} /> : <span class="quiet">–</span>}
      {!!result?.steps && <span class="quiet small block">{result.steps_done} of {result.steps} steps</span>}
      {generation !== null && (
        <span class="quiet small block">{host.this ? <a href={link("history", String(generation))}>revision {generation}</a> : <>revision {generation}</>}</span>
      )}
    </>
  );
}

/** One bar for each device that has a budget; a device that fell out has its fault. */
function Memory({ host }: { host: FleetHost }) {
  if (!host.memory) return <span class="quiet">–</span>;
  return (
    <ul>
      {host.memory.places.map(({ name, description, total, free, fault, used, budget }) => {
        const title = name || "main memory";
        if (fault) return <li key={name}><StateMark state="failed" word={title} /> <span class="small block address">{visible(fault)}</span></li>;
        const [value, whole] = used !== null && budget !== null ? [used, budget] : [total - free, total];
        const over = value > whole;
        const text = `${bytes(value)} of ${bytes(whole)}`;
        return (
          <li key={name} title={`${title} ${description}: ${bytes(total - free)} of ${bytes(total)} in use by all programs`}>
            <p><span>{over && "▲ "}{visible(title)}</span> <span class="number">{text}</span></p>
            <Bar value={value} whole={whole} label={`${title} of ${host.name || "this server"}: ${text}`} />
          </li>
        );
      })}
    </ul>
  );
}
