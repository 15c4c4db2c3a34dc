/** The models of the fleet, each with its replicas by host. */

import type { FleetModel, FleetView } from "../../api/types.ts";
import { visible } from "../../format/text.ts";
import { bytes, count } from "../../format/units.ts";
import { Bar } from "../../parts/Bar.tsx";
import { Empty } from "../../parts/Empty.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { link } from "../../shell/router.ts";

type Place = FleetModel["places"][number];

const MEANING: Record<string, string> = {
  absent: "the host does not have it",
  unknown: "the host was not asked, or does not answer",
};

/** One row for each model, and in it one entry for each host that has it, or should. */
export function Places({ view }: { view: FleetView }) {
  const own = view.hosts.find((host) => host.this)?.name;
  return (
    <section class="panel" aria-labelledby="places-title">
      <header><h2 id="places-title">Models by host</h2></header>
      {view.models.length === 0 && <Empty title="No model is on a host that answers">Add one to the manifest of the fleet, and run <code>mullama apply</code>.</Empty>}
      <ul class="replicas">
        {view.models.map((model) => (
          <li key={model.name}>
            <p>
              {model.places.some((place) => place.host === own && place.state !== "absent") ? <a href={link("models", model.name)}><strong>{model.name}</strong></a> : <strong>{model.name}</strong>}
              <span class="quiet small block">{model.replicas === null ? `${count(model.ready)} ready` : `${count(model.ready)} of ${count(model.replicas)} replicas ready`}</span>
            </p>
            <ul>{model.places.map((place) => <Entry key={place.host} place={place} />)}</ul>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Entry({ place }: { place: Place }) {
  const serves = !(place.state in MEANING);
  return (
    <li>
      <p><strong>{place.host || "this server"}</strong> <StateMark state={place.state} /></p>
      {place.progress !== null && <Bar value={place.progress} whole={1} label={`${Math.round(place.progress * 100)} % loaded`} ends />}
      <p class="quiet small">{serves ? `${count(place.active)} running · ${count(place.waiting)} waiting${place.memory ? ` · ${bytes(place.memory)}` : ""}` : MEANING[place.state]}</p>
      {place.reason && <p class="small address">{visible(place.reason)}</p>}
      {place.wanted === false && <p class="small">▲ the last apply did not place it here</p>}
    </li>
  );
}
