/** What the page keeps, and how it notices the world around it. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { hubFile, sizeOf } from "../../../mullama/web/source/parts/DownloadSize.tsx";
import { keep, kept } from "../../../mullama/web/source/screens/plan/draft.ts";
import { ofServer, refusedStorage } from "../../../mullama/web/source/state/browserStorage.ts";
import { isOther } from "../../../mullama/web/source/state/pageVersion.ts";
import { look, onHidden, shown, untilShown } from "../../../mullama/web/source/state/shown.ts";

test("two servers below prefixes of one host keep their texts apart", () => {
  assert.equal(ofServer("key", "/"), "key");
  assert.notEqual(ofServer("key", "/a/"), ofServer("key", "/b/"));
  assert.notEqual(ofServer("key", "/a/"), ofServer("key", "/"));
});

test("a draft belongs to its file, and a storage that refuses it loses nothing", () => {
  const draft = { text: "models: {}", digest: "1" };
  keep("/srv/a.yaml", draft); // there is no storage here at all
  assert.notEqual(refusedStorage.value, "");
  assert.deepEqual(kept("/srv/a.yaml"), draft);
  assert.equal(kept("/srv/b.yaml"), null);
  keep("/srv/a.yaml", null);
  assert.equal(kept("/srv/a.yaml"), null);
});

test("a page with another script is another page", () => {
  const page = (name: string) => `<html><script type="module" src="${name}"></script></html>`;
  assert.equal(isOther(page("main-A.js"), "http://h/ui/main-A.js"), false);
  assert.equal(isOther(page("main-B.js"), "http://h/ui/main-A.js"), true);
  assert.equal(isOther("an answer of a proxy", "http://h/ui/main-A.js"), false);
});

const SOURCES: [unknown, ReturnType<typeof hubFile>][] = [
  ["hf:org/repo:Q4_K_M", { repository: "org/repo", quant: "Q4_K_M" }],
  ["hf:org/repo", { repository: "org/repo", quant: "" }],
  ["hf:org/repo@main", null],
  ["hf:org/repo/file.gguf", null],
  ["./model.gguf", null],
  [null, null],
];

for (const [source, file] of SOURCES) {
  test(`the hub is asked for ${source}: ${file !== null}`, () => assert.deepEqual(hubFile(source), file));
}

test("the size is that of the named quantization, or of the only one", () => {
  const quants = [{ quant: "Q4_K_M", size_bytes: 4 }, { quant: "Q8_0", size_bytes: 8 }] as Parameters<typeof sizeOf>[0]["quants"];
  assert.equal(sizeOf({ quants }, "q8_0"), 8);
  assert.equal(sizeOf({ quants }, "Q2_K"), null);
  assert.equal(sizeOf({ quants }, ""), null);
  assert.equal(sizeOf({ quants: quants.slice(0, 1) }, ""), 4);
});

test("streams end a while after the tab is hidden, and begin again when it is shown", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const page = document as { visibilityState: string };
  let ended = 0;
  const stop = onHidden(() => { ended += 1; });
  page.visibilityState = "hidden";
  look();
  context.mock.timers.tick(4000);
  page.visibilityState = "visible";
  look();
  context.mock.timers.tick(4000);
  assert.equal(ended, 0, "a tab that was only left for a moment");
  page.visibilityState = "hidden";
  look();
  context.mock.timers.tick(5000);
  assert.equal(ended, 1);
  let again = false;
  const waiting = untilShown().then(() => { again = true; });
  await Promise.resolve();
  assert.equal(again, false);
  page.visibilityState = "visible";
  look();
  await waiting;
  assert.equal(shown.value, true);
  stop();
});
