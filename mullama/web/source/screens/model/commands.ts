/** The commands that the state of a model allows. */

import type { Model } from "../../api/types.ts";

export type Command = "Load" | "Unload" | "Reload";

/** Return true for a model that is in memory, or on its way there. One that lost its new revision may serve the old. */
export function isOpen({ state, memory }: Pick<Model, "state" | "memory">): boolean {
  return state === "ready" || state === "loading" || memory > 0;
}

/** Return whether a command can be given. A load that runs can be ended. */
export function allows(command: Command, model: Pick<Model, "state" | "memory">): boolean {
  const open = isOpen(model);
  return command === "Load" ? !open : command === "Unload" ? open : open && model.state !== "loading";
}

/** Return the other models in memory that have the same context, and are unloaded with it. */
export function sharers(name: string, models: Pick<Model, "name" | "memory" | "memory_own" | "shared_with">[]): string[] {
  const owners = new Map(models.filter((one) => one.memory > 0).map((one) => [one.name, (!one.memory_own && one.shared_with) || one.name]));
  return [...owners].filter(([other, owner]) => other !== name && owner === owners.get(name)).map(([other]) => other);
}
