/** The text that is being written, kept for this tab until it is saved or discarded. */

const STORED = "mullama-draft";

/** A text with the digest of the file that it was begun on. */
export interface Draft {
  text: string;
  digest: string;
}

/** Return the draft of this tab. */
export function kept(): Draft | null {
  try {
    const found = JSON.parse(sessionStorage.getItem(STORED) ?? "null") as Partial<Draft> | null;
    return typeof found?.text === "string" && typeof found.digest === "string" ? (found as Draft) : null;
  } catch {
    return null;
  }
}

/** Keep a draft; null forgets it. A full storage of the browser loses no text that is on the page. */
export function keep(draft: Draft | null): void {
  try {
    if (draft) sessionStorage.setItem(STORED, JSON.stringify(draft));
    else sessionStorage.removeItem(STORED);
  } catch {
    // the text stays in the editor
  }
}
