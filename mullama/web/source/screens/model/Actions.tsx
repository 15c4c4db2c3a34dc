/** The commands of a model, with their result beside them. They need the role admin. */

import { useRef, useState } from "preact/hooks";

import { ask, nameInPath } from "../../api/client.ts";
import type { Model } from "../../api/types.ts";
import { span } from "../../format/units.ts";
import { Problem } from "../../parts/Problem.tsx";
import { link } from "../../shell/router.ts";
import { models } from "../../state/live.ts";
import { allows, isOpen, sharers } from "./commands.ts";
import type { Command } from "./commands.ts";

const COMMANDS: Command[] = ["Load", "Unload", "Reload"];
const DOING: Record<Command, string> = { Load: "loading…", Unload: "unloading after its requests…", Reload: "loading again…" };

/** Milliseconds in which a model without requests is unloaded. One that is in memory after them was loaded again. */
const IDLE = 5_000;
const AGAIN = "it is in memory: a request or another client loaded it again";

/** The buttons. They wait for a load, but not for the requests that an unload lets end. */
export function Actions({ model }: { model: Model }) {
  const [doing, setDoing] = useState<Command | null>(null);
  const [busy, setBusy] = useState(false);
  const [done, setDone] = useState("");
  const [error, setError] = useState<{ command: Command; failure: unknown } | null>(null);
  const latest = useRef(new AbortController());
  const run = async (command: Command) => {
    latest.current.abort();
    const stop = (latest.current = new AbortController()).signal;
    setDoing(command); setBusy(true); setDone(""); setError(null);
    const begun = performance.now();
    const others = command === "Unload" ? sharers(model.name, models.peek()) : [];
    let failed: unknown = null;
    try {
      if (command !== "Load") await unload(model.name);
      if (command === "Unload" && !stop.aborted) setBusy(false);
      if (command !== "Load") await unloaded([model.name, ...others], stop);
      if (command !== "Unload") await load(model.name);
    } catch (failure) {
      failed = failure;
    }
    if (stop.aborted) return; // another command was given
    setDoing(null); setBusy(false);
    const seconds = span((performance.now() - begun) / 1000);
    if (failed !== null) setError({ command, failure: failed });
    else if (command !== "Unload") setDone(`ready after ${seconds}`);
    else setDone(`unloaded in ${seconds}${others.length ? `, and with it ${others.join(", ")} (same context)` : ""}`);
  };
  return (
    <div class="stack">
      <div class="actions">
        {COMMANDS.map((command) => (
          <button key={command} class="button" disabled={busy || !allows(command, model)} onClick={() => void run(command)}>{command}</button>
        ))}
        <a class="button" href={link("playground", "with", model.name)}>Playground</a>
        <a class="button" href={link("logs", model.name)}>Log</a>
        <span class="quiet result" role="status">{doing ? DOING[doing] : done}</span>
      </div>
      {error && <Problem title={`${error.command} failed`} error={error.failure} />}
    </div>
  );
}

async function load(name: string): Promise<void> {
  await ask("api/models/load", { method: "POST", body: JSON.stringify({ name }) });
}

async function unload(name: string): Promise<void> {
  await ask(`api/models/${nameInPath(name)}/unload`, { method: "POST", body: "{}" });
}

/** Wait until the live status shows that models of one context, whose requests may take long, are not in memory. */
async function unloaded(names: string[], stop: AbortSignal): Promise<void> {
  let idle: ReturnType<typeof setTimeout> | undefined;
  let leave = () => {};
  await new Promise<void>((resolve, reject) => {
    leave = models.subscribe((rows) => {
      const mine = rows.filter((row) => names.includes(row.name));
      const first = mine.find((row) => row.name === names[0]);
      if (!first || !isOpen(first)) resolve();
      else if (mine.some((row) => row.active)) { clearTimeout(idle); idle = undefined; }
      else idle ??= setTimeout(() => reject(new Error(AGAIN)), IDLE);
    });
    stop.addEventListener("abort", () => resolve());
  }).finally(() => { clearTimeout(idle); leave(); });
}
