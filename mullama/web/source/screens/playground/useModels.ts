/** The models that the key of the tab can talk to: those of the status, or of the list, which needs no role `read`. */

import { useEffect, useState } from "preact/hooks";

import { ask, key } from "../../api/client.ts";
import type { Model } from "../../api/types.ts";
import { models, refusal, returns, status } from "../../state/live.ts";

/** The fields of a model that the playground uses. */
export type ChatModel = Pick<Model, "name" | "is_default" | "context_size" | "revision">;

interface Listed extends Omit<ChatModel, "revision"> {
  state: string;
  digest: string;
}

/** Return the models that can answer; null while they are not known. `error`: why the server shows none. */
export function useModels(): { known: ChatModel[] | null; error: unknown } {
  const [listed, setListed] = useState<ChatModel[] | null>(null);
  const [error, setError] = useState<unknown>(null);
  const hidden = !status.value && refusal.value?.status === 403;
  useEffect(() => {
    if (!hidden) return;
    setListed(null);
    ask<{ models: Listed[] }>("api/models").then(
      (answer) => setListed(answer.models.filter((one) => one.state !== "failed").map((one) => ({ ...one, revision: one.digest }))),
      setError,
    );
  }, [hidden, key.value, returns.value]);
  if (status.value) return { known: models.value.filter((model) => model.state !== "failed"), error: null };
  return hidden ? { known: listed, error } : { known: null, error: refusal.value };
}
