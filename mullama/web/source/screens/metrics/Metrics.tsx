/** The last hour as charts, and the usage of keys and models by day. */

import { link, parts } from "../../shell/router.ts";
import { Hour } from "./Hour.tsx";
import { Usage } from "./Usage.tsx";

/** The screen: `#/metrics/RANGE/MODEL`, or `#/metrics/usage`. */
export function Metrics() {
  const shown = parts.value[1] ?? "";
  const usage = shown === "usage";
  return (
    <div class="screen">
      <header>
        <h1>Metrics</h1>
        <nav class="choices" aria-label="Views of the metrics">
          <a href={link("metrics")} aria-current={usage ? undefined : "page"}>Last hour</a>
          <a href={link("metrics", "usage")} aria-current={usage ? "page" : undefined}>Usage by day</a>
        </nav>
      </header>
      {usage ? <Usage /> : <Hour range={shown} model={parts.value[2] ?? ""} />}
    </div>
  );
}
