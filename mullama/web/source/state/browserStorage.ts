/** Small texts that the browser keeps. Where it forbids or cannot keep them, they last until the page is closed. */

import { signal } from "@preact/signals";

import { base } from "../api/base.ts";

/** The reason why the browser keeps nothing; empty where it does. */
export const refusedStorage = signal("");

/** Values that one kind of storage refused. */
const kept = new Map<string, string>();

function place(kind: "tab" | "browser"): Storage {
  return kind === "tab" ? sessionStorage : localStorage;
}

/**
 * Return the name under which a tab keeps a text of its server. A browser has one storage for a host, where a proxy may
 * have several servers below prefixes.
 */
export function ofServer(name: string, path: string = base.pathname): string {
  return path === "/" ? name : `${name} ${path}`;
}

/** Return a kept text; null without one. */
export function recalled(kind: "tab" | "browser", plain: string): string | null {
  const name = kind === "tab" ? ofServer(plain) : plain;
  const own = kept.get(`${kind} ${name}`);
  if (own !== undefined) return own;
  try {
    return place(kind).getItem(name);
  } catch {
    return null;
  }
}

/** Keep a text, or forget it if it is empty. */
export function keep(kind: "tab" | "browser", plain: string, text: string): void {
  const name = kind === "tab" ? ofServer(plain) : plain;
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
