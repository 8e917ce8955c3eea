// Characters that are invisible, or that turn the direction of a text, are shown by their code. The
// two joiners belong to other scripts and to emoji, but not beside a Latin letter.
const INVISIBLE =
  /[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufff8\u{e0000}-\u{e001f}]|(?<=[!-\u024f])[\u200c\u200d]|[\u200c\u200d](?=[!-\u024f])/gu;
const code = (character) => `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
document.addEventListener("DOMContentLoaded", () => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (texts.nextNode()) {
    if (texts.currentNode.data.search(INVISIBLE) >= 0 && !texts.currentNode.parentElement.closest("textarea, script")) {
      found.push(texts.currentNode);
    }
  }
  for (const text of found) {
    const parts = [];
    let end = 0;
    for (const match of text.data.matchAll(INVISIBLE)) {
      const mark = document.createElement("span");
      mark.className = "c-mark";
      mark.textContent = code(match[0]);
      parts.push(text.data.slice(end, match.index), mark);
      end = match.index + match[0].length;
    }
    text.replaceWith(...parts, text.data.slice(end));
  }
  document.title = document.title.replace(INVISIBLE, code);
});
// Unfold's inline scripts, for a policy without inline scripts: Alpine without eval needs registered
// components.
// Browsers scroll without SimpleBar, but app.js looks for its instances.
window.SimpleBar = { instances: new Map() };
document.addEventListener("alpine:init", () => {
  Alpine.data("theme", theme);
  Alpine.data("searchForm", searchForm);
  Alpine.data("frame", () => ({
    activeTab: document.body.dataset.tab,
    // The parts of the real window that unfold's forms use.
    window: { location: { pathname: location.pathname, search: location.search } },
    sidebarMobileOpen: false,
    sidebarDesktopOpen: localStorage.getItem("sidebarDesktopOpen") !== "0",
    toggleSidebar() {
      this.sidebarDesktopOpen = !this.sidebarDesktopOpen;
      localStorage.setItem("sidebarDesktopOpen", this.sidebarDesktopOpen ? "1" : "0");
    },
  }));
});
// The page is hidden until its theme is known. A hidden element takes no focus.
document.addEventListener("alpine:initialized", () => {
  requestAnimationFrame(() => document.querySelector("[autofocus]")?.focus());
});
// The page of a run requests its next step.
addEventListener("load", () => {
  document.querySelector("form[data-run]")?.requestSubmit();
});
// Copy buttons. Browsers have a clipboard only for https and for this machine.
document.addEventListener("DOMContentLoaded", () => {
  if (!navigator.clipboard) return;
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = button.dataset.copied;
    });
  }
});
// An action needs a selection. Unfold's script changes the selection after these events.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("changelist-form");
  const run = form?.querySelector("button[name=index]");
  if (!run) return;
  const update = () => setTimeout(() => {
    run.disabled = !form.querySelector(".action-select:checked");
  });
  form.addEventListener("change", update);
  form.addEventListener("click", update);
  addEventListener("pageshow", update);
});
