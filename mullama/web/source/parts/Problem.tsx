/** An error with its hint, where the person is looking. */

import { ApiError, key, keyEntered } from "../api/client.ts";
import { visible } from "../format/text.ts";

/** Show an error. `title` names what failed. */
export function Problem({ title, error }: { title: string; error: unknown }) {
  const hint = error instanceof ApiError ? error.hint : "";
  const message = error instanceof Error ? error.message : String(error);
  return (
    <div class="problem" role="alert">
      <strong>{title}</strong>
      <p>{visible(message)}</p>
      {hint && <p class="quiet">{visible(hint)}</p>}
      {error instanceof ApiError && (error.status === 401 || error.status === 403) && (
        <p><button class="button" onClick={() => (keyEntered.value = true)}>{key.value ? "Use another key" : "Enter a key"}</button></p>
      )}
    </div>
  );
}
