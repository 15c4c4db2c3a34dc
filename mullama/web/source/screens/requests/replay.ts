/** Sends a captured request again, with the key of this page, and finds the capture of the new answer. */

import { ask, send } from "../../api/client.ts";
import type { Capture, CaptureRow } from "../../api/types.ts";

/** The second answer. */
export interface Replayed {
  /** The record of the server; null if it was captured without an entry. */
  capture: Capture | null;
  /** The response as it arrived. */
  raw: string;
  seconds: number;
}

const ID_HEADERS = ["x-request-id", "request-id"];
/** A capture is added when its answer has ended, which the client may see first. */
const TRIES = 20;
const PAUSE = 100;

/** Send it, and wait for its end. Raises the refusal of the server. */
export async function replay(capture: Capture, signal: AbortSignal): Promise<Replayed> {
  const begun = performance.now();
  const response = await send(capture.path!.replace(/^\//, ""), { method: "POST", body: capture.body!, signal });
  const raw = await response.text();
  const seconds = (performance.now() - begun) / 1000;
  const id = ID_HEADERS.map((name) => response.headers.get(name)).find(Boolean);
  return { capture: id ? await captureOf(id, signal) : null, raw, seconds };
}

async function captureOf(request: string, signal: AbortSignal): Promise<Capture | null> {
  for (let tries = 0; tries < TRIES; tries += 1) {
    const { requests } = await ask<{ requests: CaptureRow[] }>("api/v1/requests", { signal });
    const row = requests.find((one) => one.request === request);
    if (row) return ask<Capture>(`api/v1/requests/${row.id}`, { signal });
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
  return null;
}

/** Return why a request cannot be sent again; an empty text if it can. */
export function refusal(capture: Capture): string {
  if (capture.body == null || !capture.path) return capture.omitted || "its body is not kept";
  return "";
}

