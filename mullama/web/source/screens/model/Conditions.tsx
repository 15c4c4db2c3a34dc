/** The conditions of a model that an operator has to know, with reason, message and the time of the change. */

import type { Model } from "../../api/types.ts";
import { moment } from "../../format/units.ts";
import { Hint } from "../../parts/Hint.tsx";

/** The list; nothing while the model is as it should be. */
export function Conditions({ model }: { model: Model }) {
  const shown = model.conditions.filter((one) => one.message || (one.type !== "Ready" && one.status));
  if (!shown.length && !model.warnings.length) return null;
  return (
    <ul class="conditions">
      {shown.map((one) => (
        <li key={one.type} class="notice">
          <strong>{one.type === "Ready" && !one.status ? "Not ready" : one.type}: {one.reason}</strong> {one.message}
          {one.status !== (one.type === "Ready") && <Hint text={one.hint} />}
          {one.since !== null && <span class="quiet"> since {moment(one.since)}</span>}
        </li>
      ))}
      {model.warnings.map((warning) => <li key={warning} class="notice">{warning}</li>)}
    </ul>
  );
}
