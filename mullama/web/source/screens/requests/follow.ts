/** The captured requests of the server, newest first, while a screen shows them. */

import { useEffect, useState } from "preact/hooks";

import { ApiError, key } from "../../api/client.ts";
import { serverEvents } from "../../api/streams.ts";
import type { CaptureRow } from "../../api/types.ts";
import { onHidden, shown, untilShown } from "../../state/shown.ts";

const KEPT = 5000;
/** Milliseconds between two drawings, and before a new connection. */
const EVERY = 200;
const PAUSE = 2000;

export interface Followed {
  rows: CaptureRow[];
  /** Why there are no rows: the refusal of the server. */
  error: unknown;
  /** True while the connection is lost and tried again. */
  lost: boolean;
}

/** Follow the list. After a lost connection it is read again from the beginning, because ids begin again with a server. */
export function useCaptures(): Followed {
  const [followed, setFollowed] = useState<Followed>({ rows: [], error: null, lost: false });
  const secret = key.value;
  useEffect(() => {
    const stop = new AbortController();
    void follow(stop.signal, setFollowed);
    return () => stop.abort();
  }, [secret]);
  return followed;
}

async function follow(signal: AbortSignal, report: (followed: Followed) => void): Promise<void> {
  let drawn: CaptureRow[] = [];
  while (!signal.aborted) {
    await untilShown();
    const hidden = new AbortController();
    const stay = onHidden(() => hidden.abort());
    let rows: CaptureRow[] = [];
    let timer = 0;
    const draw = () => {
      timer = 0;
      report({ rows: (drawn = rows), error: null, lost: false });
    };
    // Also after an answer without rows: a server that was started again has none.
    const later = () => void (timer ||= window.setTimeout(draw, EVERY));
    try {
      for await (const data of serverEvents("api/v1/requests/events", { signal: AbortSignal.any([signal, hidden.signal]) }, later)) {
        rows = [JSON.parse(data) as CaptureRow, ...rows].slice(0, KEPT);
        later();
      }
      report({ rows: drawn, error: null, lost: true });
    } catch (error) {
      if (signal.aborted) return;
      if (!shown.value) continue; // the list is read again when the tab is shown
      const refused = error instanceof ApiError && error.status >= 400 && error.status < 500;
      report({ rows: drawn, error: refused ? error : null, lost: !refused });
      if (refused) return;
    } finally {
      clearTimeout(timer);
      stay();
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}
