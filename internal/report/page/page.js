// A link into a folded part of the page unfolds it; so does printing.
const unfold = e => { for (; e; e = e.parentElement) if (e.localName === "details") e.open = true };
const follow = () => { const e = document.getElementById(location.hash.slice(1)); if (e) { unfold(e); e.scrollIntoView() } };
addEventListener("hashchange", follow);
addEventListener("beforeprint", () => document.querySelectorAll("details.prints").forEach(unfold));
follow();
