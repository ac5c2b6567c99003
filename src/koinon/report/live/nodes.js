// Parts of the page. Whatever the coordinator sends becomes text, never markup, and nodes that are there are kept:
// the focus, the selection and an opened table stay where they are when the next status comes.

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Unknown text may be long, or hold what would turn the direction of the words around it.
function words(value) {
  const text = value === null || value === undefined ? "" : String(value);
  const shown = text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
  return shown.length > 500 ? `${shown.slice(0, 499)}…` : shown;
}

function write(node, value) {
  const text = words(value);
  if (node.textContent !== text) node.textContent = text;
}

// Give `parent` one child for each item, made once by `key`, in the order of the items.
function keep(parent, items, key, create) {
  const known = (parent.kept ??= new Map());
  const wanted = new Map(items.map((item) => [key(item), item]));
  for (const [name, view] of known)
    if (!wanted.has(name)) {
      view.root.remove();
      known.delete(name);
    }
  let place = parent.firstElementChild;
  for (const [name, item] of wanted) {
    if (!known.has(name)) known.set(name, create(item));
    const view = known.get(name);
    if (view.root === place) place = place.nextElementSibling;
    else parent.insertBefore(view.root, place);
    view.show(item);
  }
}

// A table. One with words in the columns `wide` becomes a list of cards on a narrow screen, and the roles keep it a
// table for a screen reader there; one of figures only scrolls in its own box.
// A row is {key, cells, kind}, and {action: {text, label, act, hidden}} where `acts`.
function table(caption, head, wide = [], acts = false) {
  const title = make("caption", {}, caption);
  const columns = head.map((name) => make("th", { scope: "col", role: "columnheader" }, name));
  const body = make("tbody", { role: "rowgroup" });
  const header = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...columns));
  if (acts) header.firstElementChild.append(make("td", { role: "cell" }));
  const whole = make("table", { role: "table" }, title, header, body);
  const root = make("div", { class: wide.length ? "scroll cards-if-narrow" : "scroll", tabindex: "0", role: "region", "aria-label": caption }, whole);
  wide.forEach((i) => columns[i].classList.add("words"));

  function row() {
    const cells = head.map((name, i) => i
      ? make("td", { role: "cell", "data-label": name, ...(wide.includes(i) ? { class: "words" } : {}) })
      : make("th", { scope: "row", role: "rowheader" }));
    const line = make("tr", { role: "row" }, ...cells);
    const button = acts && make("button", { type: "button" });
    if (button) line.append(make("td", { role: "cell", class: "act" }, button));
    let act;
    if (acts) button.addEventListener("click", () => act());
    return {
      root: line,
      show(item) {
        cells.forEach((cell, i) => {
          write(cell, item.cells[i]);
          cell.classList.toggle("none", cell.textContent === "" || cell.textContent === "–");
        });
        line.dataset.kind = words(item.kind);
        if (!acts) return;
        act = item.action.act;
        write(button, item.action.text);
        button.setAttribute("aria-label", words(item.action.label));
        button.hidden = item.action.hidden;
      },
    };
  }

  return {
    root,
    show(rows, said = caption) {
      write(title, said);
      root.hidden = rows.length === 0;
      keep(body, rows, (item) => item.key, row);
    },
  };
}

// A row of short facts: pairs of name and value; those without a value are left out.
function facts() {
  const root = make("dl", { class: "facts" });
  const create = ([name]) => {
    const value = make("dd");
    return { root: make("div", {}, make("dt", {}, name), value), show: (entry) => write(value, entry[1]) };
  };
  const shown = (entries) => entries.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return { root, show: (entries) => keep(root, shown(entries), ([name]) => name, create) };
}

// A part that is filled only while it is open.
function folded(title, content, fill) {
  const summary = make("summary", {}, title);
  const root = make("details", {}, summary, content);
  root.addEventListener("toggle", () => root.open && fill());
  return { root, refresh: () => root.open && fill() };
}
