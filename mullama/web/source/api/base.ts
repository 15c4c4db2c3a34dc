/** The address of the server, also below a path prefix: the page is at `<base>ui/`. */
export const base = new URL("..", document.baseURI.replace(/[#?].*$/, ""));
