/** The progress of an apply or an undo, and how it ended. */

import { bytes, span } from "../format/units.ts";
import { Bar } from "./Bar.tsx";
import { failed, PHASES, type Download, type RunProgress } from "./progress.ts";
import { StateMark } from "./StateMark.tsx";

/** Show the phase, each file with its bytes and the time left, each model, and the end of a run. */
export function Progress({ progress }: { progress: RunProgress }) {
  const { result } = progress;
  return (
    <div class="run">
      <div role="status">
        {!result && <p><StateMark state="reconciling" /> {PHASES[progress.phase] ?? progress.phase}</p>}
        {result && !failed(progress) && (
          <p><StateMark state={result.outcome === "applied" ? "ready" : "degraded"} word="" /><strong>{result.outcome!.replaceAll("_", " ")}</strong> {result.message}</p>
        )}
      </div>
      {result && failed(progress) && (
        <div class="problem" role="alert">
          <strong>{progress.committed ? "Only a part was applied" : "Nothing was applied"}: {result.outcome!.replaceAll("_", " ")}</strong>
          <p>{result.message}</p>
          {result.problems?.map((text) => <p key={text}>{text}</p>)}
          {result.hint && !result.message?.includes(result.hint) && <p class="quiet">{result.hint}</p>}
        </div>
      )}
      {progress.downloads.size > 0 && <ul class="transfers">{[...progress.downloads.values()].map((one) => <Transfer key={`${one.model} ${one.file}`} one={one} />)}</ul>}
      {progress.models.size > 0 && (
        <ul>
          {[...progress.models].map(([name, { state, message }]) => (
            <li key={name}><strong>{name}</strong> <StateMark state={state} /> <span class="quiet">{message}</span></li>
          ))}
        </ul>
      )}
      {!result && progress.waiting && <p class="notice">{progress.waiting}</p>}
      {progress.notes.map((text, index) => <p key={index} class="notice">{text}</p>)}
    </div>
  );
}

function Transfer({ one }: { one: Download }) {
  const left = one.speed && one.total !== null && one.done < one.total ? (one.total - one.done) / one.speed : null;
  const amount = one.total === null ? bytes(one.done) : `${bytes(one.done)} of ${bytes(one.total)}`;
  return (
    <li>
      <p class="spread">
        <span><strong>{one.model}</strong> <span class="quiet">{one.phase} {one.file}</span></span>
        <span class="number">
          {amount}{one.speed !== null && left !== null && <span class="quiet"> · {bytes(one.speed)}/s · {span(left)} left</span>}
        </span>
      </p>
      {one.total !== null && <Bar value={one.done} whole={one.total} label={`${amount} of ${one.file}`} ends />}
      {one.message && <p class="quiet">{one.message}</p>}
    </li>
  );
}
