/** The lines of an apply or an undo as they arrive. */

import type { ApplyLine } from "../api/types.ts";
import { bytes } from "../format/units.ts";

/** Show the phase, the downloads and the end of a run. */
export function Progress({ lines }: { lines: ApplyLine[] }) {
  const shown = lines.filter((line) => line.event !== "plan").map(words).filter(Boolean).slice(-8);
  const end = lines.find((line) => line.event === "result");
  return (
    <div role="status">
      <ol class="quiet">{shown.map((text, index) => <li key={index}>{text}</li>)}</ol>
      {end && <p><strong>{end.outcome?.replaceAll("_", " ")}</strong> {end.message}</p>}
    </div>
  );
}

function words(line: ApplyLine): string {
  switch (line.event) {
    case "phase":
      return line.phase ?? "";
    case "fetch":
      return `${line.model ?? ""}: ${bytes(line.done ?? 0)}${line.total ? ` of ${bytes(line.total)}` : ""}`;
    case "result":
      return "";
    default:
      return [line.model, line.message].filter(Boolean).join(": ");
  }
}
