/** The other servers that routes lead to. */

import type { Status } from "../../api/types.ts";
import { visible } from "../../format/text.ts";
import { count, counted } from "../../format/units.ts";
import { StateMark } from "../../parts/StateMark.tsx";
import { peerState, routesTo } from "../../state/routes.ts";

/** The health of each peer, its load, and the routes to it. */
export function Peers({ known }: { known: Status }) {
  const ejected = known.peers.filter((peer) => peer.state === "ejected").length;
  return (
    <section class="panel" aria-labelledby="peers-title">
      <header>
        <h2 id="peers-title">Peers</h2>
        <span class="quiet">{ejected ? `${ejected} of ${counted(known.peers.length, "peer")} get no requests` : counted(known.peers.length, "peer")}</span>
      </header>
      <div class="scroll">
        <table class="stacked">
          <thead>
            <tr>
              <th scope="col">Peer</th>
              <th scope="col">State</th>
              <th scope="col">Routes</th>
              <th scope="col" class="number">Running</th>
              <th scope="col" class="number">Failures in a row</th>
            </tr>
          </thead>
          <tbody>
            {known.peers.map((peer) => (
              <tr key={peer.name}>
                <th scope="row" class="model">{peer.name}<span class="quiet small block address">{visible(peer.url)}</span></th>
                <td class="wide">
                  <StateMark state={peerState(peer)} />
                  {peer.passed_over.length > 0 && <span class="small block address">passed over: {visible(peer.passed_over.join(", "))}</span>}
                  {peer.reason && <span class="small block address">{visible(peer.reason)}</span>}
                </td>
                <td data-label="Routes">{routesTo(peer.name, known).map((route) => route.name).join(", ") || <span class="quiet">none</span>}</td>
                <td class="number" data-label="Running">{count(peer.running)}</td>
                <td class="number" data-label="Failures in a row">{count(peer.failures)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
