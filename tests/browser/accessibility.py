"""A screen by the rules of axe-core, and by the keyboard."""

from __future__ import annotations

from typing import Any

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CHECK = """async (rules) => {
    const found = await axe.run(document, {runOnly: {type: "tag", values: rules}, resultTypes: ["violations"]});
    return found.violations.flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.target}: ${node.html}`));
}"""
# Marks the focused element, also in a shadow tree, and returns whether it shows the focus.
WALK = """() => {
    let one = document.activeElement;
    while (one.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
    const again = one === document.body || one.dataset.walked !== undefined;
    one.dataset.walked = "";
    const box = one.getBoundingClientRect(), framed = one.closest(".cm-editor, .composer");
    const seen = box.width > 0 && box.bottom > 0 && box.top < innerHeight;
    const shown = seen && (framed !== null || getComputedStyle(one).outlineStyle !== "none");
    return {again, editor: one.closest(".cm-editor") !== null, hidden: shown ? [] : [one.outerHTML.slice(0, 120)]};
}"""
REACHABLE = "a[href], button, input, select, textarea, summary, [tabindex='0']"
LEFT = """(selector) => [...document.querySelectorAll(selector)]
    .filter((one) => !one.disabled && one.checkVisibility() && one.tabIndex >= 0 && one.dataset.walked === undefined)
    .map((one) => one.outerHTML.slice(0, 120))"""


def wrong(tab: Any) -> dict[str, list[str]]:
    """Return the violations of the screen by width and theme, and what is wider than the window."""
    found = {}
    for width, themes in ((360, ("light",)), (1280, ("light", "dark"))):
        tab.set_viewport_size({"width": width, "height": 900})
        for theme in themes:
            tab.emulate_media(color_scheme=theme)
            found[f"{width} {theme}"] = tab.evaluate(CHECK, RULES)
        wide = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        found[f"{width} wide"] = [f"{wide} px"] if wide else []
    return {name: violations for name, violations in found.items() if violations}


def walked(tab: Any) -> list[str]:
    """Walk over the screen by Tab, and return what hides the focus or is not reached."""
    tab.locator(".skip").focus()
    hidden: list[str] = []
    while not (one := tab.evaluate(WALK))["again"]:
        hidden += one["hidden"]
        if one["editor"]:
            tab.keyboard.press("Escape")  # the editor keeps the key Tab for itself
        tab.keyboard.press("Tab")
    return hidden + tab.evaluate(LEFT, REACHABLE)
