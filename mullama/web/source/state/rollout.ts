/** The last rollout of a fleet in words. */

import type { FleetHost, FleetView, Rollout } from "../api/types.ts";
import { counted, span } from "../format/units.ts";

/** One sentence about a rollout, with its state, and the next step for a person. */
export interface Headline {
  state: string;
  text: string;
  hint: string;
}

const CONTINUE = "`mullama apply` continues; `mullama undo` goes back on the hosts that changed";

/** Return the headline of a rollout over these hosts. */
export function headline(rollout: Rollout, hosts: readonly FleetHost[]): Headline {
  const { state, stage, stages, title } = rollout;
  const at = stage ? `step ${stage} of ${stages}: ${title}` : `before the first of ${counted(stages, "step")}`;
  switch (state) {
    case "running":
      if (rollout.pause === "manual") return { state: "paused", text: `waits at ${at}`, hint: `${rollout.holder} is asked on its terminal whether to continue` };
      if (rollout.pause !== null) return { state: "paused", text: `pauses for ${span(rollout.pause)} after ${at}`, hint: "the others follow by themselves" };
      return { state, text: at, hint: "" };
    case "applied":
      return { state, text: rollout.kind === "undo" ? "went back on every host that had changed" : "reached every host", hint: "" };
    case "paused":
      return { state, text: `ended at the pause after ${at}`, hint: "`mullama apply` continues with the other hosts" };
    case "failed":
      return { state, text: `stopped ${stoppedAt(hosts)}in ${at}`, hint: CONTINUE };
    case "interrupted":
      return { state, text: `was interrupted in ${at}`, hint: CONTINUE };
    case "lost":
      return { state: "interrupted", text: `has no end: its command stopped in ${at}`, hint: CONTINUE };
  }
}

function stoppedAt(hosts: readonly FleetHost[]): string {
  const names = hosts.filter((host) => host.result?.state === "failed").map((host) => host.name);
  return names.length ? `at ${names.join(", ")}, ` : "";
}

/** Return the word for the result of a host in a rollout: one that is not reached yet waits while the rollout runs. */
export function resultWord(host: FleetHost, rollout: Rollout): string {
  const state = host.result?.state ?? "not asked";
  return state === "not reached" && rollout.state === "running" ? "waits" : state;
}

/** Return the fleet in one line: its hosts, those that do not answer, and the requests. */
export function summary(view: FleetView): string {
  const silent = view.hosts.filter((host) => host.state === "no answer").length;
  const sum = (of: (host: FleetHost) => number) => view.hosts.reduce((total, host) => total + of(host), 0);
  return [
    counted(view.hosts.length, "host"),
    ...(silent ? [`${silent} without an answer`] : []),
    `${counted(sum((host) => host.active), "request")} running`,
    `${sum((host) => host.waiting)} waiting`,
  ].join(" · ");
}

/** Return an address that a link may have; an empty text for any other. */
export function pageOf(url: string): string {
  return /^https?:\/\//.test(url) ? `${url.replace(/\/+$/, "")}/ui/` : "";
}
