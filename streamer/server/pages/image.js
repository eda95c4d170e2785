// The section "A picture": a file in, the masked picture and the list of what is hidden in it out.
import { ask, headers } from "./key.js";

const find = (id) => document.getElementById(`image-${id}`);
const drop = find("drop");
let latest = 0; // only the answer to the latest picture is shown

find("file").addEventListener("change", (event) => take(event.target.files[0]));
find("hide").addEventListener("change", () => find("file").files.length && take(find("file").files[0]));
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) {
    find("file").files = event.dataTransfer.files;
    take(event.dataTransfer.files[0]);
  }
});

async function take(file) {
  const turn = ++latest;
  find("answer").hidden = true;
  say(`Masking ${file.name} ...`);
  try {
    const answer = await anonymize(await base64Of(file), find("hide").value);
    if (turn === latest) show(answer, file.name);
  } catch (error) {
    if (turn === latest) say(error.message, true);
  }
}

async function anonymize(image, hide) {
  const response = await fetch("v1/anonymize", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers() },
    body: JSON.stringify({ image, hide, result: "base64" }),
  });
  const answer = await response.json();
  if (response.ok) return answer;
  if (response.status === 401) ask();
  throw new Error(answer.results[0].status.message);
}

function base64Of(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("the picture could not be read"));
    reader.readAsDataURL(file);
  });
}

function show(answer, name) {
  const link = `data:image/${answer.format.toLowerCase()};base64,${answer.result}`;
  find("result").src = link;
  find("save").href = link;
  find("save").download = name.replace(/(\.[^.]*)?$/, answer.format === "PNG" ? "-hidden.png" : "-hidden.jpg");
  find("facts").textContent = `${answer.width} × ${answer.height} pixels, ${answer.format}`;
  find("boxes").replaceChildren(...answer.objects.map(rectangle));
  find("objects").replaceChildren(...answer.objects.map(row));
  find("list").hidden = answer.objects.length === 0;
  find("answer").hidden = false;
  const count = answer.objects.length;
  say(count === 0 ? "Nothing to hide was found." : `${count} ${count === 1 ? "object is" : "objects are"} hidden.`);
}

function rectangle({ box }) {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const sides = { x: box.x, y: box.y, width: box.w, height: box.h };
  for (const [side, value] of Object.entries(sides)) shape.setAttribute(side, value);
  return shape;
}

function row(item, index) {
  const line = document.createElement("tr");
  const { x, y, w, h } = item.box;
  for (const text of [item.class, ...[x, y, w, h, item.score].map((value) => value.toFixed(3))]) {
    line.insertCell().textContent = text;
  }
  line.addEventListener("mouseenter", () => find("boxes").children[index].classList.add("on"));
  line.addEventListener("mouseleave", () => find("boxes").children[index].classList.remove("on"));
  return line;
}

function say(text, failed = false) {
  find("status").textContent = text;
  find("status").classList.toggle("failed", failed);
}
