/** The steps of a plan with their cost. */

import type { Plan, Step } from "../api/types.ts";
import { bytes } from "../format/units.ts";
import { Empty } from "./Empty.tsx";

const SIGNS: Record<Step["action"], string> = { add: "+", update: "~", replace: "±", remove: "−", rename: "→", repair: "!" };

/** Show every step: its fields before and after, bytes to download, memory, and if requests wait. */
export function PlanView({ plan }: { plan: Plan }) {
  const steps = [...plan.drift, ...plan.steps];
  if (!steps.length) return <Empty title="Nothing to change" />;
  return (
    <>
      {plan.warnings.map((warning) => <p key={warning} class="notice">{warning}</p>)}
      <ol class="plan">{steps.map((step) => <StepRow key={`${step.cause}${step.id}`} step={step} />)}</ol>
    </>
  );
}

function StepRow({ step }: { step: Step }) {
  return (
    <li class={`step ${step.action}`}>
      <span class="sign" aria-hidden="true">{SIGNS[step.action]}</span>
      <div>
        <p>
          <strong>{step.subject}</strong> <span class="quiet">{step.action}, {step.cost}</span>{" "}
          {step.cause === "drift" && <span class="tag">drift</span>} {step.pause && <span class="tag">requests wait</span>}
        </p>
        {step.detail && <p>{step.detail}</p>}
        {step.refusal && <p class="refusal">{step.refusal}</p>}
        <dl class="facts">
          {step.changes.map((change) => (
            <>
              <dt><code>{change.path}</code></dt>
              <dd>{change.sensitive ? "a secret changes" : <><del>{shown(change.before)}</del> <ins>{shown(change.after)}</ins></>}</dd>
            </>
          ))}
        </dl>
      </div>
      <p class="number quiet">
        {step.bytes_download === null ? "unknown size" : step.bytes_download > 0 && `${bytes(step.bytes_download)} to download`}
        {memory(step)}
      </p>
    </li>
  );
}

function memory(step: Step) {
  if (step.memory_before === null || step.memory_after === null) return null;
  const difference = step.memory_after - step.memory_before;
  return difference ? <span class="block">{difference > 0 ? "+" : "−"}{bytes(Math.abs(difference))}</span> : null;
}

function shown(value: unknown): string {
  return value === null || value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value);
}
