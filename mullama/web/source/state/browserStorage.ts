/** Small texts that the browser keeps. Where it forbids or cannot keep them, they last until the page is closed. */

import { signal } from "@preact/signals";

/** The reason why the browser keeps nothing; empty where it does. */
export const refusedStorage = signal("");

/** Values that one kind of storage refused. */
const kept = new Map<string, string>();

function place(kind: "tab" | "browser"): Storage {
  return kind === "tab" ? sessionStorage : localStorage;
}

/** Return a kept text; null without one. */
export function recalled(kind: "tab" | "browser", name: string): string | null {
  const own = kept.get(`${kind} ${name}`);
  if (own !== undefined) return own;
  try {
    return place(kind).getItem(name);
  } catch {
    return null;
  }
}

/** Keep a text, or forget it if it is empty. */
export function keep(kind: "tab" | "browser", name: string, text: string): void {
  try {
    if (text) place(kind).setItem(name, text);
    else place(kind).removeItem(name);
    kept.delete(`${kind} ${name}`);
    refusedStorage.value = "";
  } catch (error) {
    kept.set(`${kind} ${name}`, text);
    refusedStorage.value = error instanceof Error ? error.message : String(error);
  }
}
