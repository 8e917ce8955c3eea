// Redoc would load the logo of its maker from elsewhere, which no option prevents.
const isOurs = (value) => new URL(value, location).origin === location.origin;
const { setAttribute } = Element.prototype;
const src = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");
HTMLImageElement.prototype.setAttribute = function (name, value) {
  if (name !== "src" || isOurs(value)) setAttribute.call(this, name, value);
};
Object.defineProperty(HTMLImageElement.prototype, "src", {
  ...src,
  set(value) {
    if (isOurs(value)) src.set.call(this, value);
  },
});

if (matchMedia("(prefers-color-scheme: dark)").matches) {
  document.documentElement.classList.add("dark");
  const [text, weak, link, line] = ["#e5e7eb", "#b6bdc9", "#c4a5ff", "#374151"];
  const [ground, soft, deep] = ["#111827", "#1f2937", "#0b1120"];
  const theme = {
    colors: {
      primary: { main: link },
      success: { main: "#4ade80" },
      warning: { main: "#fbbf24" },
      error: { main: "#fca5a5" },
      gray: { 50: soft, 100: line },
      text: { primary: text, secondary: weak },
      border: { dark: line, light: line },
    },
    schema: {
      linesColor: weak,
      nestedBackground: soft,
      typeNameColor: weak,
      typeTitleColor: weak,
      requireLabelColor: "#fca5a5",
    },
    typography: { code: { color: "#fca5a5", backgroundColor: soft }, links: { color: link } },
    sidebar: { backgroundColor: deep, textColor: text, activeTextColor: link },
    rightPanel: { backgroundColor: deep },
    codeBlock: { backgroundColor: soft },
  };
  document.querySelector("redoc").setAttribute("theme", JSON.stringify(theme));
}

// For assistive technology: no heading is skipped, and the keyboard scrolls every example.
new MutationObserver(() => {
  for (const heading of document.querySelectorAll("redoc h5, .redoc-wrap h5")) heading.ariaLevel = "3";
  for (const example of document.querySelectorAll("pre:not([tabindex])")) example.tabIndex = 0;
}).observe(document.querySelector("main"), { childList: true, subtree: true });
