/** The text that is being written, kept for this tab until it is saved or discarded. Each file has its own. */

import { keep as keepText, recalled } from "../../state/browserStorage.ts";

/** A text with the digest of the file that it was begun on. */
export interface Draft {
  text: string;
  digest: string;
}

function stored(path: string): string {
  return `mullama-draft ${path}`;
}

/** Return the draft of this tab for a file. */
export function kept(path: string): Draft | null {
  try {
    const found = JSON.parse(recalled("tab", stored(path)) ?? "null") as Partial<Draft> | null;
    return typeof found?.text === "string" && typeof found.digest === "string" ? (found as Draft) : null;
  } catch {
    return null;
  }
}

/** Keep a draft; null forgets it. A storage that is full keeps it in memory, and `refusedStorage` has the reason. */
export function keep(path: string, draft: Draft | null): void {
  keepText("tab", stored(path), draft ? JSON.stringify(draft) : "");
}
