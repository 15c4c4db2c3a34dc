/** Requests to the server that delivered this page. The key is kept for the tab alone. */

import { signal } from "@preact/signals";

import { keep, recalled } from "../state/browserStorage.ts";
import { base } from "./base.ts";

const STORED = "mullama-key";

export const key = signal(recalled("tab", STORED) ?? "");

/** True while the server wants a key that this tab does not have. */
export const keyWanted = signal(false);

/** True while the person enters a key. */
export const keyEntered = signal(false);

/** Keep a key for the tab. */
export function useKey(text: string): void {
  keep("tab", STORED, text);
  key.value = text;
  keyWanted.value = false;
  keyEntered.value = false;
}

/** Forget the key of the tab. */
export function forgetKey(): void {
  keep("tab", STORED, "");
  key.value = "";
}

/** An answer of the server that is an error, or no answer. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly kind: string,
    message: string,
    readonly hint: string,
  ) {
    super(message);
  }
}

/** Send a request, and return the response if it is a success. Raises `ApiError`. */
export async function send(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (key.value) headers.set("authorization", `Bearer ${key.value}`);
  if (init.body !== undefined && !headers.has("content-type")) headers.set("content-type", "application/json");
  let response: Response;
  try {
    response = await fetch(new URL(path, base), { ...init, headers, cache: "no-store" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "the server does not answer", "is it running? `mullama status` shows it");
  }
  if (response.ok) return response;
  throw await failure(response);
}

/** Return the JSON of the answer. */
export async function ask<Answer>(path: string, init?: RequestInit): Promise<Answer> {
  return (await (await send(path, init)).json()) as Answer;
}

async function failure(response: Response): Promise<ApiError> {
  if (response.status === 401) keyWanted.value = true;
  const text = await response.text();
  let kind = "error";
  let message = text.slice(0, 500) || `${response.status} ${response.statusText}`;
  let hint = "";
  try {
    const tree = JSON.parse(text) as { error?: { kind?: string; type?: string; message?: string; hint?: string } };
    kind = tree.error?.kind ?? tree.error?.type ?? kind;
    message = tree.error?.message ?? message;
    hint = tree.error?.hint ?? "";
  } catch {
    // not JSON: an answer of a proxy, shown as it is
  }
  return new ApiError(response.status, kind, message, hint);
}

/** Return the part of an address that names a model; the parts of its name stay parts. */
export function nameInPath(name: string): string {
  return name.split("/").map(encodeURIComponent).join("/");
}
