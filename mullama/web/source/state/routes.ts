/** The routes of the server, and the peers that they lead to. */

import type { Status } from "../api/types.ts";

/** One way of a route: a model of this server, or one of a peer. */
export interface Way {
  target: string;
  /** The name of the peer; empty for a model of this server. */
  peer: string;
  /** The share of its requests, from 0 to 1; null for a fallback. */
  share: number | null;
}

export interface Route {
  name: string;
  ways: Way[];
}

type Routes = Pick<Status, "routes" | "shares">;

/** Return all routes by name: those with one target, with several, and with fallbacks. */
export function routesOf({ routes, shares }: Routes): Route[] {
  const found = new Map<string, Way[]>();
  for (const [name, target] of Object.entries(routes)) found.set(name, [way(target, 1)]);
  for (const [name, { to, fallback }] of Object.entries(shares)) {
    const whole = to.reduce((sum, one) => sum + one.weight, 0) || 1;
    found.set(name, [...to.map((one) => way(one.model, one.weight / whole)), ...fallback.map((target) => way(target, null))]);
  }
  return [...found].map(([name, ways]) => ({ name, ways })).sort((a, b) => a.name.localeCompare(b.name));
}

function way(target: string, share: number | null): Way {
  const sign = target.lastIndexOf("@");
  return { target, peer: sign < 0 ? "" : target.slice(sign + 1), share };
}

/** Return the routes that lead to a peer. */
export function routesTo(peer: string, known: Routes): Route[] {
  return routesOf(known).filter((route) => route.ways.some((one) => one.peer === peer));
}

/** Return the routes of a model that have other ways, too. */
export function sharedRoutes(model: string, known: Routes): Route[] {
  return routesOf(known).filter((route) => route.ways.length > 1 && route.ways.some((one) => one.target === model));
}

/** Return the state of a peer for people: one that still gets requests, and fails them, is not ready. */
export function peerState({ state, failures }: Pick<Status["peers"][number], "state" | "failures">): string {
  return state === "ready" && failures > 0 ? "failing" : state;
}
