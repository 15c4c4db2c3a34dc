/** The log of the server, followed and filtered, and the events with the revisions from which they follow. */

import { useState } from "preact/hooks";

import type { LogLine } from "../../api/types.ts";
import { count, counted } from "../../format/units.ts";
import { CopyButton } from "../../parts/CopyButton.tsx";
import { Empty } from "../../parts/Empty.tsx";
import { EventRow, concerns } from "../../parts/EventRow.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { link, open, parts } from "../../shell/router.ts";
import { events, models } from "../../state/live.ts";
import { LogList } from "./LogList.tsx";
import { type Filter, useLog } from "./useLog.ts";

const PARTS = ["requests", "http", "manifest", "models", "workers", "scheduler", "telemetry"];
const LEVELS = ["debug", "info", "warning", "error"];

/** The screen. The address may name a model: `#/logs/NAME`. */
export function Logs() {
  const model = parts.value[1] ?? "";
  const [filter, setFilter] = useState<Omit<Filter, "model">>({ part: "", level: "debug", text: "" });
  const [following, setFollowing] = useState(true);
  const [chosen, setChosen] = useState<LogLine | null>(null);
  const log = useLog({ ...filter, model }, following);
  const change = (part: Partial<Filter>) => setFilter((before) => ({ ...before, ...part }));
  return (
    <div class="screen logs">
      <header>
        <h1>Logs</h1>
        <p class="quiet">The server keeps its last lines in memory; older ones are in its file.</p>
      </header>
      <section class="panel" aria-label="Log">
        <header>
          <label class="field"><span>Model</span>
            <select class="input" value={model} onChange={(event) => open("logs", ...(event.currentTarget.value ? [event.currentTarget.value] : []))}>
              <option value="">all</option>
              {model && !models.value.some((one) => one.name === model) && <option>{model}</option>}
              {models.value.map((one) => <option key={one.name}>{one.name}</option>)}
            </select>
          </label>
          <label class="field"><span>Part</span>
            <select class="input" value={filter.part} onChange={(event) => change({ part: event.currentTarget.value })}>
              <option value="">all</option>{PARTS.map((name) => <option key={name}>{name}</option>)}
            </select>
          </label>
          <label class="field"><span>Lowest level</span>
            <select class="input" value={filter.level} onChange={(event) => change({ level: event.currentTarget.value })}>
              {LEVELS.map((name) => <option key={name}>{name}</option>)}
            </select>
          </label>
          <label class="field grow"><span>Text</span>
            <input class="input" type="search" value={filter.text} onInput={(event) => change({ text: event.currentTarget.value })} />
          </label>
          <button class="button" aria-pressed={following} onClick={() => setFollowing(!following)}>{following ? "Pause" : "Follow"}</button>
          <CopyButton text={() => log.lines.map(written).join("\n")} disabled={!log.lines.length} />
        </header>
        {log.error != null && <div class="inside"><Problem title="The log could not be read" error={log.error} /></div>}
        {log.lines.length ? (
          <LogList lines={log.lines} following={following} pause={() => setFollowing(false)} chosen={chosen} choose={setChosen} />
        ) : log.error == null && (
          <div class="log-list"><Empty title={log.reading ? "Reading…" : "No line matches"}>{!log.reading && <>Lower levels are written where <code>observability.logs</code> declares them.</>}</Empty></div>
        )}
        <footer class="log-foot">
          <span role="status" class="quiet">{following ? "following" : log.waiting ? `paused, ${counted(log.waiting, "new line")}` : "paused"}</span>
          <span class="quiet">{count(log.lines.length)} lines{log.dropped > 0 && `, ${count(log.dropped)} came too fast and are not kept`}</span>
        </footer>
        {chosen && <Chosen line={chosen} close={() => setChosen(null)} />}
      </section>
      <Events model={model} />
    </div>
  );
}

/** One line in full. */
function Chosen({ line, close }: { line: LogLine; close: () => void }) {
  return (
    <div class="chosen">
      <p class="actions">
        <strong>{line.level}</strong> <span class="quiet">{line.part || "server"}, {new Date(line.when * 1000).toISOString()}</span>
        {line.models.map((name) => <a key={name} href={link("models", name)}>{name}</a>)}
        <CopyButton text={() => written(line)} label="Copy the line" />
        <button class="button" onClick={close}>Close</button>
      </p>
      <pre class="body" tabIndex={0} role="region" aria-label="The chosen line">{line.text}</pre>
    </div>
  );
}

function Events({ model }: { model: string }) {
  const shown = events.value.filter((event) => !model || concerns(event, model)).slice(-200).reverse();
  return (
    <section class="panel" aria-labelledby="log-events-title">
      <header><h2 id="log-events-title">Events{model && ` of ${model}`}</h2><span class="quiet">{count(shown.length)}</span></header>
      {shown.length ? (
        <ol class="events" tabIndex={0} aria-label="Events, newest first">{shown.map((event) => <EventRow key={event.id} event={event} />)}</ol>
      ) : <Empty title="No event yet" />}
    </section>
  );
}

/** Return a line as the file of the log has it. */
function written(line: LogLine): string {
  return `${new Date(line.when * 1000).toISOString()} ${line.level} ${line.text}`;
}
