/** The routes and the commands of models. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { allows, sharers } from "../../../mullama/web/source/screens/model/commands.ts";
import { peerState, routesOf, routesTo, sharedRoutes } from "../../../mullama/web/source/state/routes.ts";

const KNOWN = {
  routes: { default: "tiny", far: "big@north" },
  shares: {
    chat: { to: [{ model: "tiny", weight: 1 }, { model: "tiny@north", weight: 3 }], fallback: ["spare@south"] },
    safe: { to: [{ model: "spare", weight: 1 }], fallback: ["tiny"] },
  },
};

test("a route has its ways with their shares, then its fallbacks", () => {
  assert.deepEqual(routesOf(KNOWN).map((route) => route.name), ["chat", "default", "far", "safe"]);
  assert.deepEqual(routesOf(KNOWN)[0]!.ways, [
    { target: "tiny", peer: "", share: 0.25 },
    { target: "tiny@north", peer: "north", share: 0.75 },
    { target: "spare@south", peer: "south", share: null },
  ]);
});

test("a peer has the routes to it, and a model those that lead elsewhere, too", () => {
  assert.deepEqual(routesTo("north", KNOWN).map((route) => route.name), ["chat", "far"]);
  assert.deepEqual(routesTo("south", KNOWN).map((route) => route.name), ["chat"]);
  assert.deepEqual(sharedRoutes("tiny", KNOWN).map((route) => route.name), ["chat", "safe"]);
  assert.deepEqual(sharedRoutes("big", KNOWN), []);
});

const ALLOWED: [Parameters<typeof allows>[1], string[]][] = [
  [{ state: "idle", memory: 0 }, ["Load"]],
  [{ state: "failed", memory: 0 }, ["Load"]],
  [{ state: "loading", memory: 0 }, ["Unload"]],
  [{ state: "ready", memory: 0 }, ["Unload", "Reload"]], // an engine that states no memory
  [{ state: "ready", memory: 5 }, ["Unload", "Reload"]],
  [{ state: "degraded", memory: 5 }, ["Unload", "Reload"]],
  [{ state: "degraded", memory: 0 }, ["Load"]],
];

for (const [model, commands] of ALLOWED) {
  test(`a model that is ${model.state} with ${model.memory} bytes allows ${commands.join(" and ")}`, () => {
    assert.deepEqual((["Load", "Unload", "Reload"] as const).filter((command) => allows(command, model)), commands);
  });
}

test("a peer that gets requests and fails them is not shown as ready", () => {
  const states = [["ready", 0], ["ready", 1], ["ejected", 3]] as const;
  assert.deepEqual(states.map(([state, failures]) => peerState({ state, failures })), ["ready", "failing", "ejected"]);
});

test("the models of one context are unloaded together", () => {
  const models = [
    { name: "first", memory: 9, memory_own: 9, shared_with: null },
    { name: "twin", memory: 9, memory_own: 0, shared_with: "first" },
    { name: "same weights", memory: 9, memory_own: 3, shared_with: "first" },
    { name: "idle", memory: 0, memory_own: 0, shared_with: null },
  ];
  assert.deepEqual(models.map(({ name }) => sharers(name, models)), [["twin"], ["first"], [], []]);
});
