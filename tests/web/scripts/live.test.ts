/** The parts of the live state that need no browser. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { newer } from "../../../mullama/web/source/screens/logs/useLog.ts";
import { paced } from "../../../mullama/web/source/state/pace.ts";
import { advanced } from "../../../mullama/web/source/state/updates.ts";
import type { Known, Update } from "../../../mullama/web/source/state/updates.ts";

const EMPTY: Known = { status: null, events: [], samples: [] };
const event = (id: number) => ({ id, when: id, kind: "loaded", subject: "a", message: "" });
const sample = (when: number) => ({ when, tokens: {}, running: 0, waiting: 0 });
const update = (fields: object) => fields as Update;
const first = update({ anew: true, status: { state: "ready", models: [{ name: "a", active: 0 }, { name: "b", active: 0 }] }, events: [event(1)] });

test("updates drawn together lead where updates drawn one by one lead", () => {
  const later = [
    update({ models: [{ name: "b", active: 1 }], events: [event(2)], sample: sample(1) }),
    update({ server: { state: "degraded" }, sample: sample(2) }),
    update({ models: [{ name: "a", active: 2 }, { name: "b", active: 3 }], events: [event(3), event(4)] }),
    update({ anew: true, status: { state: "starting", models: [{ name: "a", active: 9 }] }, events: [event(1)] }),
    update({ events: [event(2)] }),
  ];
  for (let end = 0; end <= later.length; end += 1) {
    const updates = [first, ...later.slice(0, end)];
    assert.deepEqual(advanced(EMPTY, updates), updates.reduce((known, one) => advanced(known, [one]), EMPTY));
  }
});

test("a row that did not change is the same object, so that it is not drawn again", () => {
  const known = advanced(EMPTY, [first]);
  const next = advanced(known, [update({ models: [{ name: "b", active: 1 }] })]);
  assert.equal(next.status!.models[0], known.status!.models[0]);
  assert.notEqual(next.status!.models[1], known.status!.models[1]);
  assert.equal(next.events, known.events);
  assert.equal(advanced(next, []).status, next.status);
});

test("a server that was started again has its own events", () => {
  const known = advanced(EMPTY, [update({ anew: true, status: {}, events: [event(7), event(8)] })]);
  assert.deepEqual(advanced(known, [first]).events.map((one) => one.id), [1]);
});

test("a course begins anew after a gap, such as that of a hidden tab", () => {
  const known = advanced(EMPTY, [update({ sample: sample(1) }), update({ sample: sample(3) })]);
  assert.equal(known.samples.length, 2);
  assert.deepEqual(advanced(known, [update({ sample: sample(60) })]).samples, [sample(60)]);
});

test("the first call runs at once, those of a busy time together and late enough", () => {
  let now = 0;
  let runs = 0;
  let timer: { at: number; act: () => void } | null = null;
  const run = paced(() => { runs += 1; }, 500, { now: () => now, after: (left, act) => { timer = { at: now + left, act }; } });
  run();
  assert.equal(runs, 1);
  for (now = 10; now < 490; now += 10) run();
  assert.equal(runs, 1);
  assert.equal(timer!.at, 500);
  now = 500;
  timer!.act();
  assert.equal(runs, 2);
  now = 2000;
  run();
  assert.equal(runs, 3);
});

test("a reader who paused gets the lines since then, and all of a server that was started again", () => {
  const lines = [4, 5, 6].map((id) => ({ id }));
  const answer = (last: number) => ({ format: "", last, lines }) as unknown as Parameters<typeof newer>[1];
  assert.deepEqual(newer(4, answer(6)).map((one) => one.id), [5, 6]);
  assert.equal(newer(90, answer(6)).length, 3);
});
