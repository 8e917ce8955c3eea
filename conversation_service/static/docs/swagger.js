// Swagger UI has a dark theme; only its top bar, which is not shown, would choose it.
document.documentElement.classList.toggle(
  "dark-mode",
  matchMedia("(prefers-color-scheme: dark)").matches,
);
// For assistive technology: all parts have a name, no heading is skipped, no button has a link in it.
function repair() {
  document.getElementById("servers")?.setAttribute("aria-label", "Servers");
  for (const [part, name] of [
    [".information-container", "About"],
    [".schemes-server-container", "Servers and access"],
  ]) {
    Object.assign(document.querySelector(part) ?? {}, { role: "region", ariaLabel: name });
  }
  for (const heading of document.querySelectorAll("h3.opblock-tag")) heading.ariaLevel = "2";
  for (const heading of document.querySelectorAll("h4")) heading.ariaLevel = "3";
  for (const link of document.querySelectorAll(".opblock-summary-control a")) {
    link.removeAttribute("href");
  }
}

// Each field of the dialog takes the focus when the dialog opens; the first is for the user's token.
new MutationObserver(() => {
  repair();
  const [first, ...others] = document.querySelectorAll(".modal-ux .auth-container input");
  if (others.includes(document.activeElement) && !first.dataset.focused) {
    first.dataset.focused = "once";
    first.focus();
  }
}).observe(document.getElementById("swagger-ui"), { childList: true, subtree: true });
