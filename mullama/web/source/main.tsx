/** The entry of the page: mounts the shell and begins to follow the server. */

import { render } from "preact";

import "./style/all.css";
import { Shell } from "./shell/Shell.tsx";
import { follow } from "./state/live.ts";
import { watchPage } from "./state/pageVersion.ts";

const page = document.getElementById("page")!;
page.replaceChildren();
render(<Shell />, page);
watchPage();
void follow();
