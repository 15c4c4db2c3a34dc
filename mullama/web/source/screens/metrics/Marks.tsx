/** The changes of the manifest in the shown time, with the way to the history. */

import type { MetricsHistory } from "../../api/types.ts";
import { moment } from "../../format/units.ts";
import { StateMark } from "../../parts/StateMark.tsx";
import { link } from "../../shell/router.ts";

/** List the marks of the charts, newest first. */
export function Marks({ marks }: { marks: MetricsHistory["marks"] }) {
  if (!marks.length) return <p class="quiet">The manifest did not change in this time.</p>;
  return (
    <section class="panel" aria-labelledby="marks-title">
      <header><h2 id="marks-title">Changes of the manifest</h2></header>
      <ol class="marks">
        {[...marks].reverse().map((mark) => (
          <li key={`${mark.when}${mark.kind}`}>
            <time class="quiet">{moment(mark.when)}</time>
            <StateMark state={mark.kind === "applied" ? "ok" : "failed"} word={mark.kind.replaceAll("-", " ")} />
            <span>
              {mark.kind === "applied" && <><a href={link("history", String(mark.generation))}>revision {mark.generation}</a> </>}
              {mark.message}
            </span>
          </li>
        ))}
      </ol>
    </section>
  );
}
