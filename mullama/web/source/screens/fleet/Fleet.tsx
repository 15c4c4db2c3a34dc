/** The fleet of this server: its hosts, its rollout, and the places of its models. */

import type { FleetView } from "../../api/types.ts";
import { moment } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { useRepeated } from "../../parts/useRepeated.ts";
import { status } from "../../state/live.ts";
import { summary } from "../../state/rollout.ts";
import { Hosts } from "./Hosts.tsx";
import { Places } from "./Places.tsx";
import { RolloutPanel } from "./RolloutPanel.tsx";

const PAUSE = 3000; // milliseconds; the server keeps the answers of the other hosts as long

/** The screen. */
export function Fleet() {
  const part = status.value?.fleet;
  const { found: view, error } = useRepeated<FleetView>("api/v1/fleet", PAUSE, part && `${part.fence}.${part.number}`);
  return (
    <div class="screen">
      <header>
        <h1>Fleet</h1>
        {view?.name && <p class="quiet">{view.name} · {summary(view)} · as of {moment(view.when)}</p>}
      </header>
      {error != null && <Problem title="The fleet could not be read" error={error} />}
      {!view && error == null && <p class="quiet" aria-busy="true">Asking the hosts…</p>}
      {view && !view.name && (
        <section class="panel"><Empty title="This server is in no fleet">A manifest with <code>fleet.hosts</code> describes several servers; <code>mullama apply</code> of it makes this one a host.</Empty></section>
      )}
      {view?.name && <Known view={view} />}
    </div>
  );
}

function Known({ view }: { view: FleetView }) {
  const away = view.rollout !== null && view.host === null;
  return (
    <>
      {!view.rollout && <p class="notice">This server does not know the other hosts yet. The next <code>mullama apply</code> of the fleet that changes something leaves their list here; <code>mullama status</code> with the manifest of the fleet shows them now.</p>}
      {away && <p class="notice">The last rollout did not name this server: it is no host of the fleet any more, and serves what the fleet applied before.</p>}
      {view.rollout && <RolloutPanel rollout={view.rollout} view={view} />}
      <Hosts view={view} />
      <Places view={view} />
    </>
  );
}
