/** A screen whose code is loaded when it is opened. */

import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

import { connection, returns } from "../state/live.ts";
import { Problem } from "./Problem.tsx";

interface Props<Name extends string> {
  load: () => Promise<Record<Name, ComponentType>>;
  name: Name;
}

/** Show the component `name` of a module once it is loaded. Without the server it is loaded when that returns. */
export function Lazy<Name extends string>({ load, name }: Props<Name>) {
  const [view, setView] = useState<{ component: ComponentType } | null>(null);
  const [error, setError] = useState<unknown>(null);
  const turn = error ? returns.value : 0;
  useEffect(() => {
    let wanted = true;
    load().then((module) => wanted && setView({ component: module[name] }), (failure) => wanted && setError(failure));
    return () => { wanted = false; };
  }, [load, name, turn]);
  if (error && !view) {
    if (connection.value === "lost") return <p class="quiet">This screen is loaded when the server answers again.</p>;
    return (
      <>
        <Problem title="This screen could not be loaded" error={error} />
        <p class="actions"><button class="button" onClick={() => window.location.reload()}>Load the page again</button></p>
      </>
    );
  }
  return view ? <view.component /> : <p class="quiet" aria-busy="true">Loading…</p>;
}
