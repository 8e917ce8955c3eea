// Unfold's inline scripts, for a policy without inline scripts: Alpine without eval needs registered
// components.
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
