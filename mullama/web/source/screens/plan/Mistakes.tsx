/** The mistakes of the text; each leads to its place. */

import type { Mistake } from "../../api/types.ts";

interface Props {
  mistakes: Mistake[];
  /** The path of the file in the editor. */
  path: string;
  jump: (mistake: Mistake) => void;
}

/** The list. A mistake of an included file names that file. */
export function Mistakes({ mistakes, path, jump }: Props) {
  return (
    <ol class="mistakes" aria-label="Mistakes">
      {mistakes.map((one, index) => (
        <li key={index} class="problem">
          <p>
            {one.line !== null && (one.file === null || one.file === path) ? (
              <button class="button plain place" onClick={() => jump(one)}>line {one.line}{one.column !== null && `, column ${one.column}`}</button>
            ) : one.file && <span class="quiet">{one.file.split("/").at(-1)}{one.line !== null && `, line ${one.line}`}: </span>}
            {one.path && <strong>{one.path} </strong>}{one.message}
          </p>
          {one.hint && <p class="quiet">{one.hint}</p>}
        </li>
      ))}
    </ol>
  );
}
