/** The files of a model: sizes, digests, and their state in the lock file. */

import type { ModelFile } from "../../api/types.ts";
import { bytes, digest } from "../../format/units.ts";

const LOCKS: Record<ModelFile["lock"], [shape: string, tone: string, words: string]> = {
  pinned: ["●", "good", "pinned"],
  differs: ["▲", "warn", "differs from the lock file"],
  missing: ["○", "idle", "not in the lock file"],
  local: ["–", "idle", "file of this machine"],
};

/** The table, and the next step where a file is not pinned. */
export function Files({ files }: { files: ModelFile[] }) {
  const loose = files.some((file) => file.lock === "missing");
  return (
    <section class="panel" aria-labelledby="files-title">
      <header><h2 id="files-title">Files</h2></header>
      <div class="scroll">
        <table class="stacked">
          <thead><tr><th scope="col">File</th><th scope="col">State</th><th scope="col" class="number">Size</th></tr></thead>
          <tbody>
            {files.map((file, index) => (
              <tr key={index}>
                <td class="value wide">
                  <span title={file.path ?? undefined}>{file.name}</span> <span class="tag">{file.role}</span>
                  <span class="quiet small block">{file.digest ? <code title={file.digest}>{digest(file.digest)}</code> : "no digest yet"} · {file.source}</span>
                  {file.path && <span class="quiet small block">{file.path}</span>}
                </td>
                <td data-label="State">
                  <Lock file={file} />
                  {file.declared && <span class="quiet small block">digest declared</span>}
                  {!file.stored && <span class="small block">not on this machine</span>}
                  {file.problem && <span class="small block">{file.problem}</span>}
                </td>
                <td class="number" data-label="Size">{file.size === null ? "–" : bytes(file.size)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {loose && <p class="inside quiet flush"><code>mullama lock</code> pins the files, so that every machine uses the same.</p>}
    </section>
  );
}

function Lock({ file }: { file: ModelFile }) {
  const [shape, tone, words] = LOCKS[file.lock];
  return <span class={`mark ${tone}`}><span aria-hidden="true">{shape}</span> {words}</span>;
}
