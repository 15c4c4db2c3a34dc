/** The end of the engine's log, and of what its process printed, read when it is opened. */

import { useEffect, useState } from "preact/hooks";

import { ask, nameInPath } from "../../api/client.ts";
import type { WorkerLog as Log } from "../../api/types.ts";
import { visible } from "../../format/text.ts";
import { counted } from "../../format/units.ts";
import { CopyButton } from "../../parts/CopyButton.tsx";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";

/** The panel. worker: the process, whose change reads the log again. */
export function WorkerLog({ name, worker }: { name: string; worker: number | null }) {
  const [open, setOpen] = useState(false);
  const [log, setLog] = useState<Log | null>(null);
  const [error, setError] = useState<unknown>(null);
  const read = () => {
    setError(null);
    ask<Log>(`api/v1/logs/worker/${nameInPath(name)}`).then(setLog, setError);
  };
  useEffect(() => {
    setLog(null);
    if (open && worker !== null) read();
  }, [name, worker, open]);
  const text = log ? [...log.lines, ...(log.output ? ["", "output of the process:", log.output] : [])].join("\n") : "";
  return (
    <section class="panel" aria-labelledby="worker-log-title">
      <header>
        <h2 id="worker-log-title">Log of the worker</h2>
        {log && <span class="quiet">process {log.pid}, {counted(log.lines.length, "line")}</span>}
        {open && worker !== null && <button class="button" onClick={read}>Read again</button>}
        {open && text && <CopyButton text={() => text} />}
        <button class="button" aria-expanded={open} onClick={() => setOpen(!open)}>{open ? "Hide" : "Show"}</button>
      </header>
      {error != null && <div class="inside"><Problem title="The log could not be read" error={error} /></div>}
      {open && (worker === null ? <Empty title="No worker">A worker begins with a load of the model.</Empty>
        : log && (text ? <pre class="body log" tabIndex={0} role="region" aria-label="Lines of the worker">{visible(text)}</pre> : <Empty title="The engine has written nothing" />))}
    </section>
  );
}
