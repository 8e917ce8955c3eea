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
