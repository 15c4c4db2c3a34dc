/** A rollout of a fleet in words. */

import assert from "node:assert/strict";
import { test } from "node:test";

import type { FleetHost, FleetView, Rollout } from "../../../mullama/web/source/api/types.ts";
import { headline, pageOf, resultWord, summary } from "../../../mullama/web/source/state/rollout.ts";

const host = (name: string, result: string, fields: object = {}) =>
  ({ name, state: "ready", active: 1, waiting: 2, result: { state: result }, ...fields }) as FleetHost;
const rollout = (state: string, fields: object = {}) =>
  ({ state, kind: "apply", stage: 2, stages: 3, title: "change the models", pause: null, holder: "ann@box:1", ...fields }) as Rollout;
const HOSTS = [host("a", "changed"), host("b", "failed"), host("c", "not reached")];

test("each state of a rollout has its sentence and its next step", () => {
  const sentences: [Rollout, string, string, string][] = [
    [rollout("running"), "running", "step 2 of 3: change the models", ""],
    [rollout("running", { stage: 0 }), "running", "before the first of 3 steps", ""],
    [rollout("running", { pause: 90 }), "paused", "pauses for 1 min 30 s after step 2 of 3: change the models", "by themselves"],
    [rollout("running", { pause: "manual" }), "paused", "waits at step 2 of 3: change the models", "ann@box:1 is asked"],
    [rollout("applied"), "applied", "reached every host", ""],
    [rollout("applied", { kind: "undo" }), "applied", "went back on every host that had changed", ""],
    [rollout("paused"), "paused", "ended at the pause after step 2 of 3: change the models", "`mullama apply` continues"],
    [rollout("failed"), "failed", "stopped at b, in step 2 of 3: change the models", "`mullama undo` goes back"],
    [rollout("interrupted"), "interrupted", "was interrupted in step 2 of 3: change the models", "`mullama undo` goes back"],
    [rollout("lost"), "interrupted", "has no end: its command stopped in step 2 of 3: change the models", "`mullama apply` continues"],
  ];
  for (const [given, state, text, hint] of sentences) {
    const found = headline(given, HOSTS);
    assert.deepEqual([found.state, found.text], [state, text]);
    assert.ok(hint ? found.hint.includes(hint) : found.hint === "", found.hint);
  }
  assert.equal(headline(rollout("failed"), []).text, "stopped in step 2 of 3: change the models");
});

test("a host that is not reached waits while the rollout runs", () => {
  assert.deepEqual(HOSTS.map((one) => resultWord(one, rollout("running"))), ["changed", "failed", "waits"]);
  assert.equal(resultWord(HOSTS[2]!, rollout("failed")), "not reached");
  assert.equal(resultWord({ ...HOSTS[0]!, result: null }, rollout("failed")), "not asked");
});

test("the summary adds up all hosts and counts those without an answer", () => {
  const view = (hosts: FleetHost[]) => ({ hosts }) as FleetView;
  assert.equal(summary(view(HOSTS.slice(0, 1))), "1 host · 1 request running · 2 waiting");
  const silent = host("d", "failed", { state: "no answer", active: 0, waiting: 0 });
  assert.equal(summary(view([...HOSTS, silent])), "4 hosts · 1 without an answer · 3 requests running · 6 waiting");
});

test("only an address of a server becomes a link", () => {
  assert.equal(pageOf("https://a.example.org:11434/"), "https://a.example.org:11434/ui/");
  for (const text of ["", "javascript:alert(1)", "data:text/html,x", "unix:/run/x"]) assert.equal(pageOf(text), "");
});
