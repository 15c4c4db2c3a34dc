/** A proposed change of the manifest: an entry in the draft, which the screen Plan shows and no one has applied. */

import { ask } from "../api/client.ts";
import type { ManifestText } from "../api/types.ts";
import { keep, kept } from "../screens/plan/draft.ts";
import { open } from "../shell/router.ts";

/** Add a value at the keys `path` to the draft, or to the text of the file where there is none, and open the plan. */
export async function propose(path: string[], value: unknown): Promise<void> {
  const file = await ask<ManifestText>("api/v1/manifest");
  const draft = kept(file.path) ?? { text: file.text, digest: file.digest };
  const body = JSON.stringify({ text: draft.text, path, value });
  const { text } = await ask<{ text: string }>("api/v1/manifest/entry", { method: "POST", body });
  keep(file.path, { ...draft, text });
  open("plan");
}
