/** The last rollout: its state, the place where it stopped, and the controller that holds the lease. */

import type { FleetView, Rollout } from "../../api/types.ts";
import { visible } from "../../format/text.ts";
import { moment, span } from "../../format/units.ts";
import { Hint } from "../../parts/Hint.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { headline } from "../../state/rollout.ts";

/** Show a rollout and the lease in force. */
export function RolloutPanel({ rollout, view }: { rollout: Rollout; view: FleetView }) {
  const { state, text, hint } = headline(rollout, view.hosts);
  const failed = view.hosts.filter((host) => host.result?.state === "failed");
  const { lease } = view;
  return (
    <section class="panel" aria-labelledby="rollout-title">
      <header>
        <h2 id="rollout-title">{rollout.kind === "undo" ? "Last undo" : "Last apply"}</h2>
        <span class="quiet">number {rollout.fence}</span>
      </header>
      <div class="inside">
        <p role="status"><strong><StateMark state={state} /></strong> {visible(text)}<Hint text={hint && `· ${hint}`} /></p>
        {failed.map((host) => (
          <div key={host.name} class="problem">
            <strong>{host.name}: {host.result!.outcome.replaceAll("_", " ")}</strong>
            <p>{visible(host.result!.message)}</p>
            {host.result!.hint && <p class="quiet">{visible(host.result!.hint)}</p>}
          </div>
        ))}
        <dl class="facts">
          <dt>Controller</dt><dd>{visible(rollout.holder)}</dd>
          <dt>Began</dt><dd>{moment(rollout.began)}</dd>
          <dt>{rollout.ended === null ? "Last report" : "Ended"}</dt><dd>{moment(rollout.updated)}</dd>
          {rollout.canary.length > 0 && <><dt>Canary</dt><dd>{rollout.canary.join(", ")}</dd></>}
          <dt>Lease</dt>
          <dd>{lease ? <>held by {visible(lease.holder)}; it ends in {span(lease.seconds_left)} unless it is renewed</> : "free"}</dd>
        </dl>
      </div>
    </section>
  );
}
