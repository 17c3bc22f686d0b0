// Tables that are filled again each second. Cells are reused, and touched only when what they say has changed.
// All text goes in as text: names of models and upstreams are strangers' words.

const labels = new Map();

// `rows` is one array of cells per row; a cell is a text, or {text, tone, title}. A tone is a class of console.css.
export function fill(table, rows) {
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, index) => fillRow(body.rows[index] ?? newRow(table, body), cells));
  table.hidden = rows.length === 0;
}

function newRow(table, body) {
  const row = body.insertRow();
  for (const label of labelsOf(table)) {
    const cell = row.insertCell();
    cell.dataset.label = label.text; // a phone shows it beside the value
    cell.className = label.classes;
    cell.dataset.classes = label.classes;
  }
  return row;
}

function labelsOf(table) {
  if (!labels.has(table)) {
    const heads = [...table.tHead.rows[0].cells];
    labels.set(table, heads.map((head) => ({ text: head.textContent.trim(), classes: head.className })));
  }
  return labels.get(table);
}

function fillRow(row, cells) {
  cells.forEach((cell, index) => {
    const element = row.cells[index];
    const { text, tone = "", title = "" } = typeof cell === "object" ? cell : { text: cell };
    if (element.textContent !== text) element.textContent = text;
    const classes = `${element.dataset.classes} ${tone}`.trim();
    if (element.className !== classes) element.className = classes;
    if (element.title !== title) element.title = title;
  });
}
