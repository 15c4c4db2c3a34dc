/** An answer of the server that a screen shows: read again when it may be another one. */

import { useEffect, useState } from "preact/hooks";

import { ApiError, ask, key } from "../api/client.ts";
import { returns } from "../state/live.ts";

/** The newest answer, and why the last read failed; null for none. */
export interface Answered<Answer> {
  found: Answer | null;
  error: unknown;
}

/**
 * Read an address: at first, when `version` changes, with a new key, and after each lost connection. The last answer
 * stays until the next one, but not that of another address, nor of a thing that the server does not have any more.
 */
export function useAnswer<Answer>(path: string, version: unknown = 0): Answered<Answer> {
  const [known, setKnown] = useState<Answered<Answer> & { path: string }>({ path, found: null, error: null });
  useEffect(() => {
    const stop = new AbortController();
    ask<Answer>(path, { signal: stop.signal }).then(
      (found) => setKnown({ path, found, error: null }),
      (error) => {
        if (stop.signal.aborted) return;
        const gone = error instanceof ApiError && error.status === 404;
        setKnown((before) => ({ path, found: gone || before.path !== path ? null : before.found, error }));
      },
    );
    return () => stop.abort();
  }, [path, version, key.value, returns.value]);
  return known.path === path ? known : { found: null, error: null };
}
