/** The commands of a model, with their result beside them. They need the role admin. */

import { useState } from "preact/hooks";

import { ask, nameInPath } from "../../api/client.ts";
import type { Model } from "../../api/types.ts";
import { span } from "../../format/units.ts";
import { Problem } from "../../parts/Problem.tsx";
import { link } from "../../shell/router.ts";
import { models } from "../../state/live.ts";
import { allows, isOpen } from "./commands.ts";
import type { Command } from "./commands.ts";

const COMMANDS: Command[] = ["Load", "Unload", "Reload"];
const DOING: Record<Command, string> = { Load: "loading…", Unload: "unloading after its requests…", Reload: "loading again…" };

const PATIENCE = 30_000;
const STILL = "it is still in memory: requests are not finished, or another model uses the same context";

/** The buttons. One command runs at a time. */
export function Actions({ model }: { model: Model }) {
  const [running, setRunning] = useState<Command | null>(null);
  const [done, setDone] = useState("");
  const [error, setError] = useState<{ command: Command; failure: unknown } | null>(null);
  const run = async (command: Command) => {
    setRunning(command); setDone(""); setError(null);
    const begun = performance.now();
    try {
      if (command !== "Load") await unload(model.name);
      if (command !== "Unload") await load(model.name);
      const seconds = span((performance.now() - begun) / 1000);
      setDone(command === "Unload" ? `unloaded in ${seconds}` : `ready after ${seconds}`);
    } catch (failure) {
      setError({ command, failure });
    } finally {
      setRunning(null);
    }
  };
  return (
    <div class="stack">
      <div class="actions">
        {COMMANDS.map((command) => (
          <button key={command} class="button" disabled={running !== null || !allows(command, model)} onClick={() => void run(command)}>{command}</button>
        ))}
        <a class="button" href={link("playground", "with", model.name)}>Playground</a>
        <a class="button" href={link("logs", model.name)}>Log</a>
        <span class="quiet result" role="status">{running ? DOING[running] : done}</span>
      </div>
      {error && <Problem title={`${error.command} failed`} error={error.failure} />}
    </div>
  );
}

async function load(name: string): Promise<void> {
  await ask("api/models/load", { method: "POST", body: JSON.stringify({ name }) });
}

/** Unload a model, and wait until the live status shows that it is not in memory any more. */
async function unload(name: string): Promise<void> {
  await ask(`api/models/${nameInPath(name)}/unload`, { method: "POST", body: "{}" });
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => end(() => reject(new Error(STILL))), PATIENCE);
    const stop = models.subscribe((rows) => {
      if (!rows.some((model) => model.name === name && isOpen(model))) queueMicrotask(() => end(resolve));
    });
    function end(settle: () => void): void {
      clearTimeout(timer);
      stop();
      settle();
    }
  });
}
