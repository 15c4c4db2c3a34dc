/** The frame of all screens: navigation, the state of the server, and the screen of the address. */

import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";

import { forgetKey, key, keyEntered, keyWanted } from "../api/client.ts";
import { Guard } from "../parts/Guard.tsx";
import { Lazy } from "../parts/Lazy.tsx";
import { StateMark } from "../parts/StateMark.tsx";
import { Overview } from "../screens/overview/Overview.tsx";
import { connection, refusal, status } from "../state/live.ts";
import { KeyDialog } from "./KeyDialog.tsx";
import { Notices } from "./Notices.tsx";
import { link, parts } from "./router.ts";
import { theme, turn } from "./theme.ts";

interface Screen {
  path: string;
  title: string;
  view: ComponentType;
  /** The screen from which it is reached, for one without a place in the navigation. */
  below?: string;
  /** Returns false for a server that has no use of it, which leaves it out of the navigation. */
  wanted?: () => boolean;
}

const SCREENS: Screen[] = [
  { path: "", title: "Overview", view: Overview },
  { path: "fleet", title: "Fleet", view: lazy(() => import("../screens/fleet/Fleet.tsx"), "Fleet"), wanted: () => !!status.value?.fleet },
  { path: "models", title: "Model", view: lazy(() => import("../screens/model/Model.tsx"), "Model"), below: "" },
  { path: "plan", title: "Plan", view: lazy(() => import("../screens/plan/Plan.tsx"), "Plan") },
  { path: "history", title: "History", view: lazy(() => import("../screens/history/History.tsx"), "History") },
  { path: "playground", title: "Playground", view: lazy(() => import("../screens/playground/Playground.tsx"), "Playground") },
  { path: "requests", title: "Requests", view: lazy(() => import("../screens/requests/Requests.tsx"), "Requests") },
  { path: "logs", title: "Logs", view: lazy(() => import("../screens/logs/Logs.tsx"), "Logs") },
  { path: "metrics", title: "Metrics", view: lazy(() => import("../screens/metrics/Metrics.tsx"), "Metrics") },
  { path: "keys", title: "Keys", view: lazy(() => import("../screens/keys/Keys.tsx"), "Keys") },
  { path: "fetch", title: "Fetch models", view: lazy(() => import("../screens/fetch/Fetch.tsx"), "Fetch") },
];

function lazy<Name extends string>(load: () => Promise<Record<Name, ComponentType>>, name: Name): ComponentType {
  return () => <Lazy load={load} name={name} />;
}

/** The page. */
export function Shell() {
  const current = SCREENS.find((screen) => screen.path === (parts.value[0] ?? "")) ?? SCREENS[0]!;
  useEffect(() => {
    document.title = current.path ? `${current.title} · mullama` : "mullama";
  }, [current]);
  const View = current.view;
  return (
    <>
      <a class="skip" href="#main" onClick={focusMain}>Skip to the content</a>
      <nav class="rail" aria-label="Screens">
        <a class="brand" href={link()}><img src="icon.svg" alt="" width="22" height="22" /> <span class="brand-name">mullama</span></a>
        <ul>
          {SCREENS.filter((screen) => screen.below === undefined && (screen === current || screen.wanted?.() !== false)).map((screen) => (
            <li key={screen.path}>
              <a href={link(...(screen.path ? [screen.path] : []))} aria-current={screen.path === (current.below ?? current.path) ? "page" : undefined}>
                {screen.title}
              </a>
            </li>
          ))}
        </ul>
        <ServerState />
      </nav>
      <main id="main" tabIndex={-1}>
        <Notices />
        <Guard key={current.path}><View /></Guard>
      </main>
      {/* A dialog would take the keys of a person who writes: it opens by itself only while there is nothing to see. */}
      {(keyEntered.value || (keyWanted.value && !status.value)) && <KeyDialog />}
    </>
  );
}

/** Forget the key, and all that was read with it. Drafts and conversations are kept. */
function forget(): void {
  forgetKey();
  window.location.reload();
}

function focusMain(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

/** Why a server that answers shows no status, by the status of its answer. */
const REFUSALS: Record<number, string> = { 401: "a key is needed", 403: "the key may not read" };

function ServerState() {
  const known = status.value;
  const lost = connection.value === "lost";
  const refused = REFUSALS[refusal.value?.status ?? 0];
  return (
    <footer class="server">
      <p role="status">
        {lost && refused ? <StateMark state="degraded" word={refused} /> : <StateMark state={lost ? "lost" : known ? known.state : "connecting"} />}
      </p>
      {known && <p class="quiet small">mullama {known.version} · <a href="licenses.txt">licences</a></p>}
      <p class="actions">
        <button class="button plain small" onClick={turn}>Theme: {theme.value}</button>
        {key.value && <button class="button plain small" onClick={forget}>Forget the key</button>}
      </p>
    </footer>
  );
}
