// Views the page twenty times, one after another, so that a split between versions shows in the tally.
const button = document.getElementById("ask");
if (button) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    for (let left = 20; left > 1; left--) {
      button.textContent = `Asking… ${left}`;
      await fetch("/productpage", { cache: "no-store" }).catch(() => undefined);
    }
    location.reload();
  });
}
