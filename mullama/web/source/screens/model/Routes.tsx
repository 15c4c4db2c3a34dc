/** The routes of a model that also lead elsewhere, with the health of the peers among their ways. */

import { visible } from "../../format/text.ts";
import { StateMark } from "../../parts/StateMark.tsx";
import { link } from "../../shell/router.ts";
import { status } from "../../state/live.ts";
import { peerState, sharedRoutes } from "../../state/routes.ts";
import type { Way } from "../../state/routes.ts";

/** One entry for each route; nothing for a model without. */
export function Routes({ name }: { name: string }) {
  const routes = status.value ? sharedRoutes(name, status.value) : [];
  if (!routes.length) return null;
  return (
    <section class="panel" aria-labelledby="routes-title">
      <header><h2 id="routes-title">Routes</h2></header>
      <dl class="facts details">
        {routes.map((route) => (
          <>
            <dt>{route.name}</dt>
            <dd><ul class="ways">{route.ways.map((way) => <li key={way.target}><Target way={way} own={way.target === name} /></li>)}</ul></dd>
          </>
        ))}
      </dl>
    </section>
  );
}

function Target({ way, own }: { way: Way; own: boolean }) {
  const peer = status.value?.peers.find((one) => one.name === way.peer);
  return (
    <>
      <span class="number share">{way.share === null ? "fallback" : `${Math.round(way.share * 100)} %`}</span>
      <span>
        {own || way.peer ? way.target : <a href={link("models", way.target)}>{way.target}</a>}
        {peer && <span class="block"><StateMark state={peerState(peer)} /> <span class="quiet">{peer.running} running</span></span>}
        {peer?.reason && <span class="small block">{visible(peer.reason)}</span>}
      </span>
    </>
  );
}
