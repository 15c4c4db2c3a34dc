/** The facts of a model and of the request form that the settings show, each read once. */

import { signal } from "@preact/signals";

import { ask } from "../../api/client.ts";
import { isRecord } from "../../state/conversations.ts";
import type { Medium } from "../../state/conversations.ts";

/** The part of a model's description that the playground uses. */
export interface Facts {
  capabilities: string[];
  /** Parameters of the manifest by their names. */
  settings: Record<string, unknown>;
}

/** A parameter of a request, from the schema of the server. */
export interface Parameter {
  name: string;
  whole: boolean;
  low: number;
  high: number;
  about: string;
}

export const facts = signal<Record<string, Facts>>({});
export const parameters = signal<Parameter[]>([]);

const asked = new Set<string>();

/** Read the facts of a model. revision: of the model, whose facts are read again after a change. */
export function wantFacts(name: string, revision: string): void {
  if (!name || asked.has(`${name} ${revision}`)) return;
  asked.add(`${name} ${revision}`);
  ask<Facts>(`api/models/${encodeURIComponent(name)}`).then(
    (found) => { facts.value = { ...facts.value, [name]: { capabilities: found.capabilities, settings: found.settings } }; },
    () => asked.delete(`${name} ${revision}`),
  );
}

/** Read the parameters of requests with their ranges from the OpenAPI document of the server. */
export function wantParameters(): void {
  if (asked.has("")) return;
  asked.add("");
  ask<unknown>("openapi.json").then((document) => { parameters.value = parametersOf(document); }, () => asked.delete(""));
}

/** Return the numbers among the options of a chat request. */
export function parametersOf(document: unknown): Parameter[] {
  const path = ["paths", "/api/models/chat", "post", "requestBody", "content", "application/json", "schema", "properties", "options", "properties"];
  const options = path.reduce((tree: unknown, name) => (isRecord(tree) ? tree[name] : undefined), document);
  if (!isRecord(options)) return [];
  return Object.entries(options).flatMap(([name, schema]) => {
    if (!isRecord(schema) || typeof schema["minimum"] !== "number" || typeof schema["maximum"] !== "number") return [];
    if (DECLARED.has(name)) return [];
    const kinds = [schema["type"]].flat();
    return [{
      name, whole: kinds.includes("integer"), low: schema["minimum"], high: schema["maximum"],
      about: typeof schema["description"] === "string" ? schema["description"] : (OWN[name] ?? ""),
    }];
  });
}

/** Options without an effect on a request: the manifest declares them, or they belong to older servers. */
const DECLARED = new Set(["num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "tfs_z", "num_ctx"]);
const OWN: Record<string, string> = {
  num_predict: "Maximum tokens of the answer; 0 or less is as many as the context holds.",
  draft_num_predict: "Maximum tokens that are guessed at a time; 0 guesses none.",
};

/** Ask the server if the models read a picture or a sound. Raises its refusal. */
export async function checkMedium(models: string[], medium: Medium): Promise<void> {
  for (const model of new Set(models)) {
    const messages = [{ role: "user", content: "", images: [medium.data] }];
    await ask("api/models/chat", { method: "POST", body: JSON.stringify({ model, messages, stream: false, _debug_render_only: true }) });
  }
}
