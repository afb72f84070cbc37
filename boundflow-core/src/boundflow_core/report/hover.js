// Pointing at a task shows its neighbours, and when and where its results lie. Links to a task open it.
const all = (query) => [...document.querySelectorAll(query)];
const show = (task) => {
  document.body.classList.toggle("pointing", task !== null);
  for (const item of all(".lit")) item.classList.remove("lit");
  if (task === null) return;
  const near = new Set([task]);
  for (const edge of all(".edge")) {
    const ends = [edge.dataset.from, edge.dataset.to];
    if (!ends.includes(task)) continue;
    edge.classList.add("lit");
    ends.forEach((end) => near.add(end));
  }
  for (const item of all("[data-task]")) {
    const isNode = item.classList.contains("node");
    if (isNode ? near.has(item.dataset.task) : item.dataset.task === task) item.classList.add("lit");
  }
};
for (const item of all(".node, .task")) {
  item.addEventListener("pointerenter", () => show(item.dataset.task));
  item.addEventListener("pointerleave", () => show(null));
}
const open = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
};
addEventListener("hashchange", open);
addEventListener("beforeprint", () => show(null));
open();
