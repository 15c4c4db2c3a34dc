/** The parameters of a request, with the ranges of the server and the values of the manifest. */

import { useEffect } from "preact/hooks";

import { count } from "../../format/units.ts";
import { parameters, wantParameters } from "./facts.ts";
import type { Parameter } from "./facts.ts";

interface Props {
  options: Record<string, string>;
  /** Values of the manifest by the names of the parameters. */
  declared: Record<string, unknown>;
  change: (options: Record<string, string>) => void;
}

/** The parameters that people change most, with their titles; the others are below a fold. */
const USUAL: Record<string, string> = {
  temperature: "Temperature", top_p: "Top p", top_k: "Top k", min_p: "Min p", num_predict: "Maximum tokens", seed: "Seed",
};
/** Bounds beyond this mean that there is none that a person would meet. */
const ENDLESS = 2 ** 30;

/** One field each; an empty one leaves the value to the manifest. */
export function Parameters({ options, declared, change }: Props) {
  useEffect(wantParameters, []);
  const known = parameters.value;
  const usual = Object.keys(USUAL).map((name) => known.find((one) => one.name === name) ?? unknown(name));
  const others = known.filter((one) => !(one.name in USUAL));
  const set = others.filter((one) => options[one.name]).length;
  const field = (parameter: Parameter) => (
    <Field key={parameter.name} parameter={parameter} text={options[parameter.name] ?? ""} declared={declared[parameter.name]} change={(text) => change({ ...options, [parameter.name]: text })} />
  );
  return (
    <>
      <div class="pairs">{usual.map(field)}</div>
      {others.length > 0 && (
        <details>
          <summary>More parameters {set > 0 && <span class="tag">{set} set</span>}</summary>
          <div class="pairs">{others.map(field)}</div>
        </details>
      )}
    </>
  );
}

function unknown(name: string): Parameter {
  return { name, whole: false, low: -Infinity, high: Infinity, about: "" };
}

interface FieldProps {
  parameter: Parameter;
  text: string;
  declared: unknown;
  change: (text: string) => void;
}

function Field({ parameter, text, declared, change }: FieldProps) {
  const { name, about } = parameter;
  const bounds = range(parameter);
  const wrong = mistakeOf(parameter, text);
  return (
    <label class="field" title={about}>
      <span>{USUAL[name] ?? name.replaceAll("_", " ")}</span>
      <input
        class="input" inputMode="decimal" value={text} placeholder={declared === undefined || declared === null ? "manifest" : String(declared)}
        aria-invalid={wrong} onInput={(event) => change(event.currentTarget.value)}
      />
      {bounds && <span class={wrong ? "small refusal" : "small"}>{parameter.whole && wrong ? "whole, " : ""}{bounds}</span>}
    </label>
  );
}

/** Return the range in words; an empty text where no bound is near. */
export function range({ low, high }: Parameter): string {
  if (high < ENDLESS) return `${low > -ENDLESS ? count(low) : "up"} to ${count(high)}`;
  return low > -ENDLESS ? `${count(low)} or more` : "";
}

function mistakeOf({ low, high, whole }: Parameter, text: string): boolean {
  if (!text.trim()) return false;
  const value = Number(text);
  return !Number.isFinite(value) || value < low || value > high || (whole && !Number.isInteger(value));
}
