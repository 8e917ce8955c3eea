// Each field of the dialog takes the focus when the dialog opens; the first is for the user's token.
new MutationObserver(() => {
  const [first, ...others] = document.querySelectorAll(".modal-ux .auth-container input");
  if (others.includes(document.activeElement) && !first.dataset.focused) {
    first.dataset.focused = "once";
    first.focus();
  }
}).observe(document.getElementById("swagger-ui"), { childList: true, subtree: true });
