/** The steps of a plan with their cost, and the memory before and after it. */

import type { DeviceMemory, Plan, Step } from "../api/types.ts";
import { visible } from "../format/text.ts";
import { bytes } from "../format/units.ts";
import { DownloadSize } from "./DownloadSize.tsx";
import { Empty } from "./Empty.tsx";

const SIGNS: Record<Step["action"], string> = { add: "+", update: "~", replace: "±", remove: "−", rename: "→", repair: "!" };
const COSTS: Record<string, string> = {
  none: "no work",
  live: "live, without a reload",
  context: "a new context",
  weights: "loads the weights again",
  files: "loads other files",
  process: "moves the listeners of the server",
};

/** Show every step: its fields before and after, bytes to download, memory, and if requests wait. */
export function PlanView({ plan }: { plan: Plan }) {
  const steps = [...plan.drift, ...plan.steps];
  return (
    <>
      {plan.warnings.map((warning) => <p key={warning} class="notice">{warning}</p>)}
      {steps.length ? <Summary plan={plan} steps={steps} /> : <Empty title="Nothing to change" />}
      {steps.length > 0 && plan.memory.length > 0 && <Memory places={plan.memory} />}
      {steps.length > 0 && <ol class="plan">{steps.map((step) => <StepRow key={`${step.cause}${step.id}`} step={step} />)}</ol>}
      {plan.beside.length > 0 && <p class="quiet">Beside the manifest, added by commands: {plan.beside.join(", ")}</p>}
    </>
  );
}

function Summary({ plan, steps }: { plan: Plan; steps: Step[] }) {
  const download = steps.reduce((sum, step) => sum + (step.bytes_download ?? 0), 0);
  const pauses = steps.filter((step) => step.pause).length;
  return (
    <p class="quiet">
      {steps.length === 1 ? "1 step" : `${steps.length} steps`}
      {download > 0 && `, ${bytes(download)}${plan.complete ? "" : " or more"} to download`}
      {pauses ? `, ${pauses} with a pause` : ", no request waits"}
    </p>
  );
}

/** One row a device: the memory of the loaded models before and after, and the budget. */
function Memory({ places }: { places: DeviceMemory[] }) {
  return (
    <div class="scroll">
      <table class="memory">
        <thead><tr><th scope="col">Memory</th><th scope="col" class="number">Before</th><th scope="col" class="number">After</th><th scope="col" class="number">Budget</th></tr></thead>
        <tbody>
          {places.map((place) => {
            const over = place.after > place.budget;
            return (
              <tr key={place.name}>
                <th scope="row">
                  {place.name || "main memory"} <span class="quiet">{place.description}</span>
                  <Change place={place} />
                </th>
                <td class="number">{bytes(place.before)}</td>
                <td class={over ? "number refusal" : "number"}>{over && <span aria-label="above the budget">▲ </span>}{bytes(place.after)}</td>
                <td class="number">{bytes(place.budget)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

/** The use after the plan as a bar, with a mark where it is now. */
function Change({ place: { before, after, budget } }: { place: DeviceMemory }) {
  const whole = Math.max(budget, before, after, 1);
  return (
    <svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
      <rect class="bar-ground" width="100" height="4" />
      <rect class={after > budget ? "bar-full" : "bar-value"} width={(100 * after) / whole} height="4" />
      <rect class="bar-mark" x={Math.max(0, (100 * before) / whole - 0.4)} width="0.8" height="4" />
    </svg>
  );
}

function StepRow({ step }: { step: Step }) {
  const place = step.line !== null && `line ${step.line}`;
  return (
    <li class={`step ${step.action}`}>
      <span class="sign" aria-hidden="true">{SIGNS[step.action]}</span>
      <div>
        <p>
          <strong>{step.subject}</strong> <span class="quiet">{step.action}, {COSTS[step.cost] ?? step.cost}{place && `, ${place}`}</span>{" "}
          {step.cause === "drift" && <span class="tag">drift</span>} {step.pause && <span class="tag">requests wait</span>}
        </p>
        {step.detail && <p>{step.detail}</p>}
        {step.refusal && <p class="refusal">Apply refuses this: {step.refusal}</p>}
        <dl class="facts">
          {step.changes.map((change) => (
            <>
              <dt><code>{change.path}</code></dt>
              <dd>{change.sensitive ? "a secret changes" : <>{change.before !== null && <><del>{shown(change.before)}</del> </>}<ins>{shown(change.after)}</ins></>}</dd>
            </>
          ))}
        </dl>
      </div>
      <p class="number quiet">
        <DownloadSize step={step} />
        {memory(step)}
      </p>
    </li>
  );
}

function memory(step: Step) {
  if (step.memory_before === null && step.memory_after === null) return null;
  const difference = (step.memory_after ?? 0) - (step.memory_before ?? 0);
  return difference ? <span class="block">{difference > 0 ? "+" : "−"}{bytes(Math.abs(difference))}</span> : null;
}

function shown(value: unknown): string {
  return value === null || value === undefined ? "–" : visible(typeof value === "string" ? value : JSON.stringify(value));
}
