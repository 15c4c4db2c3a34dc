/** An answer of the server that changes by itself, read again and again while its screen is open. */

import { useEffect, useState } from "preact/hooks";

import { ApiError, ask, key } from "../api/client.ts";
import { returns } from "../state/live.ts";
import { untilShown } from "../state/shown.ts";
import type { Answered } from "./useAnswer.ts";

/**
 * Read an address every `pause` milliseconds, and at once when `version` changes, with a new key, and after each lost
 * connection. The last answer stays beside an error. A hidden tab reads nothing, and a key without the right ends it.
 */
export function useRepeated<Answer>(path: string, pause: number, version: unknown): Answered<Answer> {
  const [known, setKnown] = useState<Answered<Answer>>({ found: null, error: null });
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const read = async () => {
      await untilShown();
      if (stop.signal.aborted) return;
      try {
        const found = await ask<Answer>(path, { signal: stop.signal });
        setKnown({ found, error: null });
      } catch (error) {
        if (stop.signal.aborted) return;
        setKnown((before) => ({ found: before.found, error }));
        if (error instanceof ApiError && error.status === 403) return;
      }
      if (!stop.signal.aborted) timer = setTimeout(() => void read(), pause);
    };
    void read();
    return () => { stop.abort(); clearTimeout(timer); };
  }, [path, pause, version, key.value, returns.value]);
  return known;
}
