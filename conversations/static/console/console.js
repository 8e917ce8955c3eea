// What unfold's pages say inline, for a policy that allows no inline script: Alpine's build without
// eval knows only components that are registered.
document.addEventListener("alpine:init", () => {
  Alpine.data("theme", theme);
  Alpine.data("searchForm", searchForm);
  Alpine.data("frame", () => ({
    activeTab: document.body.dataset.tab,
    // All that an expression of unfold's forms asks of the real one.
    window: { location: { pathname: location.pathname, search: location.search } },
    sidebarMobileOpen: false,
    sidebarDesktopOpen: localStorage.getItem("sidebarDesktopOpen") !== "0",
    toggleSidebar() {
      this.sidebarDesktopOpen = !this.sidebarDesktopOpen;
      localStorage.setItem("sidebarDesktopOpen", this.sidebarDesktopOpen ? "1" : "0");
    },
  }));
});
// The page is hidden until its theme is known, and what is hidden takes no focus.
document.addEventListener("alpine:initialized", () => {
  requestAnimationFrame(() => document.querySelector("[autofocus]")?.focus());
});
