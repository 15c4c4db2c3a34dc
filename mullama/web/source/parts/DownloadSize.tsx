/** The bytes that a step downloads. The plan asks no network, so a person may ask the hub for those it does not know. */

import { useState } from "preact/hooks";

import { ask } from "../api/client.ts";
import type { HubRepository, Step } from "../api/types.ts";
import { bytes } from "../format/units.ts";

/** Return the repository and the quantization of a source of the hub; null for another one. */
export function hubFile(source: unknown): { repository: string; quant: string } | null {
  const found = typeof source === "string" ? /^hf:([^/:@]+\/[^/:@]+)(?::([^/:@]+))?$/.exec(source) : null;
  return found ? { repository: found[1]!, quant: found[2] ?? "" } : null;
}

/** Return the size of a quantization, or of the only one; null if the repository does not tell. */
export function sizeOf(found: Pick<HubRepository, "quants">, quant: string): number | null {
  const wanted = found.quants.filter((one) => !quant || one.quant.toLowerCase() === quant.toLowerCase());
  return wanted.length === 1 ? wanted[0]!.size_bytes : null;
}

/** Show the size, or ask for it. */
export function DownloadSize({ step }: { step: Step }) {
  const [said, setSaid] = useState("");
  if (step.bytes_download !== null) return step.bytes_download > 0 ? <>{bytes(step.bytes_download)} to download</> : null;
  const file = hubFile(step.changes.find((change) => change.path === "from")?.after);
  if (said || !file) return <>{said || "unknown size"}</>;
  const look = () => {
    setSaid("asking the hub…");
    ask<HubRepository>(`api/v1/hub/repository?${new URLSearchParams({ source: file.repository })}`).then(
      (found) => {
        const size = sizeOf(found, file.quant);
        setSaid(size === null ? "unknown size" : `about ${bytes(size)} to download`);
      },
      (error) => setSaid(error instanceof Error ? `unknown size: ${error.message}` : "unknown size"),
    );
  };
  return <>unknown size <button class="button small" onClick={look}>Ask the hub</button></>;
}
