// The picture with a box around each person, drawn with the mouse, a finger or the keyboard.
// props.picture: {src, width, height} or null; props.value: [[x, y, width, height], ...] in its pixels.
// Gradio hands in element, trigger, props, server, upload and watch.
const NS = "http://www.w3.org/2000/svg";
const SMALLEST = 2; // pixels of a side; less is a click that slipped
const FIELDS = ["x", "y", "width", "height"];
const find = (selector) => element.querySelector(selector);
const image = find("img"), svg = find("svg"), list = find("ol");
let boxes = [], drag = null;

const round = (value) => Math.round(value * 10) / 10;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function commit(next) {
  boxes = next;
  props.value = boxes.map((box) => box.map(round));
  render();
}

function replaceBox(index, box) {
  return boxes.map((old, other) => (other === index ? box : old));
}

// x, y, width and height with both sides at least SMALLEST and the box inside the picture.
function inside([x, y, width, height]) {
  const { width: w, height: h } = props.picture;
  const left = clamp(x, 0, w - SMALLEST), top = clamp(y, 0, h - SMALLEST);
  return [left, top, clamp(width, SMALLEST, w - left), clamp(height, SMALLEST, h - top)];
}

function moved([x, y, width, height], dx, dy) {
  const { width: w, height: h } = props.picture;
  return [clamp(x + dx, 0, Math.max(0, w - width)), clamp(y + dy, 0, Math.max(0, h - height)), width, height];
}

function spanned(from, to) {
  const { width: w, height: h } = props.picture;
  const [x0, x1] = [from.x, to.x].map((x) => clamp(x, 0, w)).sort((a, b) => a - b);
  const [y0, y1] = [from.y, to.y].map((y) => clamp(y, 0, h)).sort((a, b) => a - b);
  return [x0, y0, x1 - x0, y1 - y0];
}

function place(event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return { x: point.x, y: point.y };
}

function describe(box, index) {
  const [x, y, width, height] = box.map((value) => Math.round(value));
  return `Box ${index + 1}: x ${x}, y ${y}, width ${width}, height ${height}. ` +
    "Arrow keys move it, with Shift they resize it, Delete removes it.";
}

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function drawBox(box, index, unit) {
  const [x, y, width, height] = box;
  const group = set(document.createElementNS(NS, "g"), {
    tabindex: 0, role: "button", "aria-label": describe(box, index), "data-index": index,
  });
  const frame = set(document.createElementNS(NS, "rect"), { x, y, width, height, class: "frame" });
  const number = set(document.createElementNS(NS, "text"), { x: x + 4 * unit, y: y + 15 * unit, "font-size": 14 * unit });
  number.textContent = index + 1;
  const grip = set(document.createElementNS(NS, "rect"), {
    x: x + width - 7 * unit, y: y + height - 7 * unit, width: 14 * unit, height: 14 * unit, class: "grip",
  });
  group.append(frame, number, grip);
  return group;
}

function drawBoxes(shown) {
  const focused = svg.contains(document.activeElement) ? document.activeElement.dataset.index : null;
  const unit = props.picture.width / Math.max(1, svg.clientWidth); // of the picture for one of the screen
  svg.replaceChildren(...shown.map((box, index) => drawBox(box, index, unit)));
  if (focused !== null) svg.querySelector(`[data-index="${focused}"]`)?.focus();
}

function listBoxes() {
  while (list.children.length > boxes.length) list.lastChild.remove();
  while (list.children.length < boxes.length) list.append(row(list.children.length));
  boxes.forEach((box, index) => {
    list.children[index].querySelectorAll("input").forEach((input, field) => {
      if (input !== document.activeElement) input.value = round(box[field]);
    });
  });
}

function row(index) {
  const item = document.createElement("li");
  FIELDS.forEach((field, place) => {
    const label = document.createElement("label"), input = document.createElement("input");
    set(input, { type: "number", step: "any", "aria-label": `${field} of box ${index + 1}` });
    input.addEventListener("change", () => {
      const value = Number(input.value);
      const box = boxes[index].map((old, other) => (other === place && input.value !== "" ? value : old));
      input.value = "";
      commit(replaceBox(index, inside(box)));
      input.value = round(boxes[index][place]);
    });
    label.append(field, input);
    item.append(label);
  });
  const remove = set(document.createElement("button"), { type: "button", "aria-label": `Remove box ${index + 1}` });
  remove.textContent = "Remove";
  remove.addEventListener("click", () => commit(boxes.filter((_, other) => other !== index)));
  item.append(remove);
  return item;
}

function render() {
  const picture = props.picture;
  element.querySelector(".stage").classList.toggle("bare", !picture);
  if (!picture) {
    boxes = [];
    list.replaceChildren();
    return;
  }
  if (image.getAttribute("src") !== picture.src) image.src = picture.src;
  set(svg, { viewBox: `0 0 ${picture.width} ${picture.height}` });
  drawBoxes(boxes);
  listBoxes();
  find(".clear").disabled = !boxes.length;
}

svg.addEventListener("pointerdown", (event) => {
  if (!props.picture || event.button !== 0) return;
  const index = event.target.closest("g")?.dataset.index;
  const from = place(event);
  const kind = index === undefined ? "draw" : event.target.classList.contains("grip") ? "resize" : "move";
  drag = { kind, from, index: Number(index), start: boxes[index] };
  svg.setPointerCapture(event.pointerId);
  if (index === undefined) event.preventDefault();
  else svg.querySelector(`[data-index="${index}"]`).focus();
});

function dragged(event) {
  const to = place(event), { kind, from, start, index } = drag;
  if (kind === "draw") return [...boxes, spanned(from, to)];
  const dx = to.x - from.x, dy = to.y - from.y;
  if (kind === "move") return replaceBox(index, moved(start, dx, dy));
  return replaceBox(index, inside([start[0], start[1], start[2] + dx, start[3] + dy]));
}

svg.addEventListener("pointermove", (event) => {
  if (drag) drawBoxes(dragged(event));
});
svg.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const next = dragged(event);
  drag = null;
  commit(next.filter(([, , width, height]) => width >= SMALLEST && height >= SMALLEST));
});
svg.addEventListener("pointercancel", () => {
  drag = null;
  render();
});

svg.addEventListener("keydown", (event) => {
  const index = Number(event.target.dataset?.index);
  if (!boxes[index]) return;
  const step = Math.max(1, Math.round(Math.max(props.picture.width, props.picture.height) / 100));
  const way = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  if (way) {
    const [x, y, width, height] = boxes[index];
    const grown = inside([x, y, width + way[0], height + way[1]]);
    commit(replaceBox(index, event.shiftKey ? grown : moved(boxes[index], ...way)));
  } else if (event.key === "Delete" || event.key === "Backspace") {
    commit(boxes.filter((_, other) => other !== index));
    (svg.querySelector("g") || find(".add")).focus();
  } else return;
  event.preventDefault();
});

find(".add").addEventListener("click", () => {
  const { width, height } = props.picture;
  commit([...boxes, [width / 4, height / 8, width / 2, (height * 3) / 4]]);
  svg.querySelector(`[data-index="${boxes.length - 1}"]`).focus();
});
find(".clear").addEventListener("click", () => {
  commit([]);
  find(".add").focus();
});

function arrived() {
  boxes = (Array.isArray(props.value) ? props.value : []).map((box) => [...box]);
  render();
}
watch(["value", "picture"], arrived);
new ResizeObserver(render).observe(image);
arrived();
