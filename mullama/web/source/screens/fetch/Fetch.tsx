/** Models to fetch: a search of the hub, and the files of a repository that fit this machine. */

import { parts } from "../../shell/router.ts";
import { Repository } from "./Repository.tsx";
import { Search } from "./Search.tsx";

/** The screen: `#/fetch`, `#/fetch/search/WORDS`, or `#/fetch/repository/ORG/NAME`. */
export function Fetch() {
  const [, kind, ...names] = parts.value;
  return kind === "repository" && names.length ? <Repository key={names.join("/")} source={names.join("/")} /> : <Search words={kind === "search" ? (names[0] ?? "") : ""} />;
}
