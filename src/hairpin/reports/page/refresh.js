// The page of a run that is training reloads itself, and comes back to where it was.
{
  const live = document.querySelector(".live");
  const button = live.querySelector("button");
  const name = `hairpin page ${location.pathname}`;
  let paused = false;
  let kept = {};
  try {
    kept = JSON.parse(sessionStorage.getItem(name)) ?? {};
  } catch { /* no storage */ }
  history.scrollRestoration = "manual"; // the browser's comes before the charts are drawn, or not at all
  const folds = () => [...document.querySelectorAll("details")];
  const show = () => { button.textContent = paused ? "Resume" : "Pause"; };
  const busy = () => paused || document.hidden || !getSelection().isCollapsed
    || document.querySelector(".plot:active, button:active") !== null;

  addEventListener("load", () => {
    paused = kept.paused === true;
    show();
    folds().forEach((fold, at) => { fold.open = kept.open?.[at] ?? fold.open; });
    if (kept.left !== undefined) {
      document.querySelector(".samples")?.scrollTo({ left: kept.left, behavior: "instant" });
    }
    if (kept.top !== undefined) scrollTo({ top: kept.top, behavior: "instant" });
    if (kept.focus) document.getElementById(kept.focus)?.focus({ preventScroll: true });
    try {
      sessionStorage.removeItem(name);
    } catch { /* no storage */ }
  });
  addEventListener("pagehide", () => {
    const left = document.querySelector(".samples")?.scrollLeft;
    const focus = document.activeElement?.id;
    const open = folds().map((fold) => fold.open);
    try {
      sessionStorage.setItem(name, JSON.stringify({ top: scrollY, left, open, focus, paused }));
    } catch { /* no storage */ }
  });
  button.hidden = false;
  button.addEventListener("click", () => { paused = !paused; show(); });
  show();
  setInterval(() => { if (!busy()) location.reload(); }, 1000 * Number(live.dataset.refresh));
}
